"""Detectors' outputs to people, palms and faces: anchors, decoding, non-maximum suppression.

The three models are single-shot detectors: each output belongs to an anchor, a place of a regular grid, and says by how
much box and points are off it. Constants are those of MediaPipe's graphs (google-ai-edge/mediapipe:
modules/{pose_detection,palm_detection,face_detection}).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.tracker.engine import Engine
from signstreams.tracker.regions import cut, project, whole_frame

MIN_SCORE = 0.5
_MAX_LOGIT = 100.0  # scores beyond are clipped before the sigmoid
_SAME = 0.3  # boxes that overlap by more (intersection over union) are of the same thing


class _Grid(NamedTuple):
    """Where the anchors of a detector are."""

    side_px: int  # of the model's input
    cells: tuple[tuple[int, int], ...]  # (stride in px, anchors per cell), in the order of the outputs
    num_points: int  # beside the box


GRIDS = {
    "pose_detection": _Grid(224, ((8, 2), (16, 2), (32, 6)), 4),
    "palm_detection": _Grid(192, ((8, 2), (16, 6)), 7),
    "face_detection": _Grid(192, ((4, 1),), 6),
}


@cache
def anchors(model: str) -> Floats:
    """(A, 2) x, y of the anchors, as fractions of the input."""
    grid = GRIDS[model]
    layers = []
    for stride_px, per_cell in grid.cells:
        middle = (np.arange(grid.side_px // stride_px) + 0.5) * stride_px / grid.side_px
        y, x = np.meshgrid(middle, middle, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], -1), per_cell, axis=0))
    return np.concatenate(layers)


class Detections(NamedTuple):
    """What was found in one image, the surest first; px of the frame."""

    score: Floats  # (D,)
    box: Floats  # (D, 4) x, y of the centre, width, height
    points: Floats  # (D, P, 2)


def decode(model: str, boxes: Floats, scores: Floats, min_score: float = MIN_SCORE) -> Detections:
    """Detections as fractions of the input, from (A, 4 + 2 P) boxes and (A, 1) logits of one image."""
    grid = GRIDS[model]
    logit = np.clip(scores[:, 0].astype(np.float64), -_MAX_LOGIT, _MAX_LOGIT)
    sure = np.flatnonzero(logit >= np.log(min_score / (1 - min_score)))
    sure = sure[np.argsort(-logit[sure], kind="stable")]
    values = boxes[sure].astype(np.float64).reshape(len(sure), 2 + grid.num_points, 2) / grid.side_px  # (D, 2 + P, 2)
    anchor = anchors(model)[sure]  # (D, 2)
    box = np.concatenate([values[:, 0] + anchor, values[:, 1]], axis=1)  # (D, 4)
    return suppress(Detections(1 / (1 + np.exp(-logit[sure])), box, values[:, 2:] + anchor[:, None]))


def suppress(found: Detections) -> Detections:
    """One detection for each thing: the mean of those that overlap, weighted by their scores."""
    remaining = np.arange(len(found.score))
    kept = []
    while len(remaining):
        is_same = overlap(found.box[remaining[0]], found.box[remaining]) > _SAME
        is_same[0] = True
        same = remaining[is_same]
        weight = found.score[same] / found.score[same].sum()
        kept.append((found.score[same[0]], weight @ found.box[same], np.tensordot(weight, found.points[same], 1)))
        remaining = remaining[~is_same]
    if not kept:
        return Detections(found.score[:0], found.box[:0], found.points[:0])
    return Detections(*(np.array(part) for part in zip(*kept, strict=True)))


def overlap(box: Floats, others: Floats) -> Floats:
    """(D,) intersection over union of one (4,) box with (D, 4) others: centre, width, height."""
    low = np.maximum(box[:2] - box[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = np.clip(high - low, 0, None).prod(-1)
    total = box[2:].prod() + others[:, 2:].prod(-1) - shared
    share: Floats = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return share


def detect(
    engine: Engine, model: str, frames: list[Pixels], regions: Floats | None = None, min_score: float = MIN_SCORE
) -> list[Detections]:
    """What a detector finds in N frames: in all of each, or in the (N, 4) regions of them, which are not turned."""
    if regions is None:
        regions = np.array([whole_frame(frame.shape[1], frame.shape[0]) for frame in frames]).reshape(-1, 4)
    network = engine.model(model)
    boxes, scores = network.run(cut(frames, np.arange(len(frames)), regions, network.side_px, black_beyond=True))
    results = []
    for row, region in enumerate(regions):
        found = decode(model, boxes[row], scores[row], min_score)
        centre = project(found.box[None, :, :2], region[None])[0]
        box = np.concatenate([centre, found.box[:, 2:] * region[2]], axis=1)
        points = project(found.points.reshape(1, -1, 2), region[None]).reshape(found.points.shape)
        results.append(Detections(found.score, box, points))
    return results
