"""Settings of the judge. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from signstreams.config.section import Count, Flag, Section
from signstreams.integrate.settings import Device
from signstreams.streams import StreamName

FOLDERS, TEXTS, HANDSHAPES, MOUTHS = "folders", "texts", "handshapes", "mouths"
CLASS, SIGNER = "<class>", "<signer>"


class EvaluateBackboneConfig(Section):
    """Judge backbones by k-NN and a linear probe on labelled images or clips, beside simple baselines."""

    data: Path
    """Folder of images, sub-folders included, or a ZIP of them; or root of an extracted corpus."""
    output: Path
    """Folder to write into: judge.json, judge.csv, judge.png."""
    backbone: list[str] = []
    """Backbones, each file::PATH[:ARCHITECTURE], timm::NAME or a plain path; none: only the baselines."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` fetch weights that are not in the local cache."""
    labels: str | None = None
    """Where labels come from: `folders` (each image's own folder), `texts` (a corpus's meta.csv, one word per clip),
    `handshapes` or `mouths` (the demo corpus's truth of a hand, of the face), a CSV of file, label and perhaps signer,
    or a pattern of names such as `<class>_<signer>_<n>`. None: texts of a corpus, else folders."""
    streams: Annotated[list[StreamName], Field(min_length=1)] | None = None
    """Streams of a corpus to use; features of several are concatenated per clip. None: both hands."""
    k: Count = 20
    """Number of neighbours that vote."""
    probe: bool = True
    """Also run the linear probe, which takes most of the time."""
    seed: int = 0
    """Seed of the intervals, and of first weights whose own seed is not known."""
    device: Device = "auto"
    """Where backbones compute."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.download and not any(spec.startswith("timm::") for spec in self.backbone):
            raise ValueError("download has no effect: no backbone is a timm:: model; leave it out")
        if twice := sorted({spec for spec in self.backbone if self.backbone.count(spec) > 1}):
            raise ValueError(f"backbone: {twice[0]} is given twice; name each once")
        if self.labels is not None and "<" in self.labels and CLASS not in self.labels:
            raise ValueError(
                f"labels '{self.labels}': is a pattern without {CLASS}; name it, as in <class>_<signer>_<n>"
            )
        return self
