"""Settings of the translation of new videos. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag
from signstreams.config.evaluate_slt import TrainedModelSection
from signstreams.config.kinds import NotNegative


class TranslateConfig(TrainedModelSection):
    """Translate videos with a trained model: the same extraction, backbones and frames as in its training."""

    videos: list[Path] = Field(min_length=1)
    """Videos, or folders of them: files, and folders of frames."""
    start_s: Annotated[NotNegative | None, Flag("--start")] = None
    """Translate only from this second on."""
    end_s: Annotated[NotNegative | None, Flag("--end")] = None
    """Translate only up to this second."""
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    """Where the signer is, x0 y0 x1 y1 in px, as in meta.csv. None: of several people the one whose hands move most."""
    points: Path | None = None
    """Folder of points that another tool found, for a model whose corpus was extracted from such."""
    as_json: Annotated[bool, Flag("--json")] = False
    """Print one JSON object a video in place of its text."""

    @model_validator(mode="after")
    def _span_is_not_empty(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                f"end_s ({self.end_s:g}) is not after start_s ({self.start_s:g}); give the later one as the end"
            )
        return self

    @model_validator(mode="after")
    def _box_has_a_size(self) -> Self:
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (x0 < x1 and y0 < y1):
                shown = " ".join(f"{value:g}" for value in self.box)
                raise ValueError(f"box ({shown}) has no size, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
        return self
