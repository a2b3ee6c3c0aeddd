"""Hands over a window: waves, sides, what is interpolated, windows one after the other, nothing made up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from signstreams.array_types import Floats
from signstreams.extract.video import VideoReader
from signstreams.formats.landmarks import INTERPOLATED
from signstreams.tracker import hands as module
from signstreams.tracker.body import BodyTracker
from signstreams.tracker.engine import LiteRtEngine
from signstreams.tracker.hands import Found, Hands, HandTracker, no_hands
from signstreams.tracker.regions import around_hand, turned

WIDTH_PX, HEIGHT_PX = 400, 300
LEFT, RIGHT = 0, 1
KNUCKLE = 40.0  # px from the wrist to the knuckle of the middle finger


def _upright_hand() -> Floats:
    """(21, 2) an open hand, its wrist at the origin, fingers up."""
    points = [(0.0, 0.0)]
    for finger, across in enumerate((-0.6, -0.3, 0.0, 0.25, 0.5)):
        first, step = (0.4, 0.2) if finger == 0 else (1.0, 0.25)
        points += [(across * (0.7 + 0.1 * k), -(first + step * k)) for k in range(4)]
    return KNUCKLE * np.array(points)


HAND = _upright_hand()


class World(NamedTuple):
    """Both hands of somebody and the body points of a tracker."""

    hands: Floats  # (T, 2, 21, 2) px
    is_shown: np.ndarray  # (T, 2) whether the model can see the hand
    body: Floats  # (T, 33, 4)

    def lead_astray(self, frames: slice, side: int, by_px: tuple[float, float]) -> None:
        """Body points of one arm that are off."""
        for point in (15, 17, 19):
            self.body[frames, point + side, :2] += by_px


def _world(num_frames: int, px_a_frame: float = 2.0) -> World:
    """Two hands that rise, the left one of the person at the right of the picture."""
    hands = np.empty((num_frames, 2, 21, 2))
    for side, (x, mirror) in enumerate(((270, -1), (130, 1))):
        rise = px_a_frame * np.arange(num_frames)
        hands[:, side] = HAND * (mirror, 1) + np.stack([np.full(num_frames, x), 250 - rise], -1)[:, None]
    body = np.full((num_frames, 33, 4), 0.99)
    body[..., :2] = (200, 60)
    for side, x in enumerate((250, 150)):
        body[:, 11 + side, :2] = (x, 120)
        body[:, 13 + side, :2] = hands[:, side, 0] + (0, 80)
        for point, of_hand in ((15, 0), (17, 17), (19, 5)):
            body[:, point + side, :2] = hands[:, side, of_hand]
    return World(hands, np.ones((num_frames, 2), bool), body)


class _Model:
    side_px = 100


class _Recrop(_Model):
    """Takes the body's word for it."""

    def run(self, regions: Floats) -> tuple[Floats]:
        return (np.tile(self.side_px * np.array([0.5, 0.58, 0.5, 0.81]), (len(regions), 1)),)


class _Palms(_Model):
    def run(self, images: np.ndarray) -> tuple[Floats, Floats]:
        return np.zeros((len(images), 2016, 18), np.float32), np.full((len(images), 2016, 1), -9, np.float32)


class _HandModel(_Model):
    """Sees the hand of the world that is nearest to the middle of a region, if it is about in the middle."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.batches: list[int] = []

    def run(self, regions: Floats) -> tuple[Floats, Floats, Floats]:
        self.batches.append(len(regions))
        found = [self._seen(int(row[0]), row[1:]) for row in regions]
        points, presence, handedness = zip(*found, strict=True) if found else ((), (), ())
        return (
            np.array(points).reshape(-1, 63),
            np.array(presence).reshape(-1, 1),
            np.array(handedness).reshape(-1, 1),
        )

    def _seen(self, frame: int, region: Floats) -> tuple[Floats, float, float]:
        hands = self.world.hands[frame]
        wanted = around_hand(hands)
        off = np.hypot(*(wanted[:, :2] - region[:2]).T) / region[2]
        off[~self.world.is_shown[frame]] = np.inf
        side = int(off.argmin())
        if off[side] > 0.3 or not 0.5 < wanted[side, 2] / region[2] < 2:
            return np.full((21, 3), 50.0), 0.01, 0.5
        places = turned((hands[side] - region[:2])[None], -region[3:])[0] / region[2] + 0.5
        return np.column_stack([places, np.zeros(21)]) * self.side_px, 0.95, float(side)


class _Engine:
    def __init__(self, world: World) -> None:
        self.hand_model = _HandModel(world)
        self._models = {"hand_landmarks": self.hand_model, "hand_recrop": _Recrop(), "palm_detection": _Palms()}

    def model(self, name: str) -> _Model:
        return self._models[name]


@pytest.fixture(autouse=True)
def regions_are_passed_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of this file get (N, 5) frame numbers and regions instead of what is to be seen there."""
    if "models" in request.fixturenames:
        return

    def numbers_and_regions(frames: list, rows: np.ndarray, regions: Floats, side_px: int) -> Floats:
        return np.column_stack([[int(frames[row][0, 0, 0]) for row in rows], regions]).reshape(-1, 5)

    monkeypatch.setattr(module, "cut", numbers_and_regions)


