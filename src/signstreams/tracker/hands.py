"""Both hands of one person over a window of frames: 21 points each, found from the frames before and after as well.

MediaPipe searches a hand where the body's wrist, index and pinky say, and follows it from frame to frame. It was made
for a live camera: where it loses a hand, the hand stays lost until the body's points are good again. Here the frames of
a window are seen together. A first pass does as MediaPipe does; gaps are then closed from both ends, frame by frame,
all gaps of both hands in one batch (a wave); what is still missing is searched around where it was in the neighbouring
frames, along the forearm and by the palm detector, and followed from there. A short rest is interpolated, and marked.
"""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.formats.landmarks import INTERPOLATED
from signstreams.tracker.body import shoulder_width
from signstreams.tracker.detections import detect
from signstreams.tracker.engine import Engine
from signstreams.tracker.regions import agree, along_axis, around_hand, cut, half_turn, moved_along, project, turned

NUM_POINTS = 21
MIN_PRESENCE = 0.5
MAX_INTERPOLATED_S = 1 / 3  # between the sightings around them, at most: most of a sign's fast movements
MIN_INSIDE = 0.25  # share of a hand's points that are in the picture
MOSTLY_INSIDE, SURE_PRESENCE = 0.35, 0.75  # where it is less, this presence: else it is often under a table
NEAR, FOLLOWED_NEAR = 1.1, 2.5  # from the body's wrist to that of the hand, in sizes of the hand
# Mean distance of the points of two hands, in sizes of the hand, below which they are one, and below which they are one
# if the model takes them for the same side: two hands that touch are a left and a right.
SAME_HAND, SAME_SIDE_HAND = 0.2, 0.3
MAX_STEP_S = 0.2  # between frames that a hand is followed across

# Rows of the body's points, left before right.
_ELBOWS, _WRISTS, _PINKIES, _INDICES = (np.array([k, k + 1]) for k in (13, 15, 17, 19))
_MIN_VISIBILITY = 0.1  # of the wrist, as MediaPipe has it: below, the hand is hidden or outside
_LIKELY_VISIBILITY = 0.5
SPAN = 16  # frames that are followed one after the other in the first pass
LOOK_EVERY = 4  # frames in which a hand that is not followed is searched there
# How far the region in which a hand was found may be from the one that its points imply, before the hand is seen again:
# see `agree`.
MAX_OFF = (0.08, 1.15, 0.3)
MAX_SHIFT = 0.6  # of the body's wrist between two frames, in units: beyond, the body's points are wrong
SHORT_GAP = 16  # frames; a hand that is lost for longer is probably hidden, and is searched in fewer of them


class Found(IntEnum):
    """How a hand was found."""

    NOT = 0
    BODY = 1  # where wrist, index and pinky of the body are
    NEIGHBOUR = 2  # where it was in the frame before or after
    FOREARM = 3  # along the forearm
    PALM = 4  # by the palm detector
    BETWEEN = 5  # interpolated


class Hands(NamedTuple):
    """Both hands in N frames; side 0 is the person's own left."""

    points: Floats  # (N, 2, 21, 2) px; NaN where none
    confidence: Floats  # (N, 2) presence of a hand as the model has it; `INTERPOLATED`; 0 where none
    found: Ints  # (N, 2) uint8 of `Found`

    def since(self, first: int) -> Hands:
        """Those from a frame on."""
        return Hands(self.points[first:], self.confidence[first:], self.found[first:])


def no_hands(num_frames: int) -> Hands:
    """Nothing found yet."""
    points = np.full((num_frames, 2, NUM_POINTS, 2), np.nan)
    return Hands(points, np.zeros((num_frames, 2)), np.zeros((num_frames, 2), np.uint8))


