"""Points and boxes drawn onto a picture, in colours that show at a glance which side is which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.faces import BROW_L, BROW_R, EYE_L, EYE_R, JAW, LIPS
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, pose_index
from signstreams.streams import BoxState

Colour = tuple[int, int, int]
"""RGB."""
LEFT, RIGHT, BODY, FACE_LINES = (0, 214, 180), (240, 70, 170), (245, 245, 245), (190, 225, 150)
STATE_COLOURS: dict[int, Colour] = {
    BoxState.MISSING: (112, 120, 134),
    BoxState.DETECTED: (46, 144, 250),
    BoxState.TRACKED: (247, 144, 9),
    BoxState.FILLED: (155, 138, 251),
}
"""As in the page of the contract."""
_SHIFT = 3  # fractional bits of cv2's coordinates

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


def draw_skeleton(image: Pixels, keypoints: Floats) -> None:
    """Draw the points that were found, in place.

    Args:
        image: (H, W, 3) uint8 RGB.
        keypoints: (543, 3) x, y as fractions of the frame, confidence.
    """
    points = keypoints[:, :2] * (image.shape[1], image.shape[0])
    present = keypoints[:, 2] > 0
    for rows, colour, thickness in _lines():
        for start, end in pairwise(rows):
            if present[start] and present[end]:
                first, last = (
                    tuple(int(v) for v in np.clip(points[p] * 2**_SHIFT, -(2**20), 2**20)) for p in (start, end)
                )
                cv2.line(image, first, last, colour, thickness, cv2.LINE_AA, _SHIFT)


def draw_box(image: Pixels, corners: Sequence[float] | Floats, colour: Colour, thickness: int = 2) -> None:
    """A rectangle x0, y0, x1, y1 px, in place; a dark line around it keeps it visible on any ground."""
    x0, y0, x1, y1 = (round(float(np.clip(value, -(2**14), 2**14))) for value in corners)
    cv2.rectangle(image, (x0, y0), (x1, y1), (20, 22, 28), thickness + 2)
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, thickness)


def _lines() -> Iterator[tuple[Sequence[int], Colour, int]]:
    """Rows that a line runs through, its colour and thickness; hands last, over everything."""
    for part in _FACE_PARTS:
        yield [FACE.start + row for row in part], FACE_LINES, 1
    for rows in _TRUNK:
        yield rows, BODY, 1
    for rows, colour in zip(_ARMS, (LEFT, RIGHT), strict=True):
        yield rows, colour, 2
    for hand, colour in ((HAND_L, LEFT), (HAND_R, RIGHT)):
        for finger in _FINGERS:
            yield [hand.start + row for row in finger], colour, 1