def _frames(first: int, end: int) -> list[np.ndarray]:
    """Frames that only know their number."""
    return [np.full((HEIGHT_PX, WIDTH_PX, 3), number, np.uint8) for number in range(first, end)]


def _find(world: World, times_s: Floats | None = None) -> tuple[Hands, HandTracker, _Engine]:
    engine = _Engine(world)
    tracker = HandTracker(engine)
    num = len(world.body)
    times_s = np.arange(num) / 25 if times_s is None else times_s
    return tracker.find(_frames(0, num), times_s, world.body), tracker, engine


def _in_windows(world: World, window: int, overlap: int) -> Hands:
    """Window after window, as `signstreams.extract.tracker` does it."""
    tracker, num = HandTracker(_Engine(world)), len(world.body)
    result, start, known = no_hands(num), 0, None
    while True:
        end = min(start + window, num)
        found = tracker.find(_frames(start, end), np.arange(start, end) / 25, world.body[start:end], known)
        for all_, part in zip(result, found, strict=True):
            all_[start:end] = part
        if end == num:
            return result
        start, known = end - overlap, found.since(end - start - overlap)


def _assert_true(found: Hands, world: World) -> None:
    """Every hand was found, on its own side, where it is."""
    assert (found.confidence >= 0.5).all()
    assert np.abs(found.points - world.hands).max() < 1e-6


def test_each_hand_is_found_on_its_own_side_by_about_one_look() -> None:
    world = _world(32)
    found, tracker, engine = _find(world)
    _assert_true(found, world)
    assert tracker.num_runs == sum(engine.hand_model.batches) < 1.1 * 64
    assert len(engine.hand_model.batches) <= module.SPAN + 1  # both hands and all spans in one batch


@pytest.mark.parametrize("gap", [slice(0, 9), slice(9, 17), slice(21, 32)], ids=["start", "middle", "end"])
def test_where_the_body_is_wrong_neighbours_show_the_hand(gap: slice) -> None:
    world = _world(32)
    world.lead_astray(gap, LEFT, (90, 0))
    found, _, _ = _find(world)
    _assert_true(found, world)
    assert (found.found[gap, LEFT] == Found.NEIGHBOUR).all()


def test_a_hand_that_returns_is_followed_backward_into_the_window_before() -> None:
    world = _world(48)
    world.lead_astray(slice(20, 34), RIGHT, (-90, 0))
    world.is_shown[18:28, RIGHT] = False  # cut off from what was before
    found = _in_windows(world, window=32, overlap=8)
    assert np.flatnonzero(found.confidence[:, RIGHT] == 0).tolist() == list(range(18, 28))
    assert np.abs(found.points[28:, RIGHT] - world.hands[28:, RIGHT]).max() < 1e-6


@pytest.mark.parametrize(("window", "overlap"), [(32, 8), (14, 3), (4, 1)])
def test_windows_change_nothing(window: int, overlap: int) -> None:
    world = _world(60)
    world.lead_astray(slice(13, 18), LEFT, (90, 0))
    found, whole = _in_windows(world, window, overlap), _find(world)[0]
    _assert_true(found, world)
    assert np.allclose(found.points, whole.points)


def test_one_hand_is_never_given_to_both_sides() -> None:
    world = _world(32)
    world.is_shown[:, LEFT] = False
    for point in (13, 15, 17, 19):  # the arms cross, and the left hand is behind the right one
        world.body[:, point + LEFT] = world.body[:, point + RIGHT]
    found, _, _ = _find(world)
    assert not found.confidence[:, LEFT].any()
    assert np.isnan(found.points[:, LEFT]).all()
    assert np.abs(found.points[:, RIGHT] - world.hands[:, RIGHT]).max() < 1e-6


def test_two_hands_that_touch_are_two() -> None:
    world = _world(32)
    shift = np.array([world.hands[0, RIGHT, 0, 0] + 25 - world.hands[0, LEFT, 0, 0], 0])
    world.hands[:, LEFT] += shift
    for point in (13, 15, 17, 19):
        world.body[:, point + LEFT, :2] += shift
    found, _, _ = _find(world)
    _assert_true(found, world)