class _Search:
    """What is known in one window."""

    def __init__(
        self, engine: Engine, frames: list[Pixels], times_s: Floats, body: Floats, hands: Hands, num_known: int
    ) -> None:
        self.engine, self.frames, self.times_s, self.hands = engine, frames, times_s, hands
        self.wrist = body[:, _WRISTS, :2]  # (N, 2, 2)
        self.elbow = body[:, _ELBOWS, :2]
        self.knuckle = (2 * body[:, _INDICES, :2] + body[:, _PINKIES, :2]) / 3  # of the middle finger
        self.unit = np.maximum(shoulder_width(body) / 2, 1.0)  # (N,) half the shoulders' distance, px
        self.size_px = np.array([frames[0].shape[1], frames[0].shape[0]])
        margin = 0.5 * self.unit[:, None, None]
        inside = ((self.wrist > -margin) & (self.wrist < self.size_px + margin)).all(-1)
        self.has_body = ~np.isnan(body[:, 0, 0])  # (N,)
        visibility = body[:, _WRISTS, 3]
        self.may_be = inside & (visibility > _MIN_VISIBILITY)  # (N, 2) where a hand may be seen
        margin = 0.1 * self.unit[:, None, None]
        inside = ((self.wrist > -margin) & (self.wrist < self.size_px + margin)).all(-1)
        self.is_likely = inside & (visibility > _LIKELY_VISIBILITY)  # (N, 2) where it is worth some effort
        self.handedness = np.full((len(frames), 2), 0.5)  # of the hands that were found: 0 left, 1 right
        self.is_seen_from_body = np.zeros((len(frames), 2), bool)
        self._recrop = np.full((len(frames), 2, 4), np.nan)  # what `recropped` found
        self.region = np.full((len(frames), 2, 4), np.nan)  # in which a hand was found
        self.is_tried = np.zeros((2, len(frames), 2), bool)  # from the hand in the frame before, after
        if num_known:  # the window before tried what it could
            self.is_tried[0, :num_known] = True
            self.is_tried[1, : num_known - 1] = self.is_found[1:num_known]
        self.num_runs = 0

    @property
    def is_found(self) -> Flags:
        """(N, 2) whether a hand was seen, not interpolated."""
        return self.hands.confidence >= MIN_PRESENCE

    def gaps(self) -> Ints:
        """(N, 2) number of frames in the gap that a frame is part of; 0 where a hand was found."""
        result = np.zeros(self.is_found.shape, int)
        for side in (0, 1):
            places = np.flatnonzero(~self.is_found[:, side])
            for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
                result[run, side] = len(run)
        return result

    def see(self, rows: Ints, sides: Ints, regions: Floats, how: Found | Ints) -> Flags:
        """Look for hands in M regions of the frames ``rows``; (M,) whether one was accepted.

        Of several regions for one hand, the surest counts.
        """
        accepted = np.zeros(len(rows), bool)
        if not len(rows):
            return accepted
        kinds = np.broadcast_to(how, len(rows))
        points, presence, handedness = self.run(rows, regions)
        is_led, is_from_body = kinds == Found.NEIGHBOUR, kinds == Found.BODY
        self.is_seen_from_body[rows[is_from_body], sides[is_from_body]] = True
        fits = (presence > MIN_PRESENCE) & self.belongs(rows, sides, points, presence, handedness, is_led)
        for k in np.flatnonzero(fits):
            row, side = rows[k], sides[k]
            if presence[k] > self.hands.confidence[row, side]:
                accepted[k] = True
                self.hands.points[row, side] = points[k]
                self.hands.confidence[row, side] = presence[k]
                self.hands.found[row, side] = kinds[k]
                self.handedness[row, side] = handedness[k]
                self.region[row, side] = regions[k]
        return accepted

    def run(self, rows: Ints, regions: Floats) -> tuple[Floats, Floats, Floats]:
        """(M, 21, 2) points in px, (M,) presence and (M,) handedness in M regions."""
        model = self.engine.model("hand_landmarks")
        self.num_runs += len(rows)
        places, presence, handedness = model.run(cut(self.frames, rows, regions, model.side_px))
        points = project(places.reshape(-1, NUM_POINTS, 3)[..., :2] / model.side_px, regions)
        return points, presence[:, 0], handedness[:, 0]

    def recropped(self, rows: Ints, sides: Ints) -> Floats:
        """(M, 4) regions of hands by a model that sees the wider surroundings of the body's knuckles
        (google-ai-edge/mediapipe: hand_recrop_by_roi)."""
        unknown = np.isnan(self._recrop[rows, sides, 0])
        if unknown.any():
            row, side = rows[unknown], sides[unknown]
            wrist, knuckle = self.wrist[row, side], self.knuckle[row, side]
            around = along_axis(knuckle, 2 * knuckle - wrist, 2.7)  # the knuckle is the middle, the wrist below it
            model = self.engine.model("hand_recrop")
            (values,) = model.run(cut(self.frames, row, around, model.side_px))
            ends = project(values.reshape(-1, 2, 2).astype(np.float64) / model.side_px, around)  # (M, 2, 2)
            # The second point is below the first.
            self._recrop[row, side] = moved_along(along_axis(ends[:, 0], 2 * ends[:, 0] - ends[:, 1], 1.0), 0.1)
        regions: Floats = self._recrop[rows, sides]
        return regions

    def belongs(
        self, rows: Ints, sides: Ints, points: Floats, presence: Floats, handedness: Floats, is_led: Flags
    ) -> Flags:
        """(M,) whether hands can be those of the person's own sides: by place, size and handedness.

        A hand that was followed from a neighbouring frame may be farther from the body's wrist, if model and handedness
        are sure of it: the body's points lose a fast hand before the hand model does.
        """
        size = hand_size(points)  # (M,)
        own = np.linalg.norm(points[:, 0] - self.wrist[rows, sides], axis=-1)
        other = np.linalg.norm(points[:, 0] - self.wrist[rows, 1 - sides], axis=-1)
        reach = np.maximum(size, 0.6 * self.unit[rows])
        agreement = np.where(sides == 1, handedness, 1 - handedness)  # (M,) that it is a hand of this side
        is_near = own < NEAR * reach
        is_near |= is_led & (own < FOLLOWED_NEAR * reach) & (presence > 0.9) & (agreement > 0.7)
        is_others = (other < 0.5 * own) & (own > 0.4 * reach) & (agreement < 0.7)
        fits = (size > 0.2 * self.unit[rows]) & (size < 2.2 * self.unit[rows])
        inside = ((points > 0) & (points < self.size_px)).all(-1).mean(-1)  # (M,)
        is_inside = (inside >= MIN_INSIDE) & ((inside >= MOSTLY_INSIDE) | (presence >= SURE_PRESENCE))
        belongs: Flags = is_near & ~is_others & fits & is_inside
        return belongs


