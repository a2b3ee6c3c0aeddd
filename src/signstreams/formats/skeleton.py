"""The points that are drawn for people, joined by lines; colours tell the sides apart."""

from __future__ import annotations

from signstreams.formats.landmarks import (
    BROW_L,
    BROW_R,
    EYE_L,
    EYE_R,
    FACE,
    HAND_L,
    HAND_R,
    JAW,
    LIPS,
    pose_index,
)

Colour = tuple[int, int, int]  # RGB
LEFT, RIGHT, BODY, FACE_LINES = (0, 214, 180), (240, 70, 170), (245, 245, 245), (190, 225, 150)

_TRUNK = [
    [pose_index(name) for name in names]
    for names in (
        ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("left_hip", "right_hip"),
    )
]
_ARMS = [[pose_index(f"{side}_{joint}") for joint in ("shoulder", "elbow", "wrist")] for side in ("left", "right")]
_FINGERS = [(0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (0, 17, 18, 19, 20), (5, 9, 13, 17)]
_FACE_PARTS = (JAW, BROW_L, BROW_R, (*EYE_L, EYE_L[0]), (*EYE_R, EYE_R[0]), (*LIPS, LIPS[0]))
_HANDS = ((HAND_L.start, LEFT), (HAND_R.start, RIGHT))
LINES: list[tuple[list[int], Colour, int]] = [
    *(([FACE.start + row for row in part], FACE_LINES, 1) for part in _FACE_PARTS),
    *((rows, BODY, 1) for rows in _TRUNK),
    *((rows, colour, 2) for rows, colour in zip(_ARMS, (LEFT, RIGHT), strict=True)),
    *(([start + row for row in finger], colour, 1) for start, colour in _HANDS for finger in _FINGERS),
]
"""Rows that each line joins, its colour and thickness; hands last, on top."""
DRAWN = sorted({row for rows, *_ in LINES for row in rows})
"""Rows, of the 543, of all points that a line joins."""
