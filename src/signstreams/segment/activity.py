"""Signing against rest, from motion and place of the hands: finds sentences without any training.

A hand rests where it is often and long still, below its elbow; it signs where it is elsewhere, or fast. Positions are
those of the wrists in signing space, whose unit (half a shoulder width, near 18 cm) is the same for every camera and
build. Where a signer rests (lap, table, clasped before the belly) is learned from the video itself; a hand that stays
still well below its elbow rests anywhere. What it cannot see: a pause with the hands in the air. Letters: T frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signstreams.array_types import Flags, Floats, Ints
from signstreams.integrate.videos import POSE_POINTS
from signstreams.segment.scores import Span

WRISTS, ELBOWS = (
    tuple(POSE_POINTS.index(f"{side}_{joint}") for side in ("left", "right")) for joint in ("wrist", "elbow")
)
SPACE_UNITS = (6.0, 7.0)
"""Width and height of the signing space in head units (`signstreams.extract.signing_space`)."""

SMOOTHING_S = 0.08  # standard deviation of the Gaussian over positions: less than a stroke, more than jitter
FAST_UNITS_S = 2.0  # speed that is signing wherever the hand is: 0.36 m/s; strokes have 0.5 to 2
STILL_UNITS_S = 0.5  # below it a hand counts as still, for where it rests
LOW_UNITS, LOW_STILL_S = 0.4, 0.2
"""A hand that is this far below its elbow, and still for this long, rests wherever it is. Where rendered signers rested
5 cm beside (standard deviation), F1 of the boundaries was .74 and .77 instead of .27 and .41; where they always rested
at one place it was .95 and .92 instead of 1.00 and .97 (benchmarks/segments.py)."""
AWAY = 1.001  # activity of a hand that is away from its rest, even if it is held still there
MAX_GAP_S = 0.3  # a wrist that is missing for longer has left the picture: it rests

DEFAULT_PAUSE_S = 0.2
MIN_SENTENCE_S = 0.4
"""Shorter activity is no sentence, but a hand that scratches or settles."""
MAX_SENTENCE_S = 20.0
"""A found sentence that is longer is cut where the hands are stillest: no subtitle spans more, and few sentences do."""


class RestPlaces:
    """Where each hand rests, learned from what was seen so far: a map of constant size, whatever the video's length.

    Each still moment counts by how long the hand stays still, so that rests outweigh the holds within signs, and little
    where the wrist is not below its elbow. Of 166 isolated signs, which start and end at rest, wrists at the start were
    1.15 units below their elbows in the median, .7 to 1.5 in nine of ten; in the middle .74 above. Without it, a short
    video's longest hold was taken for its rest: 43 of the 166 signs fell into two sentences; now none does.
    """

    _CELL_UNITS = 0.1
    _SPREAD_CELLS = 1.0  # standard deviation of the Gaussian over the map: positions are that exact
    _SHARE = 0.3  # of the densest place, from which on a place counts as rest
    _LONGEST_S = 2.0  # a longer rest counts no more per moment: a signer who waits for minutes is as one who rests
    _SURE_DROP_UNITS = 0.6  # a wrist this far below its elbow counts whole; one that is at its height or above,
    _RAISED_WEIGHT = 0.02  # this much: hands that are clasped before the belly for a minute are at rest all the same
    _LEAST_S2 = 0.06  # seconds of stillness times their weight, of a quarter of a second: with less nothing is known

    def __init__(self) -> None:
        self._shape = tuple(round(units / self._CELL_UNITS) + 1 for units in SPACE_UNITS)
        self._weight = np.zeros((len(WRISTS), *self._shape))

    def learn(self, hand: int, place: Floats, drop: Floats, is_still: Flags, frame_s: float) -> None:
        """Add the positions (T, 2) of a hand where it is still (T,); ``drop`` (T,) is from its elbow down. In units."""
        share = self._RAISED_WEIGHT + (1 - self._RAISED_WEIGHT) * (drop / self._SURE_DROP_UNITS).clip(0, 1)
        for first, end in _edges(is_still):
            columns, rows = self._cells(place[first:end])
            weight = frame_s * min((end - first) * frame_s, self._LONGEST_S)
            np.add.at(self._weight[hand], (columns, rows), weight * share[first:end])

    def at_rest(self, hand: int, place: Floats) -> Flags:
        """(T,) whether the hand is where it rests, of positions (T, 2); nowhere if it was hardly ever still."""
        if self._weight[hand].sum() < self._LEAST_S2:
            return np.zeros(len(place), bool)
        density: Floats = _smoothed(_smoothed(self._weight[hand], self._SPREAD_CELLS).T, self._SPREAD_CELLS).T
        found: Flags = density[self._cells(place)] >= self._SHARE * max(float(density.max()), 1e-9)
        return found

    def _cells(self, place: Floats) -> tuple[Ints, Ints]:
        columns, rows = (
            (place[:, axis] / self._CELL_UNITS).round().astype(np.int64).clip(0, self._shape[axis] - 1)
            for axis in range(2)
        )
        return columns, rows


def hand_activity(pose: Floats, times_s: Floats, rest: RestPlaces) -> Floats:
    """(T,) how much the more active hand signs; above 1 counts as signing. ``rest`` learns from these frames first.

    ``pose`` is (T, 7, 3) as `signstreams.integrate.videos.Points` has it: x, y in signing space, visibility.
    """
    activity: Floats = np.zeros(len(times_s))
    if len(times_s) < 2:
        return activity
    frame_s = _frame_s(times_s)
    for hand, wrist in enumerate(WRISTS):
        seen = pose[:, wrist, :2].astype(np.float64) * SPACE_UNITS  # (T, 2)
        place, known = _without_gaps(seen, pose[:, wrist, 2] > 0, times_s)
        smooth = _smoothed(place, SMOOTHING_S / frame_s)
        speed = np.linalg.norm(np.gradient(smooth, axis=0), axis=1) / frame_s  # (T,) units per second
        elbow = pose[:, ELBOWS[hand]].astype(np.float64)  # (T, 3)
        drop = smooth[:, 1] - elbow[:, 1] * SPACE_UNITS[1]
        drop = np.where(elbow[:, 2] > 0, drop, np.inf)  # of an elbow that is not seen nothing speaks against rest
        is_still = known & (speed < STILL_UNITS_S)
        rest.learn(hand, smooth, drop, is_still, frame_s)
        is_low = np.isfinite(drop) & (drop > LOW_UNITS)
        is_resting = rest.at_rest(hand, smooth) | _lasting(is_still & is_low, LOW_STILL_S / frame_s)
        own = speed / FAST_UNITS_S + np.where(is_resting, 0.0, AWAY)
        activity = np.maximum(activity, np.where(known, own, 0.0))
    return activity


def sentences_of(activity: Floats, times_s: Floats, pause_s: float = DEFAULT_PAUSE_S) -> list[Span]:
    """Start and end in s of the sentences: runs above 1, joined over rests shorter than ``pause_s``."""
    spans = joined(runs(activity > 1, times_s), pause_s)
    spans = [span for span in spans if span[1] - span[0] >= MIN_SENTENCE_S]
    return [part for span in spans for part in cut_at_stillest(span, activity, times_s)]


def runs(inside: Flags, times_s: Floats) -> list[Span]:
    """Start and end in s of each run of frames; a frame lasts until the next one, at most 1.5 usual frames."""
    if not len(times_s):
        return []
    step_s = _frame_s(times_s)
    following = np.minimum(np.append(times_s[1:], times_s[-1] + step_s), times_s + 1.5 * step_s)
    return [(float(times_s[a]), float(following[b - 1])) for a, b in _edges(inside)]


def joined(spans: Sequence[Span], pause_s: float) -> list[Span]:
    """Spans in order of time; two with less than ``pause_s`` between them become one."""
    out: list[Span] = []
    for start_s, end_s in spans:
        if out and start_s - out[-1][1] < pause_s - 1e-9:
            out[-1] = (out[-1][0], end_s)
        else:
            out.append((start_s, end_s))
    return out


def cut_at_stillest(span: Span, activity: Floats, times_s: Floats, longest_s: float = MAX_SENTENCE_S) -> list[Span]:
    """The span, or its parts: cut in its middle half where activity is least, until none is too long."""
    start_s, end_s = span
    length_s = end_s - start_s
    if length_s <= longest_s:
        return [span]
    low, high = np.searchsorted(times_s, (start_s + length_s / 4, end_s - length_s / 4))
    if low >= high:
        return [span]
    smooth = _smoothed(activity[low:high, None], SMOOTHING_S / _frame_s(times_s))[:, 0]
    moment_s = float(times_s[low + int(smooth.argmin())])
    parts = ((start_s, moment_s), (moment_s, end_s))
    return [piece for part in parts for piece in cut_at_stillest(part, activity, times_s, longest_s)]


def _edges(inside: Flags) -> Ints:
    """(N, 2) first frame of each run, and the one after its last."""
    changes: Ints = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).astype(np.int8)))
    return changes.reshape(-1, 2)


def _lasting(inside: Flags, least_frames: float) -> Flags:
    """(T,) those of ``inside`` that are in runs of at least so many frames."""
    out: Flags = np.zeros(len(inside), bool)
    for first, end in _edges(inside):
        out[first:end] = end - first >= least_frames - 1e-6
    return out


def _frame_s(times_s: Floats) -> float:
    """Usual time between two frames."""
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.04


def _without_gaps(place: Floats, seen: Flags, times_s: Floats) -> tuple[Floats, Flags]:
    """(T, 2) positions with short gaps interpolated, and (T,) whether each is known; unknown ones are at the bottom."""
    rows = np.flatnonzero(seen)
    if not len(rows):
        return np.full_like(place, SPACE_UNITS[1]), np.zeros(len(place), bool)
    filled = np.stack([np.interp(times_s, times_s[rows], place[rows, axis]) for axis in range(2)], axis=-1)
    before = np.searchsorted(rows, np.arange(len(place)), side="right") - 1  # last row seen at or before each frame
    after = np.minimum(before + 1, len(rows) - 1)
    gap_s = times_s[rows[after]] - times_s[rows[before.clip(0)]]
    known = seen | ((before >= 0) & (before + 1 < len(rows)) & (gap_s <= MAX_GAP_S))
    filled[~known] = SPACE_UNITS[1]
    return filled, known


def _smoothed(values: Floats, sigma_frames: float) -> Floats:
    """(T, C) after a Gaussian over time; the ends are repeated."""
    radius = max(1, round(3 * sigma_frames))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma_frames, 1e-6)) ** 2)
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
    columns = [np.convolve(padded[:, column], kernel / kernel.sum(), mode="valid") for column in range(values.shape[1])]
    return np.stack(columns, axis=-1)
