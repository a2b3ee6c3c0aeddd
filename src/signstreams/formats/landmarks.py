"""Names and order of the 543 points of a frame, and the rows of the face mesh that outline a face.

Pose 33, face 468, left hand 21, right hand 21; sides are anatomical.
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Flags, Floats

# Names follow MediaPipe's documentation (google-ai-edge/mediapipe: mediapipe/python/solutions/{pose,hands}.py). Face
# points have numbers only.
POSE_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
HAND_NAMES = (
    "wrist",
    *(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{joint}" for finger in ("index", "middle", "ring", "pinky") for joint in ("mcp", "pip", "dip", "tip")),
)
NUM_POSE, NUM_FACE, NUM_HAND = len(POSE_NAMES), 468, len(HAND_NAMES)

POSE = slice(0, NUM_POSE)
FACE = slice(POSE.stop, POSE.stop + NUM_FACE)
HAND_L = slice(FACE.stop, FACE.stop + NUM_HAND)
HAND_R = slice(HAND_L.stop, HAND_L.stop + NUM_HAND)
NUM_KEYPOINTS = HAND_R.stop
assert NUM_KEYPOINTS == 543

REGIONS = {"face": FACE, "hand_l": HAND_L, "hand_r": HAND_R}
"""Parts that a stream may be cut around (`signstreams.streams.Stream.region`)."""

KEYPOINT_NAMES = (
    *(f"pose.{name}" for name in POSE_NAMES),
    *(f"face.{index}" for index in range(NUM_FACE)),
    *(f"hand_l.{name}" for name in HAND_NAMES),
    *(f"hand_r.{name}" for name in HAND_NAMES),
)


def pose_index(name: str) -> int:
    """Row of a pose point among the 33 (and among the 543)."""
    return POSE_NAMES.index(name)


MISSING = (-1.0, -1.0, 0.0)  # x, y, confidence of a point that was not found
INTERPOLATED = 0.1
"""Confidence of points of a hand that were interpolated between two frames; points that were seen have more."""

# -- Rows of the face mesh, within the 468 face points
#
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

EXPRESSION = (*INNER_LIPS, 0, 61, 17, 291, 158, 153, 385, 380, 105, 107, 336, 334, 4)
"""21 of the 68, which tell mouths and expressions apart: lips, an upper and a lower lid of each eye, brows, tip of the
nose."""
CHIN, FOREHEAD = 152, 10
NOSE_TIP = 4
FOREHEAD_ABOVE_BROWS = 0.24
"""The mesh's upper end above the brows, over the distance from chin to brows: median of four clips (.21 to .26)."""
_BROWS = np.array(BROW_R + BROW_L)


def forehead(points: Floats, present: Flags) -> Floats:
    """(N, 2) estimate of the mesh's missing upper rim: the brows, lifted; empty if the rim is known or cannot be told.

    ``points`` are (468, 2), in any unit that is the same along x and y.
    """
    if present[FOREHEAD] or not present[CHIN]:
        return np.empty((0, 2))
    brows: Floats = points[_BROWS[present[_BROWS]]]
    if len(brows) == 0:
        return brows
    up: Floats = brows.mean(axis=0) - points[CHIN]
    return brows + FOREHEAD_ABOVE_BROWS * up


def outline(points: Floats, present: Flags) -> Floats:
    """(N, 2) the face points that are present, and the middle of the forehead if only the 68 points are known.

    Only its middle: the whole rim of `forehead` is a guess that would widen the box of a tilted head.
    """
    rim = forehead(points, present)
    return np.vstack([points[present], rim.mean(axis=0)]) if len(rim) else points[present]
