"""Regions: turned squares of a frame that the models see, and the way of their points back into the frame.

A set of N regions is an (N, 4) float array: x and y of the centre and the side, in px of the frame, and the angle in
rad by which the region is turned, clockwise as seen. Pixel k covers k to k + 1: the right edge is the width.
"""

from __future__ import annotations

import cv2
import numpy as np

from signstreams.array_types import Floats, Ints, Pixels


def whole_frame(width_px: int, height_px: int) -> Floats:
    """(4,) the smallest upright region that holds a frame."""
    return np.array([width_px / 2, height_px / 2, max(width_px, height_px), 0.0])


def cut(frames: list[Pixels], rows: Ints, regions: Floats, side_px: int, *, black_beyond: bool = False) -> Pixels:
    """(N, S, S, 3) uint8 content of N regions, as MediaPipe cuts them: its models know nothing else.

    ``rows`` (N,) says of which of the ``frames``, (H, W, 3) uint8 each, a region is part. Beyond the frame, its
    outermost pixels go on, as models of points are used to, or it is black, as detectors are. Pixel k of the cut region
    is the frame at k / S of the side, not at its own middle, (k + 0.5) / S (google-ai-edge/mediapipe:
    image_to_tensor_converter_opencv): on rendered bodies, half a pixel costs a seventh of the accuracy.

    Where a region is shrunk to less than half, pixels are averaged first: sampled singly, points jitter by a quarter
    more.
    """
    result = np.empty((len(regions), side_px, side_px, 3), np.uint8)
    border = cv2.BORDER_CONSTANT if black_beyond else cv2.BORDER_REPLICATE
    matrices = _to_frame(regions, side_px)
    factors = np.maximum(regions[:, 2] / side_px, 1).astype(int)  # (N,)
    shrunk: tuple[int, int, Pixels] | None = None  # row and factor of the image
    for target, row, matrix, factor in zip(result, rows, matrices, factors, strict=True):
        factor = min(factor, *frames[row].shape[:2])
        if shrunk is None or shrunk[:2] != (row, factor):
            shrunk = (row, factor, _averaged(frames[row], factor))
        if factor > 1:
            matrix[:, 2] -= (factor - 1) / 2  # the middle of the first averaged pixel
            matrix /= factor
        cv2.warpAffine(
            shrunk[2],
            matrix,
            (side_px, side_px),
            dst=target,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=border,
        )
    return result


def _averaged(frame: Pixels, factor: int) -> Pixels:
    """An (H, W, 3) frame shrunk by a whole factor; a rest at the right and lower edge is left out."""
    if factor == 1:
        return frame
    height_px, width_px = (size_px // factor for size_px in frame.shape[:2])
    part = frame[: height_px * factor, : width_px * factor]
    return cv2.resize(part, (width_px, height_px), interpolation=cv2.INTER_AREA)


def _to_frame(regions: Floats, side_px: int) -> Floats:
    """(N, 2, 3) matrices from pixels of the cut region to those of the frame."""
    x, y, side, angle = regions.T
    scale = side / side_px
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    half = side_px / 2
    return np.stack(
        [
            np.stack([cos, -sin, x - (cos - sin) * half], -1),
            np.stack([sin, cos, y - (sin + cos) * half], -1),
        ],
        -2,
    )


def project(points: Floats, regions: Floats) -> Floats:
    """(N, P, D) points of the frame, px, for (N, P, D) points of N regions as fractions of their side.

    D is 2 (x, y) or 3: z is scaled with the side.
    """
    x, y, side, angle = (column[:, None] for column in regions.T)  # (N, 1)
    cos, sin = np.cos(angle) * side, np.sin(angle) * side
    across, down = points[..., 0] - 0.5, points[..., 1] - 0.5  # (N, P)
    result = np.empty_like(points, dtype=np.float64)
    result[..., 0] = x + cos * across - sin * down
    result[..., 1] = y + sin * across + cos * down
    if points.shape[-1] > 2:
        result[..., 2:] = points[..., 2:] * side[..., None]
    return result


def turned(points: Floats, angle: Floats) -> Floats:
    """(N, P, 2) points turned by (N,) angles around the origin."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([cos * points[..., 0] - sin * points[..., 1], sin * points[..., 0] + cos * points[..., 1]], -1)


_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


def around_hand(points: Floats) -> Floats:
    """(N, 4) where to find hands again whose (N, 21, 2+) points are known, px, as MediaPipe tracks them.

    The wrist points down; twice the extent of the points without fingertips, moved by a tenth towards the fingers
    (google-ai-edge/mediapipe: hand_landmark_landmarks_to_roi).
    """
    points = points[..., :2]
    middle = ((points[:, 5] + points[:, 13]) / 2 + points[:, 9]) / 2
    along = middle - points[:, 0]
    angle = np.arctan2(along[:, 0], -along[:, 1])
    palm = points[:, _PALM]
    centre = (palm.max(1) + palm.min(1)) / 2  # (N, 2)
    upright = turned(palm - centre[:, None], -angle)
    low, high = upright.min(1), upright.max(1)
    longest = (high - low).max(-1)
    local = (low + high) / 2
    local[:, 1] -= 0.1 * longest
    centre = centre + turned(local[:, None], angle)[:, 0]
    return np.column_stack([centre, 2.0 * longest, angle])


def along_axis(centre: Floats, end: Floats, margin: float) -> Floats:
    """(N, 4) regions around (N, 2) centres, turned so that the (N, 2) ends are above them; a square around the circle
    that goes through the ends, ``margin`` times as large (google-ai-edge/mediapipe: alignment_points_to_rects).
    """
    along = end - centre
    return np.column_stack(
        [centre, 2 * margin * np.hypot(along[:, 0], along[:, 1]), np.arctan2(along[:, 0], -along[:, 1])]
    )


def moved_along(regions: Floats, share: float) -> Floats:
    """(N, 4) regions moved up along their own axis by a share of their side."""
    x, y, side, angle = regions.T
    return np.column_stack([x + np.sin(angle) * share * side, y - np.cos(angle) * share * side, side, angle])
