"""Where face and hands are in one frame: from their own points, and from the points of the body.

A box is (x, y, side): centre and side in px, NaN without a box. S streams are in the order of `STREAMS`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from signstreams.array_types import Flags, Floats
from signstreams.extract.settings import BoxConfig
from signstreams.formats.landmarks import FACE, INTERPOLATED, REGIONS, outline, pose_index
from signstreams.streams import STREAMS, TABLE

NUM_STREAMS = len(STREAMS)

_SHOULDERS = np.array([pose_index("left_shoulder"), pose_index("right_shoulder")])
_EYES = np.array([pose_index(f"{side}_eye{part}") for side in ("left", "right") for part in ("_inner", "", "_outer")])
_MOUTH = np.array([pose_index("mouth_left"), pose_index("mouth_right")])
_EARS = np.array([pose_index("left_ear"), pose_index("right_ear")])
_FACE_POINTS = np.array([pose_index("nose"), *_EYES, *_EARS, *_MOUTH])
_HANDS = np.array(
    [[pose_index(f"{side}_{part}") for part in ("wrist", "index", "pinky")] for side in ("left", "right")]
)
# Those of them that COCO's 17 body points have.
_COCO_FACE_POINTS = np.array([pose_index(f"{side}_{part}") for part in ("eye", "ear") for side in ("left", "right")])
_FOREARMS = np.array([[pose_index(f"{side}_{part}") for part in ("wrist", "elbow")] for side in ("left", "right")])

# Body proportions: medians over the four real clips (docs/extraction.md), where both detectors found the part.
EAR_TO_UNIT = 1.1  # half the shoulder distance, over the distance of the ears
FACE_EXTENT_TO_EARS = 1.4  # extent of the 468 face points, over the distance of the ears
FACE_EXTENT_TO_EYES_MOUTH = 2.67  # the same over the distance from eyes to mouth, which a turned head keeps
FACE_EXTENT_TO_UNIT = 1.3  # the same over half the shoulder distance
FACE_CENTRE_ABOVE = 0.1  # of the eyes-to-mouth distance, above the middle between eyes and mouth
HAND_CENTRE_ALONG = 1.2  # from the wrist towards the knuckle of the middle finger, over the distance between them
HAND_EXTENT_TO_KNUCKLE = 2.0  # extent of the 21 hand points, over the distance from wrist to that knuckle
FACE_EXTENT_TO_EYES = 2.7  # extent of the 468 face points, over the distance of the eyes
FACE_CENTRE_BELOW = 0.8  # of the 468 face points, below the eyes: of the way from the eyes to the nose
HAND_ALONG_FOREARM = 0.35  # from the wrist away from the elbow, over the length of the forearm
HAND_EXTENT_TO_FOREARM = 0.7
HAND_EXTENT_TO_UNIT = 0.9  # the same over half the shoulder distance: what a foreshortened hand still is


_HANDS_ALONE = ("hand_l", "hand_r")  # regions of which all points are of one hand


class Observation(NamedTuple):
    """Boxes observed in one frame."""

    detected: Floats  # (S, 3) boxes around the points of face and hands
    anchored: Floats  # (S, 3) boxes placed by points of the body; NaN where these are not visible enough
    visibility: Floats  # (S,) mean visibility of the body points behind `anchored`; 0 where NaN


def observe(keypoints: Floats, width_px: int, height_px: int, config: BoxConfig) -> Observation:
    """Boxes of one frame from its (543, 3) keypoints: x, y as fractions of the frame, confidence."""
    points = keypoints[:, :2] * (width_px, height_px)  # (543, 2), px
    confidence = keypoints[:, 2]
    detected = np.full((NUM_STREAMS, 3), np.nan)
    anchored = np.full((NUM_STREAMS, 3), np.nan)
    visibility = np.zeros(NUM_STREAMS)
    unit_px = _body_unit(points, confidence)
    for index, stream in enumerate(TABLE):
        scale = getattr(config, stream.scale) if isinstance(stream.scale, str) else stream.scale
        region = REGIONS[stream.region] if isinstance(stream.region, str) else list(stream.region)
        # Points that were interpolated place no box: boxes are interpolated themselves, as their state says.
        present = confidence[region] > (INTERPOLATED if stream.region in _HANDS_ALONE else 0)
        if present.any():
            found = outline(points[region], present) if region == FACE else points[region][present]
            detected[index] = box_around(found, scale, stream.min_extent * unit_px)
        for rows, anchor in _ANCHORS.get(stream.name, ()):
            seen = confidence[rows]
            if seen.min() <= 0:
                continue
            if seen.mean() >= config.min_visibility:
                visibility[index] = seen.mean()
                anchored[index] = anchor(points[rows], unit_px)
                anchored[index, 2] *= scale
            break
    return Observation(detected, anchored, visibility)


def box_around(points: Floats, scale: float, min_extent_px: float = 0.0) -> Floats:
    """(3,) square box around (N, 2) points: their middle, and ``scale`` times their larger extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.append((low + high) / 2, max((high - low).max(), min_extent_px, 1.0) * scale)