def hand_size(points: Floats) -> Floats:
    """(...,) size of (..., 21, 2) hands: the longer side of the box around them."""
    size: Floats = (points.max(-2) - points.min(-2)).max(-1)
    return size


class HandTracker:
    """Finds the hands of one person, window by window."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.num_runs = 0  # of the hand model

    def find(self, frames: list[Pixels], times_s: Floats, body: Floats, known: Hands | None = None) -> Hands:
        """Hands in N frames (H, W, 3) uint8 at (N,) times with (N, 33, 4) body points in px.

        ``known`` are the hands of the first frames, from the window before; gaps in them may still be closed.
        """
        hands = no_hands(len(frames))
        if not frames:
            return hands
        num_known = 0 if known is None else len(known.confidence)
        if known is not None:
            for mine, theirs in zip(hands, known, strict=True):
                mine[:num_known] = theirs
        search = _Search(self._engine, frames, times_s, body, hands, num_known)
        is_new = np.arange(len(frames)) >= num_known
        _first_pass(search, is_new)
        _one_hand_for_one_side(search)
        _follow(search)
        _from_body(search, search.is_likely & is_new[:, None] & (search.gaps() <= SHORT_GAP))
        _near_neighbours(search, is_new)
        _along_forearm(search, is_new)
        _follow(search)
        _by_palm(search, is_new)
        _follow(search)
        _settle(search)
        _one_hand_for_one_side(search)
        _interpolate(search)
        self.num_runs += search.num_runs
        return hands


def _first_pass(search: _Search, is_new: Flags) -> None:
    """As MediaPipe does it: from the frame before if its hand is where the body's points say, or else from those.

    The window is cut into spans that begin by themselves and advance together, a frame with each wave. In a span that
    has lost a hand, every `LOOK_EVERY`-th frame looks for it.
    """
    first = int(np.argmax(is_new))
    starts = np.arange(first, len(search.frames), SPAN) if is_new.any() else np.empty(0, int)
    for step in range(SPAN):
        rows, sides = np.nonzero(search.may_be[starts[starts + step < len(search.frames)] + step])
        rows = starts[rows] + step
        is_led = (rows > 0) & search.is_found[rows - 1, sides]
        is_led &= search.times_s[rows] - search.times_s[rows - 1] <= MAX_STEP_S
        use = ~search.is_found[rows, sides] & (is_led | (step % LOOK_EVERY == 0))
        rows, sides, is_led = rows[use], sides[use], is_led[use]
        regions = search.recropped(rows, sides)
        before = search.hands.points[rows[is_led] - 1, sides[is_led]]
        follows = is_led.copy()
        follows[is_led] = keeps_place(before, regions[is_led])
        regions[follows] = around_hand(before[follows[is_led]])
        search.see(rows, sides, regions, np.where(follows, Found.NEIGHBOUR, Found.BODY))


def _settle(search: _Search) -> None:
    """See those again whose region was off what their points imply: the model is most precise where the hand is in the
    middle. On rendered hands it takes the 95 % error from .140 of their size to .130, MediaPipe's being .131."""
    rows, sides = np.nonzero(search.is_found & ~np.isnan(search.region[..., 0]))
    regions = around_hand(search.hands.points[rows, sides])
    is_off = ~agree(search.region[rows, sides], regions, *MAX_OFF)
    rows, sides, regions = rows[is_off], sides[is_off], regions[is_off]
    if not len(rows):
        return
    points, presence, handedness = search.run(rows, regions)
    fits = (presence > MIN_PRESENCE) & search.belongs(
        rows, sides, points, presence, handedness, np.ones(len(rows), bool)
    )
    rows, sides = rows[fits], sides[fits]
    search.hands.points[rows, sides] = points[fits]
    search.hands.confidence[rows, sides] = presence[fits]
    search.handedness[rows, sides] = handedness[fits]


