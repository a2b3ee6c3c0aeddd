"""The body of one person over a chunk of frames: 33 points, by MediaPipe's BlazePose.

BlazePose sees a turned square around the person, and beside its points gives two more that say where that square should
have been. MediaPipe takes the square of each frame from the frame before. A signer's trunk hardly moves, so that here
all frames of a chunk are seen in one square, in one batch; a frame that asks for another one is seen again in that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.tracker.detections import detect
from signstreams.tracker.engine import Engine
from signstreams.tracker.regions import agree, along_axis, cut, project

NUM_POINTS = 33
_CENTRE, _END = 33, 34  # of the 39: between the hips; the head's or feet's end of a circle around the whole body
_MARGIN = 1.25  # of the square over that circle
MIN_PRESENCE = 0.5
_RECENT = 8  # frames at the end of a chunk that say where the next one begins
_NUM_FIRST = 3  # frames that say where to look first
_SEARCH_EVERY = 4  # frames without a body in which somebody is searched
_SAME_PLACE = 0.25  # of the side of the square in which the person was last: whoever is nearer is the same
_REACH, _SURE = 3, 0.5  # cells around a point whose heat counts; least heat of one of them
# How far squares may be apart, see `agree`: a frame's own one from that in which it was seen, before it is seen again;
# the next chunk's from this one's, which is kept, because in another one all points move a little; and those of
# neighbouring frames, before one of them may be wrong.
_SETTLED, _SAME_SQUARE, _JUMP = (0.1, 1.2, 0.26), (0.05, 1.1, 0.13), (0.2, 1.4, 0.5)


UNKNOWN_HEAD = (np.nan, np.nan, np.inf)
_NOSE = 0


class _Chunk(NamedTuple):
    """What is known of N frames."""

    frames: list[Pixels]
    heads: Floats  # (N, 3) x, y and radius of the circle in which the nose is
    points: Floats  # (N, 33, 4)
    wanted: Floats  # (N, 4) the square that each frame asks for; NaN where nobody is
    presence: Floats  # (N,) of a body, as the model has it

    def lost(self) -> Ints:
        """Frames without a body."""
        return np.flatnonzero(np.isnan(self.wanted[:, 0]))


class BodyTracker:
    """The body of one person; goes on from chunk to chunk of one video."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._region: Floats | None = None  # (4,) where the person was in the chunk before

    def track(self, frames: list[Pixels], heads: Floats | None = None) -> Floats:
        """(N, 33, 4) x, y and z in px and visibility, 0 to 1, in N frames (H, W, 3) uint8; NaN where nobody is.

        The points are as the model sees them in each frame; see `smoothed`. Among several people it is the one whose
        nose is in ``heads`` (N, 3): x, y and radius of a circle, px, or `UNKNOWN_HEAD`.
        """
        number = len(frames)
        points = np.full((number, NUM_POINTS, 4), np.nan)
        heads = np.tile(UNKNOWN_HEAD, (number, 1)) if heads is None else heads
        chunk = _Chunk(frames, heads, points, np.full((number, 4), np.nan), np.zeros(number))
        if self._region is None and frames:
            self._region = self._begin(chunk)
        if self._region is not None:
            self._see_twice(chunk, np.arange(number), np.tile(self._region, (number, 1)))
        self._search(chunk)
        self._bridge_jumps(chunk)
        is_seen = ~np.isnan(chunk.wanted[:, 0])
        # Somebody who has left is searched again: in a region without a person the model sometimes sees one.
        if not is_seen[-1:].any():
            self._region = None
            return points
        region = np.median(chunk.wanted[is_seen][-_RECENT:], axis=0)
        if self._region is None or not agree(region[None], self._region[None], *_SAME_SQUARE)[0]:
            self._region = region
        return points

    def _begin(self, chunk: _Chunk) -> Floats | None:
        """(4,) square for all frames, if somebody is in the first one: the median of what some of them ask for."""
        found = self._detected(chunk, np.zeros(1, int))
        if np.isnan(found[0, 0]):
            return None
        rows = np.unique(np.linspace(0, len(chunk.frames) - 1, _NUM_FIRST).astype(int))
        self._see(chunk, rows, np.repeat(found, len(rows), axis=0))
        asked = chunk.wanted[rows][~np.isnan(chunk.wanted[rows, 0])]
        return np.median(asked, axis=0) if len(asked) else None

    def _search(self, chunk: _Chunk) -> None:
        """Somebody who comes, comes back or jumps: searched in some of the lost frames, seen in those around."""
        lost = chunk.lost()
        if not len(lost):
            return
        places = np.unique(np.append(np.arange(0, len(lost), _SEARCH_EVERY), len(lost) - 1))
        regions = self._detected(chunk, lost[places])
        is_found = ~np.isnan(regions[:, 0])
        places, regions = lost[places[is_found]], regions[is_found]
        if not len(places):
            return
        apart = np.abs(lost[:, None] - places)  # (L, found)
        is_near = apart.min(1) <= _SEARCH_EVERY
        self._see_twice(chunk, lost[is_near], regions[apart.argmin(1)[is_near]])

    def _bridge_jumps(self, chunk: _Chunk) -> None:
        """Where the person jumps from one frame to the next, see whether they are still where they were, in waves.

        In a square that somebody has just left, the model sometimes sees a body all the same.
        """
        tried = np.zeros((2, len(chunk.frames)), bool)  # by direction
        while True:
            wanted = chunk.wanted
            is_jump = ~np.isnan(wanted[1:, 0] + wanted[:-1, 0]) & ~agree(wanted[1:], wanted[:-1], *_JUMP)  # (N - 1,)
            before = np.flatnonzero(is_jump)
            sources, rows = np.concatenate([before, before + 1]), np.concatenate([before + 1, before])
            direction = np.repeat([0, 1], len(before))
            is_new = ~tried[direction, rows]
            if not is_new.any():
                return
            tried[direction[is_new], rows[is_new]] = True
            self._see(chunk, rows[is_new], wanted[sources[is_new]], only_surer=True)

    def _see_twice(self, chunk: _Chunk, rows: Ints, regions: Floats) -> None:
        """See frames in given regions, and again those that ask for another one."""
        self._see(chunk, rows, regions)
        wanted = chunk.wanted[rows]
        is_off = ~np.isnan(wanted[:, 0]) & ~agree(wanted, regions, *_SETTLED)
        self._see(chunk, rows[is_off], wanted[is_off])

    def _see(self, chunk: _Chunk, rows: Ints, regions: Floats, *, only_surer: bool = False) -> None:
        """Look at the frames ``rows`` in (M, 4) regions; what is there replaces what was known of the frame.

        With ``only_surer``, if the presence is higher, and that of the last one if there are two of a frame.
        """
        model = self._engine.model("pose_landmarks")
        values, presence, heat = model.run(cut(chunk.frames, rows, regions, model.side_px))
        values = values.reshape(-1, 39, 5).astype(np.float64)  # x, y, z in px of the input, visibility, presence
        places = values[..., :3] / model.side_px  # (M, 39, 3)
        places[..., :2] = refined(places[..., :2], heat)
        found = project(places, regions)  # (M, 39, 3)
        is_there = (presence[:, 0] > MIN_PRESENCE) & ~_is_outside(found[:, _NOSE, :2], chunk.heads[rows])
        if only_surer:
            is_there &= presence[:, 0] > chunk.presence[rows]
        rows, found = rows[is_there], found[is_there]
        chunk.points[rows, :, :3] = found[:, :NUM_POINTS]
        chunk.points[rows, :, 3] = 1 / (1 + np.exp(-values[is_there, :NUM_POINTS, 3]))
        chunk.wanted[rows] = along_axis(found[:, _CENTRE, :2], found[:, _END, :2], _MARGIN)
        chunk.presence[rows] = presence[is_there, 0]

    def _detected(self, chunk: _Chunk, rows: Ints) -> Floats:
        """(M, 4) region of the person in each of the frames ``rows``; NaN where nobody is.

        Of several people, the one whose head is nearest to where it is known to be, or who is where the person was
        last, or else the surest.
        """
        result = np.full((len(rows), 4), np.nan)
        heads = chunk.heads[rows]
        for row, found in enumerate(detect(self._engine, "pose_detection", [chunk.frames[k] for k in rows])):
            if not len(found.score):
                continue
            regions = along_axis(found.points[:, 0], found.points[:, 1], _MARGIN)  # (D, 4)
            chosen = 0
            if not np.isnan(heads[row, 0]):
                chosen = int(np.hypot(*(found.box[:, :2] - heads[row, :2]).T).argmin())  # the box is the head's
            elif self._region is not None:
                apart = np.hypot(*(regions[:, :2] - self._region[:2]).T)
                chosen = int(apart.argmin()) if apart.min() < _SAME_PLACE * self._region[2] else 0
            result[row] = regions[chosen]
        return result


