"""Detectors: from a frame to the 543 points of one person. Add one by writing a class with `Detector`'s methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from signstreams.array_types import Floats
from signstreams.config.extract import ExtractConfig
from signstreams.extract.video import Frame
from signstreams.formats.landmarks import MISSING, NUM_KEYPOINTS
from signstreams.formats.metadata import DetectorInfo

MIN_CONFIDENCE = 1e-4
"""Confidence of a point that was found is at least this: 0 stands for "missing"."""


class VideoContext(NamedTuple):
    """What a detector may know of the video it starts on.

    Attributes:
        path: The video.
        video_id: Its id.
        width_px, height_px: Size of the upright frame.
        fps: Mean rate of the source as declared, Hz; 0 when the file does not say.
        box: Where the signer is, x0, y0, x1, y1 in px, when meta.csv says so.
        duration_s: Length as declared; None when the file does not say.
    """

    path: Path
    video_id: str
    width_px: int
    height_px: int
    fps: float
    box: tuple[float, float, float, float] | None = None
    duration_s: float | None = None


class Detector(Protocol):
    """Finds the points of one person, frame after frame of one video."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def detect(self, frame: Frame) -> Floats:
        """Points of the next frame.

        Args:
            frame: The frame; its image is (H, W, 3) uint8 RGB.

        Returns:
            (543, 3) float32 x, y, confidence in the order and units of `signstreams.formats.landmarks`; `MISSING` rows
            where nothing was found. Hands are anatomical.
        """
        ...


class DetectorKind(NamedTuple):
    """A detector's description, without importing what it needs, and how to start it for one video.

    Attributes:
        info: Of the detector as it would look at the video with this id: whatever changes its results shows in it.
        start: The detector itself. Raises `UnreadableVideoError` when it can do nothing with this video.
        sees_pixels: Whether it looks at the image; one that does not needs no choice of the signer from pixels.
    """

    info: Callable[[ExtractConfig, str], DetectorInfo]
    start: Callable[[ExtractConfig, VideoContext], Detector]
    sees_pixels: bool = True


def missing_keypoints() -> Floats:
    """(543, 3) float32, every point missing."""
    return np.tile(np.array(MISSING, np.float32), (NUM_KEYPOINTS, 1))
