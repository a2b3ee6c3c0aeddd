"""What `scripts/compare_runs.py` lays over each other. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from signstreams.config.base import Section


class CompareConfig(Section):
    """Lay the curves of runs over each other: a picture with a panel a metric, tables of values and settings."""

    runs: list[Path] = Field(min_length=1)
    """Output folders of runs, archived ones (previous/...) too, or files of metrics; may also come first, unnamed."""
    metrics: list[str] = []
    """Names of metrics or patterns such as 'val/wer_*' (quoted); none: what matters for the kind of run."""
    output: Path = Path("compare.png")
    """Picture to write, a PNG."""
    tag: str | None = None
    """Keep only runs with this tag."""
    against: Literal["step", "epoch", "time"] = "step"
    """Horizontal axis. time: of training as logged; a translation run's evaluations are left out."""

    @field_validator("output")
    @classmethod
    def _is_a_png(cls, path: Path) -> Path:
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path} does not end in .png, expected the name of a picture such as compare.png")
        return path
