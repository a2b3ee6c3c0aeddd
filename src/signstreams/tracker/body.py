"""The body of one person over a chunk of frames: 33 points, by MediaPipe's BlazePose.

BlazePose sees a turned square around the person, and beside its points gives two more that say where that square should
have been. MediaPipe takes the square of each frame from the frame before. A signer's trunk hardly moves, so that here
all frames of a chunk are seen in one square, in one batch; a frame that asks for another one is seen again in that.
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.tracker.detections import detect
from signstreams.tracker.engine import Engine
from signstreams.tracker.regions import along_axis, cut, project

NUM_POINTS = 33
_CENTRE, _END = 33, 34  # of the 39: between the hips; the head's or feet's end of a circle around the whole body
_MARGIN = 1.25  # of the square over that circle
MIN_PRESENCE = 0.5
_RECENT = 8  # frames at the end of a chunk that say where the next one begins
_REACH, _SURE = 3, 0.5  # cells around a point whose heat counts; least heat of one of them
# How far a frame's own square may be from the one in which it was seen, before it is seen again: centre and side as
# shares of the side, angle in rad.
_MAX_SHIFT, _MAX_SCALE, _MAX_TURN = 0.1, 1.2, 0.26


class BodyTracker:
    """The body of one person; goes on from chunk to chunk of one video."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._region: Floats | None = None  # (4,) where the person was in the chunk before

    def track(self, frames: list[Pixels]) -> Floats:
        """(N, 33, 4) x, y and z in px and visibility, 0 to 1, in N frames (H, W, 3) uint8; NaN where nobody is."""
        points = np.full((len(frames), NUM_POINTS, 4), np.nan)
        wanted = np.full((len(frames), 4), np.nan)  # the square that each frame asks for
        if self._region is None and frames:  # the first frame usually says where the person is in all of them
            first = np.zeros(1, int)
            found = self._detected(frames, first)
            if not np.isnan(found[0, 0]):
                self._see(frames, first, found, points, wanted)
                self._region = None if np.isnan(wanted[0, 0]) else wanted[0].copy()
        if self._region is not None:
            self._see(frames, np.arange(len(frames)), np.tile(self._region, (len(frames), 1)), points, wanted)
            off = np.flatnonzero(~np.isnan(wanted[:, 0]) & ~_agree(wanted, self._region))
            self._see(frames, off, wanted[off].copy(), points, wanted)
        lost = np.flatnonzero(np.isnan(wanted[:, 0]))
        if len(lost):
            found = self._detected(frames, lost)
            is_found = ~np.isnan(found[:, 0])
            self._see(frames, lost[is_found], found[is_found], points, wanted)
        is_seen = ~np.isnan(wanted[:, 0])
        # Somebody who has left is searched again: in a region without a person the model sometimes sees one.
        self._region = np.median(wanted[is_seen][-_RECENT:], axis=0) if is_seen[-1:].any() else None
        return points

    def _see(self, frames: list[Pixels], rows: Ints, regions: Floats, points: Floats, wanted: Floats) -> None:
        """Points of the frames ``rows`` as seen in (M, 4) regions, written into ``points`` and ``wanted``."""
        model = self._engine.model("pose_landmarks")
        values, presence, heat = model.run(cut(frames, rows, regions, model.side_px))
        values = values.reshape(-1, 39, 5).astype(np.float64)  # x, y, z in px of the input, visibility, presence
        places = values[..., :3] / model.side_px  # (M, 39, 3)
        places[..., :2] = refined(places[..., :2], heat)
        found = project(places, regions)  # (M, 39, 3)
        is_there = presence[:, 0] > MIN_PRESENCE
        rows, found = rows[is_there], found[is_there]
        points[rows, :, :3] = found[:, :NUM_POINTS]
        points[rows, :, 3] = 1 / (1 + np.exp(-values[is_there, :NUM_POINTS, 3]))
        wanted[rows] = along_axis(found[:, _CENTRE, :2], found[:, _END, :2], _MARGIN)

    def _detected(self, frames: list[Pixels], rows: Ints) -> Floats:
        """(M, 4) region of the surest person in each of the frames ``rows``; NaN where nobody is."""
        result = np.full((len(rows), 4), np.nan)
        for row, found in enumerate(detect(self._engine, "pose_detection", [frames[k] for k in rows])):
            if len(found.score):
                result[row] = along_axis(found.points[:1, 0], found.points[:1, 1], _MARGIN)[0]
        return result


def refined(places: Floats, heat: Floats) -> Floats:
    """(M, P, 2) places of points, fractions of the square, drawn to the centre of their heat within 7 x 7 cells.

    ``heat`` (M, H, H, P) are logits. A point without a sure cell stays as it is. It halves the distance to the
    points that MediaPipe gives (google-ai-edge/mediapipe: refine_landmarks_from_heatmap_calculator).
    """
    num, side = len(places), heat.shape[1]
    middle = np.floor(places * side).astype(np.intp)  # (M, P, 2)
    columns, rows = (middle[..., k, None] + np.arange(-_REACH, _REACH + 1) for k in (0, 1))  # (M, P, 7)
    image, point = np.arange(num)[:, None, None, None], np.arange(places.shape[1])[None, :, None, None]
    inside = ((rows >= 0) & (rows < side))[..., :, None] & ((columns >= 0) & (columns < side))[..., None, :]
    y, x = np.clip(rows, 0, side - 1)[..., :, None], np.clip(columns, 0, side - 1)[..., None, :]
    warmth = np.where(inside, 1 / (1 + np.exp(-heat[image, y, x, point].astype(np.float64))), 0.0)  # (M, P, 7, 7)
    total = warmth.sum((-2, -1))  # (M, P)
    is_sure = ((middle >= 0) & (middle < side)).all(-1) & (warmth.max((-2, -1)) >= _SURE)
    centre = np.stack([(warmth * x).sum((-2, -1)), (warmth * y).sum((-2, -1))], -1)  # (M, P, 2)
    centre /= np.where(total > 0, total, 1)[..., None] * side
    return np.where(is_sure[..., None], centre, places)


def _agree(wanted: Floats, region: Floats) -> Flags:
    """(N,) whether N regions are close enough to one."""
    shift = np.hypot(wanted[:, 0] - region[0], wanted[:, 1] - region[1])
    turn = np.abs((wanted[:, 3] - region[3] + np.pi) % (2 * np.pi) - np.pi)
    scale = np.abs(np.log(wanted[:, 2] / region[2]))
    agree: Flags = (shift < _MAX_SHIFT * region[2]) & (turn < _MAX_TURN) & (scale < np.log(_MAX_SCALE))
    return agree