def keeps_place(points: Floats, regions: Floats) -> Flags:
    """(M,) whether the (M, 21, 2) hands of the frames before are still within (M, 4) regions of these frames, by place,
    size and angle (google-ai-edge/mediapipe: roi_tracking_calculator)."""
    before = around_hand(points)
    side = regions[:, 2]
    shift = turned((before[:, :2] - regions[:, :2])[:, None], -regions[:, 3])[:, 0]  # (M, 2)
    places = turned(points - regions[:, None, :2], -regions[:, 3])  # (M, 21, 2)
    turn = np.abs(half_turn(before[:, 3] - regions[:, 3]))
    keeps: Flags = (
        (np.abs(shift) <= 0.2 * side[:, None]).all(-1)
        & (np.abs(before[:, 2] - side) <= 0.4 * side)
        & (turn <= np.deg2rad(40))
        & (np.abs(places) < 0.45 * side[:, None, None]).all((-2, -1))
    )
    return keeps


def _from_body(search: _Search, where: Flags) -> None:
    """Hands where the body's points are, in frames of which only the neighbours' places were seen."""
    rows, sides = np.nonzero(where & ~search.is_found & ~search.is_seen_from_body)
    search.see(rows, sides, search.recropped(rows, sides), Found.BODY)


def _follow(search: _Search) -> None:
    """Close gaps from both ends, a frame with each wave, until no end gets on."""
    apart_s = np.diff(search.times_s)
    tried = search.is_tried
    while True:
        is_found = search.is_found
        is_near = np.zeros_like(tried)
        is_near[0, 1:] = is_found[:-1] & (apart_s <= MAX_STEP_S)[:, None]
        is_near[1, :-1] = is_found[1:] & (apart_s <= MAX_STEP_S)[:, None]
        is_near &= search.has_body[:, None] & ~is_found & ~tried
        rows, sides = np.nonzero(is_near.any(0))
        if not len(rows):
            return
        tried |= is_near  # in place
        regions = np.stack([_moved(search, rows, sides, rows + step) for step in (-1, 1)])  # (2, M, 4)
        use = is_near[:, rows, sides]
        one = regions[use.argmax(0), np.arange(len(rows))]
        search.see(rows, sides, np.where(np.asarray(use.all(0))[:, None], _between(*regions), one), Found.NEIGHBOUR)


