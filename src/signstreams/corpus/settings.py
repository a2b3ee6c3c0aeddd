"""Config of `signstreams.corpus.splits`: dividing a corpus into train, val and test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from signstreams.config.section import Section, Share


def listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


Folders = Annotated[list[Path], BeforeValidator(listed), Field(min_length=1)]
"""Folders that are searched in their order; one alone need not be in a list."""


def refuse_no_train(val_fraction: float, test_fraction: float) -> None:
    """For validators: fractions that leave nothing for train are a `ValueError`."""
    if val_fraction + test_fraction >= 1:
        raise ValueError(f"val_fraction ({val_fraction}) and test_fraction ({test_fraction}) leave nothing for train")


class SplitConfig(Section):
    """How clips are divided. A ``split`` column of meta.csv (train, val or dev, test) takes precedence."""

    seed: int = 0
    """Another seed gives another split."""
    val_fraction: Share = 0.1
    """Share of the clips for validation; 0 for none."""
    test_fraction: Share = 0.1
    """Share of the clips for the test; 0 for none."""
    group_by: Literal["auto", "signer", "video"] = "auto"
    """What is kept together besides the clips of a video: auto takes signers unless there are too few to fill the
    splits."""

    @model_validator(mode="after")
    def _train_is_left(self) -> SplitConfig:
        refuse_no_train(self.val_fraction, self.test_fraction)
        return self


class SplitCorpusConfig(SplitConfig):
    """Divide the clips of a corpus into train, val and test: writes index/{train,val,test}.csv and index/split.json.

    Clips of one video stay together, and those of one signer where signers are known and enough.
    """

    root: Path
    """Root of the corpus."""
    videos_dir: Folders | None = None
    """Folder of the videos, or several, searched in order; ROOT/videos without it."""
    allow_absent_videos: bool = False
    """Leave out clips whose video is absent, as in a partly downloaded corpus; otherwise they are errors."""
