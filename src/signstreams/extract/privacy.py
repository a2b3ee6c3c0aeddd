"""Hide the signer's face in a frame before crops are cut from it.

The head is outlined generously, the more so the less is known about it; hands in front of it stay visible.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.frame_boxes import head_from_body
from signstreams.formats.landmarks import (
    BROW_L,
    BROW_R,
    EYE_L,
    EYE_R,
    FACE,
    FOREHEAD,
    HAND_L,
    HAND_R,
    IBUG_68,
    INNER_LIPS,
    LIPS,
    forehead,
)
from signstreams.formats.video_metadata import FacePrivacy
from signstreams.streams import STREAMS, BoxState

GREY = 128
HEAD_SCALE = 1.35  # size of the head over the mesh, which ends before the ears and at mid-forehead
KEPT_SCALE = 1.25
"""Size of the visible eyes and mouth over the hull of their points: lids, lashes and the rims of the lips."""
BLUR_CELLS = 7  # pixels to which the height of a face is reduced: below about 16, faces cannot be told apart
MIN_MESH_RATIO = 0.9  # least share of the 68 points with which a mesh outlines the head
FINGER_TO_PALM = 0.4
"""Width spared along a finger's bones over the length of the palm; a finger is 0.2 wide, its points are not exact."""
_PALM_TO_HAND, _PALM_TO_UNIT = 0.45, 0.4  # least palm, foreshortened: over the hand and half the shoulder distance

_FACE_STREAM = STREAMS.index("face")
_KEPT = tuple(np.array(rows) for rows in (BROW_R + EYE_R, BROW_L + EYE_L, LIPS + INNER_LIPS))
_PALM = (0, 1, 5, 9, 13, 17)
_FINGERS = tuple((0 if first == 1 else first, *range(first, first + 4)) for first in (1, 5, 9, 13, 17))


def protect(image: Pixels, keypoints: Floats, boxes: FrameBoxes, mode: FacePrivacy) -> Pixels:
    """A copy of the frame, (H, W, 3) uint8, without the signer's face; the image itself if no face is known.

    The (543, 3) keypoints of the signer are fractions of the frame; the box of the face replaces missing points of it.
    The mode blur blurs the head; eyes-mouth greys it except eyes with brows and mouth, where the mesh has them.
    """
    if mode == "none":
        return image
    points = keypoints[:, :2].astype(np.float64) * image.shape[1::-1]
    present = keypoints[:, 2] > 0
    head = _head(points, present, boxes)
    if head is None:
        return image
    low = np.maximum(np.floor(np.min([part.min(axis=0) for part in head.parts], axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(np.max([part.max(axis=0) for part in head.parts], axis=0)) + 1, image.shape[1::-1])
    high = high.astype(int)
    if (low >= high).any():
        return image  # beyond the frame
    place = np.s_[low[1] : high[1], low[0] : high[0]]
    patch = image[place]
    mask = np.zeros(patch.shape[:2], np.uint8)
    _fill(mask, head.parts, low, 1)
    if mode == "eyes-mouth" and head.has_mesh:
        _fill(mask, _kept(points[FACE], present[FACE]), low, 0)
    for rows in (HAND_L, HAND_R):
        if present[rows].all():
            _spare_hand(mask, points[rows] - low, head.unit_px)
    hidden = _blurred(patch, head.extent_px) if mode == "blur" else np.full_like(patch, GREY)
    result = image.copy()
    result[place] = cv2.copyTo(hidden, mask, patch.copy())
    return result


class _Head(NamedTuple):
    """Where the head is."""

    parts: list[Floats]  # convex outlines, (N, 2) px each, that cover it together
    extent_px: float  # larger extent of the face
    unit_px: float  # half the shoulder distance; 0 when unknown
    has_mesh: bool  # whether the mesh locates eyes and mouth


def _head(points: Floats, present: Flags, boxes: FrameBoxes) -> _Head | None:
    face, found = points[FACE], present[FACE]
    has_mesh = bool(found[FOREHEAD] or found[IBUG_68].mean() >= MIN_MESH_RATIO)
    body, unit_px = head_from_body(points, present)
    parts, extents_px = [], []
    if found.any():
        edge = np.vstack([face[found], forehead(face, found)])
        parts.append(_scaled_hull(edge, HEAD_SCALE))
        extents_px.append(np.ptp(edge, axis=0).max())
    if not has_mesh:  # hide everything that may be the head
        if boxes.state[_FACE_STREAM] != BoxState.MISSING:
            x, y, side = boxes.box[_FACE_STREAM]
            parts.append(np.array([x, y]) + side / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
            extents_px.append(side / HEAD_SCALE)
        if body is not None:
            parts.append(_circle(body[:2], HEAD_SCALE * body[2] / 2))
            extents_px.append(body[2])
    return _Head(parts, float(max(extents_px)), unit_px, has_mesh) if parts else None


def _kept(face: Floats, present: Flags) -> list[Floats]:
    """Outlines of eyes with brows and of the mouth, of those with half of their points known."""
    return [_scaled_hull(face[rows[present[rows]]], KEPT_SCALE) for rows in _KEPT if present[rows].mean() >= 0.5]


def _spare_hand(mask: Pixels, hand: Floats, unit_px: float) -> None:
    """Take palm and fingers out of the mask; the face between spread fingers stays hidden."""
    palm_px = max(
        np.linalg.norm(hand[9] - hand[0]), _PALM_TO_HAND * np.ptp(hand, axis=0).max(), _PALM_TO_UNIT * unit_px, 1.0
    )
    width_px = max(1, round(FINGER_TO_PALM * palm_px))
    palm = np.rint(cv2.convexHull(hand[_PALM, :].astype(np.float32))).astype(np.int32)
    cv2.fillConvexPoly(mask, palm, (0,))
    lines = [palm, *(np.rint(hand[list(finger)]).astype(np.int32) for finger in _FINGERS)]
    cv2.polylines(mask, lines[:1], True, (0,), width_px)
    cv2.polylines(mask, lines[1:], False, (0,), width_px)


def _blurred(patch: Pixels, extent_px: float) -> Pixels:
    """Averaged into a few cells, blurred and scaled up smoothly: no detail is left to sharpen."""
    size = [max(2, round(BLUR_CELLS * side / extent_px)) for side in patch.shape[1::-1]]
    cells = cv2.GaussianBlur(cv2.resize(patch, size, interpolation=cv2.INTER_AREA), (3, 3), 0.8)
    return cv2.resize(cells, patch.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _fill(mask: Pixels, outlines: list[Floats], low: Ints, value: int) -> None:
    for edge in outlines:
        cv2.fillConvexPoly(mask, np.rint(edge - low).astype(np.int32), (value,))


def _scaled_hull(points: Floats, scale: float) -> Floats:
    """(N, 2) convex hull, grown about the middle of the points."""
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    middle: Floats = (points.min(axis=0) + points.max(axis=0)) / 2
    return middle + scale * (hull - middle)


def _circle(centre: Floats, radius_px: float) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    unit: Floats = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return centre + radius_px * unit
