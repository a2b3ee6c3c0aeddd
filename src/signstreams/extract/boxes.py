"""Where face and hands are in one frame: from the finer detectors' points, and from the body's points.

A box is its centre and side, (x, y, side) in px; NaN where there is none. S streams are in the order of `STREAMS`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from signstreams.config.extract import BoxConfig
from signstreams.formats import landmarks
from signstreams.formats.landmarks import pose_index
from signstreams.streams import STREAMS

NUM_STREAMS = len(STREAMS)

_SHOULDERS = np.array([pose_index("left_shoulder"), pose_index("right_shoulder")])
_EYES = np.array([pose_index(f"{side}_eye{part}") for side in ("left", "right") for part in ("_inner", "", "_outer")])
_MOUTH = np.array([pose_index("mouth_left"), pose_index("mouth_right")])
_EARS = np.array([pose_index("left_ear"), pose_index("right_ear")])
_FACE_POINTS = np.array([pose_index("nose"), *_EYES, *_EARS, *_MOUTH])
_HANDS = np.array(
    [[pose_index(f"{side}_{part}") for part in ("wrist", "index", "pinky")] for side in ("left", "right")]
)

# Body proportions: medians over the four real clips (docs/extraction.md), where both detectors found the part.
EAR_TO_UNIT = 1.1  # half the shoulder distance, over the distance of the ears
FACE_EXTENT_TO_EARS = 1.4  # extent of the 468 face points, over the distance of the ears
FACE_EXTENT_TO_EYES_MOUTH = 2.67  # the same over the distance from eyes to mouth, which a turned head keeps
FACE_CENTRE_ABOVE = 0.1  # of the eyes-to-mouth distance, above the middle between eyes and mouth
HAND_CENTRE_ALONG = 1.2  # from the wrist towards the knuckle of the middle finger, over the distance between them
HAND_EXTENT_TO_KNUCKLE = 2.0  # extent of the 21 hand points, over the distance from wrist to that knuckle
HAND_EXTENT_TO_UNIT = 0.9  # the same over half the shoulder distance: what a foreshortened hand still is
MIN_HAND_EXTENT_TO_UNIT = 0.75  # a fist, or a finger pointing at the camera, is a hand of the same size


class Observation(NamedTuple):
    """What one frame says about the boxes.

    Attributes:
        detected: (S, 3) boxes around the points of the finer detectors.
        anchored: (S, 3) boxes placed by the body's points; NaN where these are not visible enough.
        visibility: (S,) mean visibility of the body points used for `anchored`; 0 where NaN.
    """

    detected: np.ndarray
    anchored: np.ndarray
    visibility: np.ndarray


def observe(keypoints: np.ndarray, width_px: int, height_px: int, config: BoxConfig) -> Observation:
    """Boxes of one frame.

    Args:
        keypoints: (543, 3) x, y as fractions of the frame, confidence.
        width_px: Width of the frame.
        height_px: Height of the frame.
        config: Scales and the least visibility.
    """
    points = keypoints[:, :2] * (width_px, height_px)  # (543, 2), px
    confidence = keypoints[:, 2]
    detected = np.full((NUM_STREAMS, 3), np.nan)
    anchored = np.full((NUM_STREAMS, 3), np.nan)
    visibility = np.zeros(NUM_STREAMS)
    unit_px = _body_unit(points, confidence)
    scales = (config.face_scale, config.hand_scale, config.hand_scale)
    floors = (0.0, *(2 * (MIN_HAND_EXTENT_TO_UNIT * unit_px,)))
    for index, rows in enumerate((landmarks.FACE, landmarks.HAND_L, landmarks.HAND_R)):
        present = confidence[rows] > 0
        if present.any():
            detected[index] = box_around(points[rows][present], scales[index], floors[index])
    for index, rows in enumerate((_FACE_POINTS, *_HANDS)):
        seen = confidence[rows]
        if seen.min() <= 0 or seen.mean() < config.min_visibility:
            continue
        visibility[index] = seen.mean()
        if index == 0:
            anchored[index] = _face_anchor(points, config.face_scale)
        else:
            anchored[index] = _hand_anchor(points[rows], unit_px, config.hand_scale)
    return Observation(detected, anchored, visibility)


def box_around(points: np.ndarray, scale: float, min_extent_px: float = 0.0) -> np.ndarray:
    """(3,) square box around (N, 2) points: their middle, and ``scale`` times their larger extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.append((low + high) / 2, max((high - low).max(), min_extent_px, 1.0) * scale)


def corners(boxes: np.ndarray) -> np.ndarray:
    """(..., 3) centre and side to (..., 4) x0, y0, x1, y1."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def _body_unit(points: np.ndarray, confidence: np.ndarray) -> float:
    """Half the shoulder distance, px; a body that is turned away keeps the one that its head says. 0 without a body."""
    unit_px = 0.0
    for pair, ratio in ((_SHOULDERS, 0.5), (_EARS, EAR_TO_UNIT)):
        if (confidence[pair] > 0).all():
            unit_px = max(unit_px, ratio * float(np.linalg.norm(points[pair[0]] - points[pair[1]])))
    return unit_px


def _face_anchor(points: np.ndarray, scale: float) -> np.ndarray:
    eyes, mouth = points[_EYES].mean(axis=0), points[_MOUTH].mean(axis=0)
    ears_px = float(np.linalg.norm(points[_EARS[0]] - points[_EARS[1]]))
    height_px = float(np.linalg.norm(eyes - mouth))
    extent_px = max(FACE_EXTENT_TO_EARS * ears_px, FACE_EXTENT_TO_EYES_MOUTH * height_px, 1.0)
    return np.append((eyes + mouth) / 2 + FACE_CENTRE_ABOVE * (eyes - mouth), extent_px * scale)


def _hand_anchor(points: np.ndarray, unit_px: float, scale: float) -> np.ndarray:
    """From wrist, index and pinky of the body; the knuckle of the middle finger lies between the latter two.

    MediaPipe looks for hands from the same points (google-ai-edge/mediapipe: hand_detections_from_pose_to_rects).
    """
    wrist, index, pinky = points
    knuckle = (2 * index + pinky) / 3
    extent_px = max(HAND_EXTENT_TO_KNUCKLE * float(np.linalg.norm(knuckle - wrist)), HAND_EXTENT_TO_UNIT * unit_px, 1.0)
    return np.append(wrist + HAND_CENTRE_ALONG * (knuckle - wrist), extent_px * scale)
