"""The body: as MediaPipe has it in one frame, and over chunks of frames in which somebody comes, moves and leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from signstreams.array_types import Floats, Pixels
from signstreams.extract.video import VideoReader
from signstreams.tracker.body import NUM_POINTS, SMOOTHED_OVER_S, UNKNOWN_HEAD, BodyTracker, _Chunk, refined, smoothed
from signstreams.tracker.engine import LiteRtEngine, Model

NOSE, SHOULDERS, WRISTS = 0, [11, 12], [15, 16]
ARMS = [NOSE, 11, 12, 13, 14, 15, 16]
STUDIO = np.array(
    [[201.9, 41.7], [236.5, 82.6], [166.2, 84.9], [259.9, 153.0], [152.7, 151.5], [211.9, 146.3], [174.0, 94.9]]
)
"""Those points in frame 36 of the studio clip, px, by MediaPipe Pose 0.10.21 in static mode."""


class CountingEngine:
    """LiteRT that counts the images which each model sees."""

    def __init__(self, folder: Path) -> None:
        self._engine, self.seen = LiteRtEngine(folder), dict.fromkeys(("pose_detection", "pose_landmarks"), 0)

    def model(self, name: str) -> Model:
        model, seen = self._engine.model(name), self.seen

        class Counting:
            side_px = model.side_px

            def run(self, images: Pixels) -> tuple[Floats, ...]:
                seen[name] += len(images)
                return model.run(images)

        return Counting()


@pytest.fixture
def engine(models: Path) -> CountingEngine:
    return CountingEngine(models)


@pytest.fixture(scope="module")
def studio(shared_data: Path) -> list[np.ndarray]:
    with VideoReader(shared_data / "clips" / "lsat_one_signer_studio.gif") as reader:
        return [frame.image for frame in reader.frames()][:48]


def shoulder_width(points: Floats) -> float:
    return float(np.nanmedian(np.linalg.norm(points[:, 11, :2] - points[:, 12, :2], axis=-1)))


def chunk_of(frames: list[np.ndarray]) -> _Chunk:
    number = len(frames)
    points = np.full((number, NUM_POINTS, 4), np.nan)
    return _Chunk(frames, np.tile(UNKNOWN_HEAD, (number, 1)), points, np.full((number, 4), np.nan), np.zeros(number))


def test_the_body_of_one_frame_is_where_mediapipe_has_it(engine: CountingEngine, studio: list[np.ndarray]) -> None:
    (found,) = BodyTracker(engine).track(studio[36:37])
    assert found.shape == (NUM_POINTS, 4)
    off = np.linalg.norm(found[ARMS, :2] - STUDIO, axis=-1) / 70.3  # in widths of the shoulders
    assert off.mean() < 0.05
    assert (found[ARMS, 3] > 0.98).all()


def test_in_the_same_square_the_points_are_those_of_mediapipe_itself(
    engine: CountingEngine, frames: list[np.ndarray]
) -> None:
    solution = pytest.importorskip("mediapipe.python.solutions.pose").Pose(static_image_mode=True, model_complexity=1)
    tracker = BodyTracker(engine)
    with solution:
        for frame in frames[:6]:
            size = [frame.shape[1], frame.shape[0]]
            landmarks = solution.process(frame).pose_landmarks.landmark
            theirs = np.array([[point.x, point.y] for point in landmarks]) * size
            row = np.zeros(1, int)
            chunk = chunk_of([frame])
            tracker._see(chunk, row, tracker._detected(chunk, row))
            off = np.linalg.norm(chunk.points[0, :, :2] - theirs, axis=-1) / shoulder_width(theirs[None])
            assert np.median(off) < 0.01
            assert off.max() < 0.05
            assert np.abs(chunk.points[0, :, 3] - [point.visibility for point in landmarks]).max() < 0.02


def test_who_rests_is_seen_once_in_each_frame(engine: CountingEngine, studio: list[np.ndarray]) -> None:
    tracker = BodyTracker(engine)
    found = np.concatenate([tracker.track(studio[start : start + 24]) for start in (0, 24)])
    assert not np.isnan(found).any()
    assert engine.seen["pose_detection"] == 1
    assert engine.seen["pose_landmarks"] <= 48 + 3 + 5  # three at first, and few again


def test_chunks_change_little(engine: CountingEngine, studio: list[np.ndarray]) -> None:
    found = []
    for size in (48, 12):
        tracker = BodyTracker(engine)
        parts = [tracker.track(studio[start : start + size]) for start in range(0, 48, size)]
        found.append(np.concatenate(parts)[:, ARMS])
    off = np.linalg.norm(found[0][..., :2] - found[1][..., :2], axis=-1) / 70.3
    assert np.median(off) < 0.03
    assert np.quantile(off, 0.95) < 0.15


@pytest.mark.parametrize("size", [24, 7])
def test_nobody_is_seen_where_nobody_is(engine: CountingEngine, studio: list[np.ndarray], size: int) -> None:
    empty = [np.full_like(studio[0], 120)]
    sequence = 10 * empty + studio[:15] + 15 * empty + studio[15:30]
    is_there = np.repeat([False, True, False, True], [10, 15, 15, 15])
    tracker = BodyTracker(engine)
    found = np.concatenate([tracker.track(sequence[start : start + size]) for start in range(0, len(sequence), size)])
    assert np.array_equal(~np.isnan(found[:, NOSE, 0]), is_there)
    assert engine.seen["pose_detection"] <= 20  # of 25 frames without anybody not each is searched


def test_somebody_who_crosses_the_picture_is_followed(engine: CountingEngine, studio: list[np.ndarray]) -> None:
    person = studio[36][:, 130:290]
    wide = []
    for number in range(24):
        frame = np.zeros((180, 640, 3), np.uint8)
        frame[:, 20 * number : 20 * number + 160] = person
        wide.append(frame)
    found = BodyTracker(engine).track(wide)
    nose = found[:, NOSE, 0] - 20 * np.arange(24)
    assert np.abs(nose - np.median(nose)).max() < 0.1 * 70.3


def test_the_person_of_before_is_found_again_beside_a_clearer_one(
    engine: CountingEngine, studio: list[np.ndarray]
) -> None:
    left, both = np.zeros((180, 640, 3), np.uint8), np.zeros((180, 640, 3), np.uint8)
    left[:, :320] = both[:, :320] = studio[36]
    both[:, 320:] = studio[0]
    tracker = BodyTracker(engine)
    tracker.track([left] * 2)
    found = tracker._detected(chunk_of([both]), np.zeros(1, int))
    assert found[0, 0] < 320


def test_the_body_is_that_of_the_head_that_is_named(engine: CountingEngine, studio: list[np.ndarray]) -> None:
    both = np.concatenate([studio[36], studio[0]], axis=1)  # (180, 640, 3)
    width_px = studio[0].shape[1]
    alone = BodyTracker(engine).track(studio[36:37])[0, 0, :2]  # the nose
    for corner_px in (0, width_px):
        own = BodyTracker(engine).track([studio[36] if corner_px == 0 else studio[0]])[0]
        heads = np.array([[own[0, 0] + corner_px, own[0, 1], 15.0]] * 3)
        found = BodyTracker(engine).track([both] * 3, heads)
        assert np.abs(found[:, 11:13, :2] - own[11:13, :2] - (corner_px, 0)).max() < 8
    nobody = np.array([[alone[0], alone[1] + 90, 15.0]] * 3)
    assert np.isnan(BodyTracker(engine).track([both] * 3, nobody)).all()


def test_no_frames_give_no_points(engine: CountingEngine) -> None:
    assert BodyTracker(engine).track([]).shape == (0, NUM_POINTS, 4)


# -- Refinement by heat


def test_a_point_is_drawn_to_its_heat_within_reach() -> None:
    heat = np.full((1, 64, 64, 3), -20, np.float32)
    heat[0, 32, 20:22, 0] = 4  # of point 0, two cells away
    heat[0, 5, 5, 1] = 4  # of point 1, out of reach
    heat[0, 40, 40, 2] = -1  # of point 2, not sure
    places = np.array([[[19, 31], [40, 40], [41, 41]]]) / 64
    found = refined(places, heat)
    assert found[0, 0] * 64 == pytest.approx([20.5, 32])
    assert np.array_equal(found[0, 1:], places[0, 1:])


def test_a_point_outside_the_square_stays() -> None:
    places = np.array([[[-0.2, 0.5], [1.0, 0.5]]])
    assert np.array_equal(refined(places, np.full((1, 64, 64, 2), 9, np.float32)), places)


# -- Steady points

TIMES_S = np.arange(50) / 25


def still(noise: float) -> Floats:
    """(50, 33, 4) somebody at rest, with shoulders 100 px wide."""
    points = np.zeros((50, NUM_POINTS, 4))
    points[:, 11, 0] = 100
    points[..., :2] += noise * np.random.default_rng(0).standard_normal((50, NUM_POINTS, 2))
    points[..., 3] = 0.9
    return points


def test_who_rests_jitters_less() -> None:
    points = still(1.0)
    found = smoothed(points, TIMES_S)
    assert np.diff(found[..., 0], axis=0).std() < 0.3 * np.diff(points[..., 0], axis=0).std()
    assert found[..., 3] == pytest.approx(0.9)


def test_a_jump_stays_where_it_was_and_fast_motion_does_not_lag() -> None:
    points = still(0.0)
    points[25:, WRISTS, 1] += 80
    assert smoothed(points, TIMES_S) == pytest.approx(points, abs=0.01)
    points[:, WRISTS, 1] = 12 * np.arange(50)[:, None]
    assert smoothed(points, TIMES_S)[10:-10] == pytest.approx(points[10:-10], abs=0.01)


def test_time_runs_either_way() -> None:
    points = still(2.0)
    backward = smoothed(points[::-1].copy(), -TIMES_S[::-1])[::-1]
    assert backward == pytest.approx(smoothed(points, TIMES_S))


def test_frames_without_a_body_stay_so_and_gaps_are_not_bridged() -> None:
    points = still(1.0)
    points[20:25] = np.nan
    found = smoothed(points, TIMES_S)
    assert np.array_equal(np.isnan(found), np.isnan(points))
    times_s = TIMES_S.copy()
    times_s[25:] += SMOOTHED_OVER_S
    apart = smoothed(points, times_s)
    assert apart[:20] == pytest.approx(smoothed(points[:20], times_s[:20]))
    assert apart[25:] == pytest.approx(smoothed(points[25:], times_s[25:]))
    assert smoothed(points[:0], times_s[:0]).shape == (0, NUM_POINTS, 4)
