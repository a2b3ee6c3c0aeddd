"""True boxes of face and hands, from the ground truth of a rendered video."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from signstreams.array_types import Array, Floats
from signstreams.demo.head import EYE, FACE_BOTTOM, FACE_TOP
from signstreams.streams import HAND_STREAMS


def true_boxes(truth: Mapping[str, Array], face_scale: float, hand_scale: float) -> dict[str, Floats]:
    """Square boxes as extraction defines them: the middle of the points, their larger extent times a scale.

    Args:
        truth: Arrays of `signstreams.demo.truth`.
        face_scale: Over the extent from the hairline to the chin.
        hand_scale: Over the extent of the 21 joints.

    Returns:
        Stream to (T, 3) float: x and y of the centre, side, px.
    """
    boxes = {"face": _face(truth, face_scale)}
    for stream in HAND_STREAMS:
        low, high = truth[stream].min(axis=1), truth[stream].max(axis=1)  # (T, 2) each
        boxes[stream] = np.column_stack([(low + high) / 2, (high - low).max(axis=1) * hand_scale])
    return boxes


def _face(truth: Mapping[str, Array], scale: float) -> Floats:
    """From the eyes, which fix place, size and roll of the head."""
    names = [str(name) for name in truth["body_names"]]
    left, right = (truth["body"][:, names.index(f"{side}_eye")].astype(float) for side in ("left", "right"))  # (T, 2)
    across = left - right
    unit_px = np.linalg.norm(across, axis=1) / (2 * EYE[0])  # (T,)
    down = np.column_stack([-across[:, 1], across[:, 0]]) / np.linalg.norm(across, axis=1, keepdims=True)
    centre = (left + right) / 2 + ((FACE_TOP + FACE_BOTTOM) / 2 - EYE[1]) * unit_px[:, None] * down
    return np.column_stack([centre, (FACE_BOTTOM - FACE_TOP) * unit_px * scale])
