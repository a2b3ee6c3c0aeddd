"""Names and order of the 543 points of a frame: pose 33, face 468, left hand 21, right hand 21 (anatomical sides).

Names follow MediaPipe's documentation (google-ai-edge/mediapipe: mediapipe/python/solutions/{pose,hands}.py). Face
points have numbers only.
"""

from __future__ import annotations

POSE_NAMES = (
    "nose",
    "left_eye_inner",
    "left_eye",
    "left_eye_outer",
    "right_eye_inner",
    "right_eye",
    "right_eye_outer",
    "left_ear",
    "right_ear",
    "mouth_left",
    "mouth_right",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_pinky",
    "right_pinky",
    "left_index",
    "right_index",
    "left_thumb",
    "right_thumb",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_heel",
    "right_heel",
    "left_foot_index",
    "right_foot_index",
)
HAND_NAMES = (
    "wrist",
    *(f"{finger}_{joint}" for finger, joints in (("thumb", ("cmc", "mcp", "ip", "tip")),) for joint in joints),
    *(f"{finger}_{joint}" for finger in ("index", "middle", "ring", "pinky") for joint in ("mcp", "pip", "dip", "tip")),
)
NUM_POSE, NUM_FACE, NUM_HAND = len(POSE_NAMES), 468, len(HAND_NAMES)

POSE = slice(0, NUM_POSE)
FACE = slice(POSE.stop, POSE.stop + NUM_FACE)
HAND_L = slice(FACE.stop, FACE.stop + NUM_HAND)
HAND_R = slice(HAND_L.stop, HAND_L.stop + NUM_HAND)
NUM_KEYPOINTS = HAND_R.stop
assert NUM_KEYPOINTS == 543

KEYPOINT_NAMES = (
    *(f"pose.{name}" for name in POSE_NAMES),
    *(f"face.{index}" for index in range(NUM_FACE)),
    *(f"hand_l.{name}" for name in HAND_NAMES),
    *(f"hand_r.{name}" for name in HAND_NAMES),
)


def pose_index(name: str) -> int:
    """Row of a pose point among the 33 (and among the 543)."""
    return POSE_NAMES.index(name)


MISSING = (-1.0, -1.0, 0.0)
"""What a point that was not found holds: x, y, confidence."""
