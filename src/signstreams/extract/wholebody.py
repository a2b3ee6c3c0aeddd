"""From the 133 points of COCO-WholeBody to the 543: every point goes to the row that means the same place.

Order of the 133 (jin-s13/COCO-WholeBody): body 17, feet 6, face 68, left hand 21, right hand 21; sides are anatomical.
The hands' joints have MediaPipe's order: wrist, then thumb to little finger, each from palm to tip.
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Floats, Ints
from signstreams.extract.faces import IBUG_68
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, MISSING, NUM_KEYPOINTS, pose_index

BODY_NAMES = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist") for side in ("left", "right")),
    *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
)
FOOT_NAMES = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
NUM_WHOLEBODY = 133

W_BODY, W_FEET, W_FACE = slice(0, 17), slice(17, 23), slice(23, 91)
W_HAND_L, W_HAND_R = slice(91, 112), slice(112, 133)

_SAME_PLACE = {"big_toe": "foot_index", "heel": "heel"}  # the small toe has no row


def _rows() -> tuple[Ints, Ints]:
    """Of the 133 and of the 543: points that mean the same."""
    pairs = [(index, pose_index(name)) for index, name in enumerate(BODY_NAMES)]
    for index, name in enumerate(FOOT_NAMES, W_FEET.start):
        side, part = name.split("_", 1)
        if part in _SAME_PLACE:
            pairs.append((index, pose_index(f"{side}_{_SAME_PLACE[part]}")))
    pairs += zip(range(W_FACE.start, W_FACE.stop), (FACE.start + IBUG_68).tolist(), strict=True)
    for source, target in ((W_HAND_L, HAND_L), (W_HAND_R, HAND_R)):
        pairs += zip(range(source.start, source.stop), range(target.start, target.stop), strict=True)
    return tuple(np.array(pairs).T)


SOURCE_ROWS, TARGET_ROWS = _rows()


def from_wholebody(points: Floats) -> Floats:
    """(..., 133, 3) x, y, confidence to (..., 543, 3) float32; rows that 133 points say nothing of are missing."""
    result = np.empty((*points.shape[:-2], NUM_KEYPOINTS, 3), np.float32)
    result[...] = MISSING
    result[..., TARGET_ROWS, :] = points[..., SOURCE_ROWS, :]
    return result
