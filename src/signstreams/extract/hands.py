"""Which detected hand is whose: the person's own wrists decide."""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Floats
from signstreams.formats.landmarks import HAND_L, HAND_R, MISSING, pose_index

WRISTS = (pose_index("left_wrist"), pose_index("right_wrist"))
CLEARLY_NEARER = 0.5
"""A hand belongs to the other wrist when that is nearer than this share of the distance to its own."""


def assign_hands(keypoints: Floats, aspect_ratio: float) -> Floats:
    """Put each detected hand into the slot of the body wrist that it clearly belongs to.

    A hand clearly nearer to the other wrist moves there when that slot is empty, or when the two hands are clearly
    swapped. When both detections sit on one wrist (crossing hands draw both trackers onto the same hand), the stray
    one is dropped: the wrist of its own side still says where that hand is.

    Args:
        keypoints: (543, 3) points of one frame; hands by the detector's own naming.
        aspect_ratio: Frame width over height, so that distances are the same along x and y.

    Returns:
        (543, 3), a copy when anything changed.
    """
    is_stray = [_is_stray(keypoints, side, aspect_ratio) for side in (0, 1)]
    if not any(is_stray):
        return keypoints
    slots = (HAND_L, HAND_R)
    hands = [keypoints[slot].copy() for slot in slots]
    is_present = [bool(hand[0, 2] > 0) for hand in hands]
    result = keypoints.copy()
    if all(is_stray):
        result[HAND_L], result[HAND_R] = hands[1], hands[0]
        return result
    stray = is_stray.index(True)
    if not is_present[1 - stray]:
        result[slots[1 - stray]] = hands[stray]
    result[slots[stray]] = MISSING
    return result


def _is_stray(keypoints: Floats, side: int, aspect_ratio: float) -> bool:
    hand_wrist = keypoints[(HAND_L, HAND_R)[side].start]
    own, other = keypoints[WRISTS[side]], keypoints[WRISTS[1 - side]]
    if min(hand_wrist[2], own[2], other[2]) <= 0:
        return False
    to_own, to_other = (np.hypot((hand_wrist[0] - w[0]) * aspect_ratio, hand_wrist[1] - w[1]) for w in (own, other))
    return bool(to_other < CLEARLY_NEARER * to_own)
