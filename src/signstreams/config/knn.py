"""Settings of the k-NN evaluation. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count, Positive


class KnnConfig(Section):
    """Weighted k-NN on true handshape: a pretrained backbone, the same with random weights, raw pixels."""

    backbone: str
    """file::PATH[:ARCHITECTURE], timm::NAME or a plain path."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` fetch weights that are not in the local cache."""
    crops: Path
    """Folder of one hand stream's crops."""
    ground_truth: Path
    """Folder of the demo corpus's ground truth, one npz a video."""
    output: Path
    """JSON file to write."""
    index: Path | None = None
    """Folder of train.csv, val.csv and test.csv; None: index beside the ground truth."""
    stream: Literal["hand_l", "hand_r"] | None = None
    """Which hand; None: the name of the crops' folder."""
    k: Count = 20
    """Neighbours."""
    temperature: Positive = 0.07
    """Neighbours vote with exp(cosine / temperature)."""
    seed: int = 0
    """Of the random weights."""
    threads: Count | None = None
    """CPU threads; None: PyTorch's choice."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.download and not self.backbone.startswith("timm::"):
            raise ValueError("download has no effect: the backbone is no timm:: model; leave it out")
        return self
