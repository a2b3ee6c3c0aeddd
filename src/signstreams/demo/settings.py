"""Config of rendering the demo corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from signstreams.config.section import Count, Section


class DemoConfig(Section):
    """Render the demo corpus: videos of signers, texts, glosses, splits, ground truth; the same for the same seed."""

    root: Path = Path("data/demo")
    """Folder of the corpus."""
    size: Literal["tiny", "demo", "bench"] = "demo"
    """Size of the corpus: tiny for tests (8 clips), demo (54 clips), bench for measuring learning (300 clips)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed gives other sentences, motion, clothes and cameras."""
    jobs: Count = 1
    """Processes that render in parallel."""
    video: str | None = None
    """Render only this video and its ground truth."""
    annotations_only: bool = False
    """Write only meta.csv, annotations/gloss.csv and the index."""
    contact_sheet: Path | None = None
    """Write only a picture of the signers and handshapes to this PNG."""

    @model_validator(mode="after")
    def _one_thing_at_a_time(self) -> DemoConfig:
        given = [
            name for name in ("video", "annotations_only", "contact_sheet") if getattr(self, name) not in (None, False)
        ]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other, expected one of them at most; drop the others")
        if given and self.jobs != 1:
            raise ValueError(f"jobs ({self.jobs}) has no effect with {given[0]}; drop it")
        return self