def _moved(search: _Search, rows: Ints, sides: Ints, others: Ints) -> Floats:
    """(M, 4) regions around the hands of the frames ``others``, moved as the body's wrist has; NaN where none."""
    others = np.clip(others, 0, len(search.frames) - 1)
    shift = search.wrist[rows, sides] - search.wrist[others, sides]  # (M, 2)
    is_likely = np.linalg.norm(shift, axis=-1, keepdims=True) < MAX_SHIFT * search.unit[rows, None]
    regions = around_hand(search.hands.points[others, sides])
    regions[:, :2] += np.where(is_likely, shift, 0)
    return regions


def _between(first: Floats, second: Floats) -> Floats:
    """(M, 4) regions half way between two of the same hand."""
    middle = (first + second) / 2
    middle[:, 3] = first[:, 3] + half_turn(second[:, 3] - first[:, 3]) / 2
    return middle


# Scales, turns (rad) and shifts along the hand (shares of the side) of the regions in which the model most often finds
# a hand that it has just missed: measured on the clips and the Korean signs of ../shared, 4 to 9 looks for each hand.
_VARIANTS = ((1.25, 0.0, -0.12), (1.0, 0.4, 0.0), (1.25, -0.4, 0.0))


def _near_neighbours(search: _Search, is_new: Flags) -> None:
    """At the ends of short gaps, in several regions about where the hand was in the neighbouring frame."""
    may = search.is_likely & (search.gaps() <= SHORT_GAP) & is_new[:, None]
    for scale, turn, shift in _VARIANTS:
        is_found = search.is_found
        is_led = np.diff(search.times_s)[:, None] <= MAX_STEP_S
        before, after = np.zeros_like(may), np.zeros_like(may)
        before[1:], after[:-1] = is_found[:-1] & is_led, is_found[1:] & is_led
        rows, sides = np.nonzero(may & ~is_found & (before | after))
        if not len(rows):
            return
        regions = _moved(search, rows, sides, np.where(before[rows, sides], rows - 1, rows + 1))
        regions = moved_along(regions, shift)
        regions[:, 2] *= scale
        regions[:, 3] += turn
        _see_twice(search, rows, sides, regions, Found.NEIGHBOUR)


_ALONG = (0.0, -0.6)  # turns from the forearm, rad


