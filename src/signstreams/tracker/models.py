"""The models that find body, hands and face: which files, by their hash, and where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class ModelFile(NamedTuple):
    """One of MediaPipe's models. All take square RGB images."""

    path: str  # within the wheel
    sha256: str
    outputs: tuple[str, ...]  # tensors that are used, in the order in which they are given; others are not computed
    low: float  # what black is to the model; white is 1


_MODULES = "mediapipe/modules"
MODELS = {
    "pose_detection": ModelFile(
        f"{_MODULES}/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ("Identity", "Identity_1"),  # (2254, 12) boxes and points, (2254, 1) scores
        -1.0,
    ),
    "pose_landmarks": ModelFile(
        f"{_MODULES}/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        # (195,) 39 points x, y, z, visibility, presence; (1,) presence of a body; (64, 64, 39) where each point may be
        ("Identity", "Identity_1", "Identity_3"),
        0.0,
    ),
    "palm_detection": ModelFile(
        f"{_MODULES}/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        ("Identity", "Identity_1"),  # (2016, 18), (2016, 1)
        0.0,
    ),
    "hand_landmarks": ModelFile(
        f"{_MODULES}/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ("Identity", "Identity_1", "Identity_2"),  # (63,) 21 points x, y, z; (1,) presence; (1,) handedness
        0.0,
    ),
    "hand_recrop": ModelFile(
        f"{_MODULES}/holistic_landmark/hand_recrop.tflite",
        "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
        ("output_crop",),  # (1, 1, 4)
        0.0,
    ),
    "face_detection": ModelFile(
        f"{_MODULES}/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ("Identity", "Identity_1"),  # (2304, 16), (2304, 1)
        -1.0,
    ),
    "face_landmarks": ModelFile(
        f"{_MODULES}/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ("conv2d_21", "conv2d_31"),  # (1, 1, 1404) 468 points x, y, z; (1, 1, 1) presence
        0.0,
    ),
}


def model_path(name: str) -> Path:
    """The file of a model."""
    folder = os.environ.get("SIGNSTREAMS_MODELS")
    return Path(folder or "models") / Path(MODELS[name].path).name