@pytest.mark.parametrize("hidden", [1, 5, 7, 8, 12])
def test_a_short_rest_is_interpolated_and_marked(hidden: int) -> None:
    world = _world(32)
    gap = slice(10, 10 + hidden)
    swing = 15 * np.sin(np.pi * np.arange(1, hidden + 1) / (hidden + 1))  # the hand does not move evenly
    world.hands[gap, LEFT, :, 0] += swing[:, None]
    world.body[gap, 15, 0] += swing
    world.is_shown[gap, LEFT] = False
    found, _, _ = _find(world)
    if (hidden + 1) / 25 <= module.MAX_INTERPOLATED_S:
        assert (found.confidence[gap, LEFT] == INTERPOLATED).all()
        assert (found.found[gap, LEFT] == Found.BETWEEN).all()
        assert np.abs(found.points - world.hands).max() < 1e-6  # it is where the body's wrist is
    else:
        assert not found.confidence[gap, LEFT].any()
        assert np.isnan(found.points[gap, LEFT]).all()
    assert (found.confidence[:, RIGHT] >= 0.5).all()


def test_nothing_reaches_across_a_gap_in_time() -> None:
    world = _world(12)
    world.lead_astray(slice(5, 12), LEFT, (90, 0))
    times_s = np.arange(12) / 25
    times_s[5:] += 0.4
    found, _, _ = _find(world, times_s)
    assert found.confidence[:5, LEFT].all()
    assert not found.confidence[5:, LEFT].any()
    assert found.confidence[:, RIGHT].all()


def test_no_hand_is_made_up() -> None:
    world = _world(32)
    world.is_shown[:] = False
    found, tracker, _ = _find(world)
    assert not found.confidence.any() and not found.found.any() and np.isnan(found.points).all()
    assert tracker.num_runs < 0.6 * 64  # a hand that is lost for long is searched in some of the frames


def test_no_look_is_wasted_where_no_hand_can_be() -> None:
    world = _world(32)
    world.body[:, 15 + LEFT, 1] = HEIGHT_PX + 60  # below the picture
    world.body[:, 15 + RIGHT, 3] = 0.05  # hidden, says the body
    found, tracker, _ = _find(world)
    assert not found.confidence.any() and tracker.num_runs == 0
    nobody = world._replace(body=np.full_like(world.body, np.nan))
    found, tracker, _ = _find(nobody)
    assert not found.confidence.any() and tracker.num_runs == 0


def test_a_hand_of_somebody_else_is_refused() -> None:
    world = _world(16)
    world.body[:, 13:21, :2] -= (0, 190)  # own arms are up, where no hand is to be seen
    found, _, _ = _find(world)
    assert not found.confidence.any()


@pytest.mark.parametrize(
    ("inside_px", "presence", "belongs"), [(30, 0.6, True), (16, 0.7, False), (16, 0.8, True), (10, 0.99, False)]
)
def test_a_hand_mostly_out_of_the_picture_has_to_be_sure(inside_px: float, presence: float, belongs: bool) -> None:
    world = _world(1)
    leaning = turned(world.hands[:, LEFT] - world.hands[:, LEFT, :1], np.array([0.5]))  # no two points are level
    shift = world.hands[0, LEFT, 0] * (0, -1) + (0, HEIGHT_PX - leaning[0, :, 1].min() - inside_px)
    hand = leaning + world.hands[:, LEFT, :1] + shift
    world.body[:, [15, 17, 19], :2] += shift
    search = module._Search(_Engine(world), _frames(0, 1), np.zeros(1), world.body, no_hands(1), 0)
    place = np.zeros(1, int), np.full(1, LEFT), hand, np.array([presence]), np.zeros(1), np.zeros(1, bool)
    assert search.belongs(*place)[0] == belongs


def test_no_frames() -> None:
    found = HandTracker(_Engine(_world(1))).find([], np.empty(0), np.empty((0, 33, 4)))
    assert [part.shape for part in found] == [(0, 2, 21, 2), (0, 2), (0, 2)]


def test_a_studio_clip(models: Path, shared_data: Path) -> None:
    """Both hands are in sight nearly all the time; MediaPipe Holistic finds 88 % of the left and 67 % of the right."""
    with VideoReader(shared_data / "clips" / "lsat_one_signer_studio.gif") as reader:
        frames = list(reader.frames())[:32]
    images, times_s = [frame.image for frame in frames], np.array([frame.time_s for frame in frames])
    engine = LiteRtEngine(models)
    tracker = HandTracker(engine)
    found = tracker.find(images, times_s, BodyTracker(engine).track(images))
    assert (found.confidence > 0).mean() > 0.9
    assert ((found.confidence == 0) | (found.confidence == INTERPOLATED) | (found.confidence >= 0.5)).all()
    assert (np.isnan(found.points).all((-2, -1)) == (found.confidence == 0)).all()
    apart = np.linalg.norm(found.points[:, 0] - found.points[:, 1], axis=-1).mean(-1)
    assert not (apart < 10).any()
    assert tracker.num_runs < 2.2 * found.confidence.size