def _sparse(search: _Search, is_new: Flags, every: int) -> tuple[Ints, Ints]:
    """Rows and sides of frames in gaps, enough of them: a hand that is found in one is followed into the others."""
    gaps = search.gaps()
    rows: list[int] = []
    sides: list[int] = []
    for side in (0, 1):
        places = np.flatnonzero(is_new & search.is_likely[:, side] & ~search.is_found[:, side])
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            if not len(run):
                continue
            step = every if gaps[run[0], side] <= SHORT_GAP else 2 * every
            chosen = run[min(len(run), step) // 2 :: step]
            rows += chosen.tolist()
            sides += [side] * len(chosen)
    return np.array(rows, int), np.array(sides, int)


def _along_forearm(search: _Search, is_new: Flags) -> None:
    """Where the forearm points; once more around what was found."""
    rows, sides = _sparse(search, is_new, 3)
    is_short = search.gaps()[rows, sides] <= SHORT_GAP
    for number, turn in enumerate(_ALONG):
        if number:  # a hand that is lost for long is probably hidden: one look
            rows, sides, is_short = rows[is_short], sides[is_short], is_short[is_short]
        if not len(rows):
            return
        wrist, elbow = search.wrist[rows, sides], search.elbow[rows, sides]
        arm = wrist - elbow
        length = np.maximum(np.linalg.norm(arm, axis=-1, keepdims=True), 1.0)
        side_px = 2.0 * np.maximum(0.55 * length[:, 0], 0.8 * search.unit[rows])
        centre = wrist + arm / length * 0.25 * side_px[:, None]
        angle = np.arctan2(arm[:, 0], -arm[:, 1]) + turn
        accepted = _see_twice(search, rows, sides, np.column_stack([centre, side_px, angle]), Found.FOREARM)
        rows, sides, is_short = rows[~accepted], sides[~accepted], is_short[~accepted]


def _see_twice(search: _Search, rows: Ints, sides: Ints, regions: Floats, how: Found) -> Flags:
    """Look in rough regions, then in the better ones that the points there imply; (M,) whether a hand was accepted."""
    points, presence, _ = search.run(rows, regions)
    accepted = np.zeros(len(rows), bool)
    hopeful = np.flatnonzero(presence > 0.2)
    accepted[hopeful] = search.see(rows[hopeful], sides[hopeful], around_hand(points[hopeful]), how)
    return accepted


_PALM_MARGIN, _PALM_SHIFT = 2.6, 0.5


def _by_palm(search: _Search, is_new: Flags) -> None:
    """By the palm detector, in the surroundings of the wrist."""
    rows, sides = _sparse(search, is_new, 4)
    if not len(rows):
        return
    wrist, elbow = search.wrist[rows, sides], search.elbow[rows, sides]
    side_px = 4.0 * search.unit[rows]
    around = np.column_stack([wrist + 0.2 * (wrist - elbow), side_px, np.zeros(len(rows))])
    kept, regions = [], []
    for k, found in enumerate(detect(search.engine, "palm_detection", [search.frames[row] for row in rows], around)):
        for box, points in zip(found.box[:2], found.points[:2], strict=True):
            along = points[2] - points[0]  # from the wrist to the knuckle of the middle finger
            region = np.array([[box[0], box[1], max(box[2], box[3]), np.arctan2(along[0], -along[1])]])
            region = moved_along(region, _PALM_SHIFT)
            region[:, 2] *= _PALM_MARGIN
            kept.append(k)
            regions.append(region[0])
    if kept:
        _see_twice(search, rows[kept], sides[kept], np.array(regions), Found.PALM)


def _one_hand_for_one_side(search: _Search) -> None:
    """Where both sides have the same hand, it stays with the one that its handedness says, or else its wrist."""
    both = np.flatnonzero(search.is_found.all(1))
    if not len(both):
        return
    points = search.hands.points[both]  # (M, 2, 21, 2)
    apart = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1).mean(-1)
    size = np.minimum(hand_size(points[:, 0]), hand_size(points[:, 1]))
    own = np.linalg.norm(points[:, :, 0] - search.wrist[both], axis=-1)  # (M, 2)
    is_alike = np.abs(np.diff(search.handedness[both], axis=1)[:, 0]) < 0.5
    for k in np.flatnonzero(apart < np.where(is_alike, SAME_SIDE_HAND, SAME_HAND) * size):
        handedness = search.handedness[both[k]].mean()
        is_clear = abs(handedness - 0.5) > 0.3
        _forget(search.hands, both[k], int(handedness < 0.5) if is_clear else int(own[k].argmax()))


def _forget(hands: Hands, row: int, side: int) -> None:
    hands.points[row, side] = np.nan
    hands.confidence[row, side] = 0
    hands.found[row, side] = Found.NOT


def _interpolate(search: _Search) -> None:
    """Between two sightings at most `MAX_INTERPOLATED_S` apart, the body's wrist being where it is meanwhile.

    On moving hands that were hidden from it for a third of a second the mean error of the points is .19 of the hand's
    size in the median, and .43 in 90 %; in a straight line it is .37 and .80.
    """
    hands, times_s = search.hands, search.times_s
    for side in (0, 1):
        seen = np.flatnonzero(search.is_found[:, side])
        for before, after in pairwise(seen):
            if after - before < 2 or times_s[after] - times_s[before] > MAX_INTERPOLATED_S + 1e-6:
                continue
            for row in range(before + 1, after):
                if not search.may_be[row, side]:
                    continue
                share = (times_s[row] - times_s[before]) / (times_s[after] - times_s[before])
                from_wrist = hands.points[[before, after], side] - search.wrist[[before, after], side, None]
                points = search.wrist[row, side] + (1 - share) * from_wrist[0] + share * from_wrist[1]  # (21, 2)
                hands.points[row, side] = points
                hands.confidence[row, side] = INTERPOLATED
                hands.found[row, side] = Found.BETWEEN