def _is_outside(points: Floats, circles: Floats) -> Flags:
    """(M,) whether (M, 2) points are outside of (M, 3) circles: x, y, radius; of none outside one that is unknown."""
    is_outside: Flags = np.hypot(*(points - circles[:, :2]).T) > circles[:, 2]  # False with NaN
    return is_outside


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


# -- Steady points

SMOOTHED_OVER_S = 0.25
_SIGMA_S, _SIGMA_MOVED = 0.1, 0.06
_SHOULDERS, _EARS = (11, 12), (7, 8)
_SHOULDERS_OVER_EARS = 2.2


def smoothed(points: Floats, times_s: Floats) -> Floats:
    """(N, 33, 4) points that rest where the body rests, from those of N frames, px, at (N,) times; NaN stays NaN.

    Each is the mean over the frames up to `SMOOTHED_OVER_S` before and after, weighted by how near these are in time
    and how little the point moved between, in widths of the shoulders: a resting point is averaged over many frames, a
    fast one stays what it was, and nothing lags, as it does in a filter of the frames before. On rendered people it
    halves the jitter at no more error of the wrists, to which MediaPipe's One-Euro filter adds a tenth.
    """
    total, weights = np.zeros_like(points), np.zeros(points.shape[:2])  # (N, 33, 4), (N, 33)
    is_seen = ~np.isnan(points[:, 0, 0])
    known = np.where(is_seen[:, None, None], points, 0.0)
    width = shoulder_width(known)  # (N,)
    for step in range(len(points)):
        rows = np.arange(len(points) - step)
        apart_s = np.abs(times_s[rows + step] - times_s[rows])
        rows = rows[is_seen[rows] & is_seen[rows + step] & (apart_s <= SMOOTHED_OVER_S)]
        if step and not (apart_s <= SMOOTHED_OVER_S).any():
            break
        others = rows + step
        moved = np.linalg.norm(known[others, :, :2] - known[rows, :, :2], axis=-1)  # (M, 33)
        moved /= np.maximum(width[rows], width[others])[:, None]
        apart = (times_s[others] - times_s[rows])[:, None] / _SIGMA_S
        weight = np.exp(-0.5 * (apart**2 + (moved / _SIGMA_MOVED) ** 2))  # (M, 33)
        for own, other in ((rows, others), (others, rows))[: 2 if step else 1]:
            total[own] += weight[..., None] * known[other]
            weights[own] += weight
    total[~is_seen] = np.nan
    result: Floats = total / np.where(weights > 0, weights, 1)[..., None]
    return result


def shoulder_width(points: Floats) -> Floats:
    """(N,) distance of the shoulders in (N, 33, 2+) points, px, at least 1; that of somebody turned from the ears."""
    pairs = ((_SHOULDERS, 1.0), (_EARS, _SHOULDERS_OVER_EARS))
    widths = [scale * np.linalg.norm(points[:, a, :2] - points[:, b, :2], axis=-1) for (a, b), scale in pairs]
    width: Floats = np.maximum.reduce([*widths, np.ones(len(points))])
    return width
