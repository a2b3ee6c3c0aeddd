"""Settings of multistream v9: clips, batches, augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count, NotNegative, Range


class DataConfig(Section):
    """Clips and batches."""

    batch_size: Annotated[Count, Flag("--batch-size")] = 16
    """Clips a step."""
    frame_stride: Count = 2
    """Take every so many frames of a clip, from its first; all streams take the same ones."""
    max_frames: Count = 512
    """Longest clip, in frames after the stride."""
    long_clips: Literal["refuse", "stride"] = "refuse"
    """A longer clip: stop and name it, or take it with the smallest greater stride that makes it fit. Never cut: the
    text of a part is not known."""
    subset_size: Annotated[Count | None, Flag("--subset-size")] = None
    """Train on so many clips of the train split, drawn by the seed. None: on all."""
    crop_px: Count | None = None
    """Side to which crops are resized for the backbones. None: the side each backbone was trained on."""
    unknown_gloss: Literal["refuse", "count"] = "refuse"
    """A gloss of val or test that train lacks: stop and name it, or go on (no CTC for the clip, an error in WER)."""
    allow_absent_videos: bool = False
    """Leave out clips whose video was not extracted, as in a corpus fetched in part; otherwise they are errors."""
    blank_video: bool = False
    """Hide every stream in training and evaluation: measures what the text model reaches without seeing anything."""


class AugmentationConfig(Section):
    """Changes of the keypoints in training, drawn anew for each clip; none in validation. Never flipped."""

    scale: NotNegative = 0.1
    """Greatest relative change of size."""
    rotate_deg: NotNegative = 10.0
    """Greatest turn in the image plane, in degrees."""
    translate: NotNegative = 0.1
    """Greatest shift, in units of three half shoulder widths (half the signing space's width)."""
    noise: NotNegative = 0.0
    """Deviation of normal noise on each coordinate, in the same units."""
    time_scale: Range = [0.8, 1.2]
    """Range of the factor on the number of frames; streams are resampled together."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.time_scale
        if not 0 < low <= high:
            raise ValueError(f"time_scale [{low:g}, {high:g}]: expected 0 < low <= high")
        return self
