"""Rows of the face mesh that mean something, and what a face without its forehead still says of its extent.

Rows count within the 468 face points. Sides are the person's.
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Flags, Floats

# The 68 points of iBUG 300-W, which dlib and COCO-WholeBody share, as mesh rows: PeizhiYan/Mediapipe_2_Dlib_Landmarks,
# with the wings of the nose (98, 327) of the same author's flame-head-tracker (utils/mp2dlib.py). Five points lie
# between two mesh points there; one of the two is taken, so that left and right stay mirror images.
JAW = (127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356)  # right ear, chin, left ear
BROW_R = (70, 63, 105, 66, 107)
BROW_L = (336, 296, 334, 293, 300)
NOSE = (168, 197, 5, 4, 98, 97, 2, 326, 327)
EYE_R = (33, 160, 158, 133, 153, 144)
EYE_L = (362, 385, 387, 263, 373, 380)
LIPS = (61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91)
INNER_LIPS = (78, 82, 13, 312, 308, 317, 14, 87)
IBUG_68 = np.array(JAW + BROW_R + BROW_L + NOSE + EYE_R + EYE_L + LIPS + INNER_LIPS)

CHIN, FOREHEAD = 152, 10
NOSE_TIP = 4
FOREHEAD_ABOVE_BROWS = 0.24
"""The mesh's upper end above the brows, over the distance from chin to brows: median of four clips (.21 to .26)."""
_BROWS = np.array(BROW_R + BROW_L)


def forehead(points: Floats, present: Flags) -> Floats:
    """(N, 2) upper rim of the mesh where it is not known: the brows, lifted; empty where it is, or cannot be told.

    Args:
        points: (468, 2) in any unit that is the same along x and y.
        present: (468,) bool.
    """
    if present[FOREHEAD] or not present[CHIN]:
        return np.empty((0, 2))
    brows: Floats = points[_BROWS[present[_BROWS]]]
    if len(brows) == 0:
        return brows
    up: Floats = brows.mean(axis=0) - points[CHIN]
    return brows + FOREHEAD_ABOVE_BROWS * up


def outline(points: Floats, present: Flags) -> Floats:
    """(N, 2) the face points that are present, and the middle of the forehead where only the 68 points are known.

    The middle alone: the rim beside it is a guess that would widen the box of a tilted head. See `forehead`.
    """
    rim = forehead(points, present)
    return np.vstack([points[present], rim.mean(axis=0)]) if len(rim) else points[present]
