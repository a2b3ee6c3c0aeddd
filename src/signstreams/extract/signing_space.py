"""Body points in signing space (SignMusketeers, Gueuwou et al. 2024): independent of camera and build.

The space is a box of 6 by 7 head units (half the shoulder distance each), horizontally centred on the nose, its top
half a head unit above the eyes, as in ShesterG/SHuBERT (features/body_features.py). Two departures reduce noise: the
unit is the median over the video (one per frame makes the whole body pulse), and the height of the eyes is the mean of
both (one alone tilts with the head).
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Floats
from signstreams.formats.landmarks import MISSING, NUM_POSE, pose_index

WIDTH_UNITS, HEIGHT_UNITS = 6.0, 7.0
TOP_ABOVE_EYES_UNITS = 0.5
_NOSE = pose_index("nose")
_EYES = [pose_index("left_eye"), pose_index("right_eye")]
_SHOULDERS = [pose_index("left_shoulder"), pose_index("right_shoulder")]
_MIN_VISIBILITY = 0.5
_BLOCK_FRAMES = 1024  # frames processed at once: intermediate arrays take six times their points


def signing_space(pose: Floats, width_px: int, height_px: int, out: Floats | None = None) -> Floats:
    """Normalise the body points of a video: (T, 33, 3) x, y as fractions of the frame, visibility, or `MISSING`.

    Distances are measured in pixels, so that the frame's shape does not matter. Returns (T, 99) float32: 33 times x, y
    clipped to 0..1, visibility; (-1, -1, 0) for a missing point, and for every point of a frame without nose or eyes,
    or of a video without shoulders. It is made in ``out``, (T, 33, 3) float32 and perhaps ``pose`` itself, if given.
    """
    result = np.empty((len(pose), NUM_POSE, 3), np.float32) if out is None else out
    unit_px = head_unit_px(pose, width_px, height_px)
    for start in range(0, len(pose), _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        result[block] = _placed(pose[block], unit_px, width_px, height_px)
    return result.reshape(len(pose), NUM_POSE * 3)


def _placed(pose: Floats, unit_px: float, width_px: int, height_px: int) -> Floats:
    """(T, 33, 3) float32 points of some frames, with the head unit of the video."""
    result = np.tile(np.array(MISSING, np.float32), (len(pose), NUM_POSE, 1))
    found = pose[..., 2] > 0  # (T, 33)
    usable = found[:, _NOSE] & found[:, _EYES].all(axis=1)  # (T,)
    if unit_px > 0 and usable.any():
        points = pose[usable, :, :2].astype(np.float64) * (width_px, height_px)  # (T', 33, 2)
        left = points[:, _NOSE, 0] - WIDTH_UNITS * unit_px / 2
        top = points[:, _EYES, 1].mean(axis=1) - TOP_ABOVE_EYES_UNITS * unit_px
        x = (points[..., 0] - left[:, None]) / (WIDTH_UNITS * unit_px)
        y = (points[..., 1] - top[:, None]) / (HEIGHT_UNITS * unit_px)
        placed = np.stack([x.clip(0, 1), y.clip(0, 1), pose[usable, :, 2]], axis=-1)  # (T', 33, 3)
        result[usable] = np.where(found[usable][..., None], placed, np.array(MISSING))
    return result


def head_unit_px(pose: Floats, width_px: int, height_px: int) -> float:
    """Median over the video of half the shoulder distance, px; 0 without shoulders.

    Over frames in which both shoulders are visible; if there are none, over frames in which they are guessed.
    """
    both = pose[:, _SHOULDERS]  # (T, 2, 3)
    for least in (_MIN_VISIBILITY, np.finfo(np.float32).tiny):
        shown = (both[..., 2] >= least).all(axis=1)
        if shown.any():
            shoulders = both[shown, :, :2].astype(np.float64) * (width_px, height_px)  # (T', 2, 2)
            return float(np.median(np.linalg.norm(shoulders[:, 0] - shoulders[:, 1], axis=-1)) / 2)
    return 0.0
