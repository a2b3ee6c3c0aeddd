"""From per-frame boxes to tracks while frames stream by: gaps filled, boxes smoothed without lag.

Both need later frames; `TrackBuilder` holds each frame back just that long, so that its crop can be cut from the frame
as decoded. The result equals that of processing the whole video at once.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from signstreams.array_types import Flags, Floats, Ints
from signstreams.extract.frame_boxes import NUM_STREAMS, Observation
from signstreams.extract.settings import BoxConfig
from signstreams.streams import BoxState

KERNEL_RADIUS = 2.0  # the Gaussian is cut at two standard deviations: 95 % of its weight, and fewer frames held back
BLOCK_FRAMES = 8  # frames whose boxes are resolved together
MIN_INSIDE_RATIO = 0.75
"""Least share of a tracked or filled box inside the frame: a wrist at the edge has no hand to show."""
_EPS_S = 1e-6  # timestamps are sums of rounded steps


class FrameBoxes(NamedTuple):
    """Final boxes of one frame; S streams."""

    box: Floats  # (S, 3) centre and side, px; NaN where missing
    state: Ints  # (S,) uint8 of `BoxState`
    confidence: Floats
    """(S,) 1 if detected, the body's visibility if tracked, the lower neighbour's if filled, 0 if missing."""


class TrackBuilder:
    """Takes observations in order of time and returns boxes once no later frame can change them.

    Boxes come in blocks: resolving a window costs the same for one frame as for several. A box outside the frame is
    missing. At most ``max_waiting`` frames are held back; if more were needed, the first half gets its boxes from what
    is known so far.
    """

    def __init__(self, width_px: int, height_px: int, config: BoxConfig, max_waiting: int) -> None:
        self._size_px = (width_px, height_px)
        self._config = config
        self._max_waiting = max_waiting
        self._block = max(1, min(BLOCK_FRAMES, max_waiting // 4))
        # smoothing -> ends of a filled gap -> detections that shift these
        self._reach_s = _kernel_reach_s(config) + 2 * config.max_gap_s + 4 * _EPS_S
        self._times_s: list[float] = []
        self._observations: list[Observation] = []
        self._next = 0  # place in the lists of the first frame without final boxes

    @property
    def num_waiting(self) -> int:
        """Frames without final boxes."""
        return len(self._times_s) - self._next

    def add(self, time_s: float, observation: Observation) -> list[FrameBoxes]:
        """Add the observation of the next frame; returns the boxes that this makes final, in order, often none."""
        self._times_s.append(time_s)
        self._observations.append(observation)
        if self.num_waiting > self._max_waiting:
            return self._take(max(1, self.num_waiting // 2))
        if self.num_waiting > self._block and time_s - self._times_s[self._next + self._block - 1] > self._reach_s:
            return self._take(self._block)
        return []

    def finish(self) -> list[FrameBoxes]:
        """Boxes of all waiting frames, at the end of the video."""
        return self._take(self.num_waiting)

    def _take(self, num_frames: int) -> list[FrameBoxes]:
        if num_frames == 0:
            return []
        first = bisect_left(self._times_s, self._times_s[self._next] - self._reach_s)
        del self._times_s[:first], self._observations[:first]
        start = self._next - first
        self._next = start + num_frames
        window = Window(np.array(self._times_s), *(np.array(part) for part in zip(*self._observations, strict=True)))
        return boxes_of(range(start, self._next), window, self._size_px, self._config)


class Window(NamedTuple):
    """Times and observations (see `Observation`) of W consecutive frames."""

    times_s: Floats  # (W,) rising
    detected: Floats  # (W, S, 3)
    anchored: Floats  # (W, S, 3)
    visibility: Floats  # (W, S)


def boxes_of(frames: range, window: Window, size_px: tuple[int, int], config: BoxConfig) -> list[FrameBoxes]:
    """Boxes of the frames with these indices in the window; ``size_px`` is width and height of the image."""
    box = np.full((len(frames), NUM_STREAMS, 3), np.nan)
    state = np.zeros((len(frames), NUM_STREAMS), np.uint8)
    confidence = np.zeros((len(frames), NUM_STREAMS))
    for stream in range(NUM_STREAMS):
        known, states, sure = resolve(
            window.times_s,
            window.detected[:, stream],
            window.anchored[:, stream],
            window.visibility[:, stream],
            config.max_gap_s,
        )
        for row, frame in enumerate(frames):
            if states[frame] == BoxState.MISSING:
                continue
            smooth = smooth_at(frame, window.times_s, known, config)
            if _is_in_frame(smooth, size_px, is_detected=states[frame] == BoxState.DETECTED):
                box[row, stream], state[row, stream], confidence[row, stream] = smooth, states[frame], sure[frame]
    return [FrameBoxes(*rows) for rows in zip(box, state, confidence, strict=True)]


def _is_in_frame(box: Floats, size_px: tuple[int, int], *, is_detected: bool) -> bool:
    """Whether a crop would show the part: its centre, and most of it unless it was detected."""
    if not (0 <= box[0] < size_px[0] and 0 <= box[1] < size_px[1]):
        return False
    low, high = np.maximum(box[:2] - box[2] / 2, 0), np.minimum(box[:2] + box[2] / 2, size_px)
    return is_detected or bool((high - low).prod() >= MIN_INSIDE_RATIO * box[2] ** 2)


def resolve(
    times_s: Floats, detected: Floats, anchored: Floats, visibility: Floats, max_gap_s: float
) -> tuple[Floats, Ints, Floats]:
    """Box of each frame for one stream, and its state.

    Where the detector found nothing, the body's box is used, shifted by the difference between both at the detections
    around: fully between near detections, less with distance from far ones, so that the box never jumps. Short gaps in
    which the body is not visible throughout are interpolated, and so are short gaps that remain. (docs/extraction.md
    compares the three on gaps made in real clips.)

    Arguments are those of a `Window`, for one stream; ``max_gap_s`` is the longest gap that is interpolated, from known
    box to known box, and the reach of a shift. Returns (W, 3) boxes, (W,) uint8 states, (W,) confidence.
    """
    boxes = detected.copy()
    states = np.where(np.isnan(detected[:, 0]), BoxState.MISSING, BoxState.DETECTED).astype(np.uint8)
    confidence = (states == BoxState.DETECTED).astype(float)
    has_body = ~np.isnan(anchored[:, 0])
    if (states == BoxState.DETECTED).all() or not (states.any() or has_body.any()):
        return boxes, states, confidence
    _fill_gaps(times_s, boxes, states, confidence, max_gap_s, unless=has_body)
    use = (states == BoxState.MISSING) & has_body
    if use.any():
        boxes[use] = _shifted(times_s, detected, anchored, max_gap_s)[use]
        states[use], confidence[use] = BoxState.TRACKED, visibility[use]
    _fill_gaps(times_s, boxes, states, confidence, max_gap_s)
    return boxes, states, confidence


def _fill_gaps(
    times_s: Floats, boxes: Floats, states: Ints, confidence: Floats, max_gap_s: float, unless: Flags | None = None
) -> None:
    """Interpolate short gaps in place, unless ``unless`` (W,) is true from the box before to the box after a gap."""
    known = np.flatnonzero(states != BoxState.MISSING)
    for place in np.flatnonzero(np.diff(known) > 1):
        before, after = known[place], known[place + 1]
        if times_s[after] - times_s[before] > max_gap_s + _EPS_S:
            continue
        if unless is not None and unless[before : after + 1].all():
            continue
        for frame in range(before + 1, after):
            share = (times_s[frame] - times_s[before]) / (times_s[after] - times_s[before])
            boxes[frame] = (1 - share) * boxes[before] + share * boxes[after]
            states[frame] = BoxState.FILLED
            confidence[frame] = min(confidence[before], confidence[after])


def _shifted(times_s: Floats, detected: Floats, anchored: Floats, max_gap_s: float) -> Floats:
    """(W, 3) the body's boxes, shifted towards the detections next to them.

    The shift at a detection fades linearly to 0 over ``max_gap_s``; between two closer detections it is interpolated.
    Sides shift by ratio, so that they stay positive.
    """
    both = np.flatnonzero(~np.isnan(detected[:, 0]) & ~np.isnan(anchored[:, 0]))
    if len(both) == 0 or max_gap_s == 0:
        return anchored
    body = np.concatenate([anchored[:, :2], np.log(anchored[:, 2:])], axis=1)
    shift = np.concatenate([detected[both, :2], np.log(detected[both, 2:])], axis=1) - body[both]  # (N, 3)
    after = np.searchsorted(both, np.arange(len(times_s)))  # (W,) index of the next detection, N for none
    since_s = np.where(after > 0, times_s - times_s[both[after - 1]], np.inf)
    until_s = np.where(after < len(both), times_s[both[np.minimum(after, len(both) - 1)]] - times_s, np.inf)
    reach_s = np.minimum(max_gap_s, since_s + until_s)
    weight_before, weight_after = (np.clip(1 - distance_s / reach_s, 0, 1) for distance_s in (since_s, until_s))
    body += weight_before[:, None] * shift[after - 1] + weight_after[:, None] * shift[np.minimum(after, len(both) - 1)]
    return np.concatenate([body[:, :2], np.exp(body[:, 2:])], axis=1)


def smooth_at(frame: int, times_s: Floats, boxes: Floats, config: BoxConfig) -> Floats:
    """(3,) Gaussian mean of centre and side over the unbroken run of boxes around a frame."""
    reach_s = _kernel_reach_s(config) + _EPS_S
    breaks = np.flatnonzero(np.isnan(boxes[:, 0]) | (np.abs(times_s - times_s[frame]) > reach_s))
    place = np.searchsorted(breaks, frame)
    first = breaks[place - 1] + 1 if place > 0 else 0
    last = breaks[place] - 1 if place < len(breaks) else len(times_s) - 1
    offset_s = times_s[first : last + 1] - times_s[frame]
    run = boxes[first : last + 1]
    centre_weight = _gaussian(offset_s, config.centre_smoothing_s)
    size_weight = _gaussian(offset_s, config.size_smoothing_s)
    return np.append(centre_weight @ run[:, :2], size_weight @ run[:, 2])


def _gaussian(offset_s: Floats, sigma_s: float) -> Floats:
    """Weights that sum to 1, cut to the reach that both sides have: the end of a run must not pull boxes inwards."""
    weight: Floats
    if sigma_s == 0:
        weight = (offset_s == 0).astype(float)
        return weight
    reach_s = min(KERNEL_RADIUS * sigma_s, -offset_s[0], offset_s[-1]) + _EPS_S
    weight = np.exp(-0.5 * (offset_s / sigma_s) ** 2) * (np.abs(offset_s) <= reach_s)
    weight /= weight.sum()
    return weight


def _kernel_reach_s(config: BoxConfig) -> float:
    return KERNEL_RADIUS * max(config.centre_smoothing_s, config.size_smoothing_s)