def corners(boxes: Floats) -> Floats:
    """(..., 3) centre and side to (..., 4) x0, y0, x1, y1."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def head_from_body(points: Floats, present: Flags) -> tuple[Floats | None, float]:
    """Where the face is according to any body points of the head, however faint; ``points`` are (543, 2) px.

    Returns centre and extent of the face, (3,) px, None without such points; half the shoulder distance, 0 if unknown.
    """
    unit_px = _body_unit(points, present)
    for rows, anchor in _ANCHORS["face"]:
        if present[rows].all():
            return anchor(points[rows], unit_px), unit_px
    seen = points[_FACE_POINTS[present[_FACE_POINTS]]]
    if len(seen) == 0:
        return None, unit_px
    low, high = seen.min(axis=0), seen.max(axis=0)
    extent_px = max(FACE_EXTENT_TO_EYES * (high - low).max(), FACE_EXTENT_TO_UNIT * unit_px, 1.0)
    return np.append((low + high) / 2, extent_px), unit_px


def _body_unit(points: Floats, confidence: Floats | Flags) -> float:
    """Half the shoulder distance, px; for a body turned sideways, as the head's size implies. 0 without a body."""
    unit_px = 0.0
    for pair, ratio in ((_SHOULDERS, 0.5), (_EARS, EAR_TO_UNIT)):
        if (confidence[pair] > 0).all():
            unit_px = max(unit_px, ratio * float(np.linalg.norm(points[pair[0]] - points[pair[1]])))
    return unit_px


def _face_anchor(points: Floats, unit_px: float) -> Floats:
    """(3,) centre and extent of the face, from nose, six eye points, ears and mouth."""
    eyes, ears, mouth = points[1:7].mean(axis=0), points[7:9], points[9:].mean(axis=0)
    ears_px = float(np.linalg.norm(ears[0] - ears[1]))
    height_px = float(np.linalg.norm(eyes - mouth))
    extent_px = max(FACE_EXTENT_TO_EARS * ears_px, FACE_EXTENT_TO_EYES_MOUTH * height_px, 1.0)
    return np.append((eyes + mouth) / 2 + FACE_CENTRE_ABOVE * (eyes - mouth), extent_px)


def _face_anchor_of_coco(points: Floats, unit_px: float) -> Floats:
    """(3,) centre and extent of the face, from nose, eyes and ears."""
    nose, eyes, ears = points[0], points[1:3], points[3:]
    ears_px, eyes_px = float(np.linalg.norm(ears[0] - ears[1])), float(np.linalg.norm(eyes[0] - eyes[1]))
    extent_px = max(FACE_EXTENT_TO_EARS * ears_px, FACE_EXTENT_TO_EYES * eyes_px, 1.0)
    middle = eyes.mean(axis=0)
    return np.append(middle + FACE_CENTRE_BELOW * (nose - middle), extent_px)


def _hand_anchor(points: Floats, unit_px: float) -> Floats:
    """(3,) centre and extent of a hand, from wrist, index and pinky of the body.

    The knuckle of the middle finger is between the latter two. MediaPipe searches hands from the same points
    (google-ai-edge/mediapipe: hand_detections_from_pose_to_rects).
    """
    wrist, index, pinky = points
    knuckle = (2 * index + pinky) / 3
    extent_px = max(HAND_EXTENT_TO_KNUCKLE * float(np.linalg.norm(knuckle - wrist)), HAND_EXTENT_TO_UNIT * unit_px, 1.0)
    return np.append(wrist + HAND_CENTRE_ALONG * (knuckle - wrist), extent_px)


def _hand_anchor_of_coco(points: Floats, unit_px: float) -> Floats:
    """(3,) centre and extent of a hand, from wrist and elbow: it continues the forearm."""
    wrist, elbow = points
    forearm_px = float(np.linalg.norm(wrist - elbow))
    extent_px = max(HAND_EXTENT_TO_FOREARM * forearm_px, HAND_EXTENT_TO_UNIT * unit_px, 1.0)
    return np.append(wrist + HAND_ALONG_FOREARM * (wrist - elbow), extent_px)


_ANCHORS = {
    "face": ((_FACE_POINTS, _face_anchor), (np.append(pose_index("nose"), _COCO_FACE_POINTS), _face_anchor_of_coco)),
    "hand_l": ((_HANDS[0], _hand_anchor), (_FOREARMS[0], _hand_anchor_of_coco)),
    "hand_r": ((_HANDS[1], _hand_anchor), (_FOREARMS[1], _hand_anchor_of_coco)),
}
"""Per stream: body points and the box they imply; the first set with all points present counts."""
