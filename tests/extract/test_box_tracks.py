"""Tracks: gaps, states, smoothing without lag, and streaming that equals the whole video at once."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.extract.box_tracks import BLOCK_FRAMES, FrameBoxes, TrackBuilder, Window, boxes_of, resolve, smooth_at
from signstreams.extract.frame_boxes import NUM_STREAMS, Observation
from signstreams.extract.settings import BoxConfig
from signstreams.streams import BoxState

D, T, F, M = BoxState.DETECTED, BoxState.TRACKED, BoxState.FILLED, BoxState.MISSING
SIZE = (640, 480)
NO_BOX = [np.nan] * 3


def line(num_frames: int) -> np.ndarray:
    """(T, 3) a box that moves 10 px a frame."""
    index = np.arange(num_frames, dtype=float)
    return np.stack([100 + 10 * index, 200 + 0 * index, 50 + 0 * index], -1)


def run(detected: np.ndarray, anchored: np.ndarray | None = None, fps: float = 25, max_gap_s: float = 0.25) -> tuple:
    times_s = np.arange(len(detected)) / fps
    anchored = np.full_like(detected, np.nan) if anchored is None else anchored
    return resolve(times_s, detected, anchored, np.full(len(detected), 0.8), max_gap_s)


def without(boxes: np.ndarray, *frames: int) -> np.ndarray:
    boxes = boxes.copy()
    boxes[list(frames)] = np.nan
    return boxes


def test_a_short_gap_is_interpolated_and_marked_filled() -> None:
    boxes, states, confidence = run(without(line(6), 2, 3))
    assert states.tolist() == [D, D, F, F, D, D]
    assert boxes == pytest.approx(line(6))
    assert confidence.tolist() == [1] * 6


def test_a_long_gap_stays_missing_without_the_body() -> None:
    _, states, confidence = run(without(line(20), *range(3, 15)))
    assert states[3:15].tolist() == [M] * 12
    assert confidence[3:15].tolist() == [0] * 12


def test_a_gap_is_measured_in_time() -> None:
    detected = without(line(6), 2, 3)  # from frame 1 to frame 4: 0.12 s at 25 Hz, 0.36 s at 8.33 Hz
    assert run(detected, fps=25)[1][2] == F
    assert run(detected, fps=25 / 3)[1][2] == M


def test_the_body_bridges_a_long_gap_and_joins_the_detections_without_a_jump() -> None:
    detected = without(line(40), *range(5, 35))
    boxes, states, confidence = run(detected, line(40) + np.array([0, 14, 50]))
    assert states[5:35].tolist() == [T] * 30
    assert confidence[5:35].tolist() == [0.8] * 30
    assert boxes[:, 0] == pytest.approx(line(40)[:, 0])
    assert boxes[14:26] == pytest.approx((line(40) + np.array([0, 14, 50]))[14:26])  # far off: as the body has it
    assert np.abs(np.diff(boxes[:, 1])).max() < 14 / 6  # 14 px and 50 px of difference fade over 0.25 s
    assert np.abs(np.diff(boxes[:, 2])).max() < 50 / 4


def test_in_a_short_gap_the_body_moves_the_box() -> None:
    bent = line(8)
    bent[2:6, 1] += [10, 30, 30, 10]  # a movement that the detector misses
    boxes, states, _ = run(without(bent, 2, 3, 4, 5), bent + np.array([5, -9, 20]))
    assert states.tolist() == [D, D, T, T, T, T, D, D]
    assert boxes[:, :2] == pytest.approx(bent[:, :2])


def test_a_short_gap_without_the_body_throughout_is_interpolated() -> None:
    _, states, _ = run(without(line(8), 2, 3, 4), without(line(8), 3))
    assert states.tolist() == [D, D, F, F, F, D, D, D]


def test_what_remains_between_body_and_detector_is_filled() -> None:
    detected = without(line(20), *range(3, 15))
    anchored = without(line(20), 3, 4, 9)
    _, states, confidence = run(detected, anchored)
    assert states[2:6].tolist() == [D, F, F, T]
    assert states[8:11].tolist() == [T, F, T]
    assert confidence[9] == 0.8


@pytest.mark.parametrize("seed", range(4))
def test_the_shift_agrees_with_a_slow_version(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times_s = np.cumsum(rng.choice([0.03, 0.04, 0.12], 50))
    detected, anchored = rng.uniform(50, 300, (2, 50, 3))
    detected[rng.random(50) < 0.7] = np.nan
    anchored[rng.random(50) < 0.1] = np.nan
    boxes, states, _ = resolve(times_s, detected, anchored, np.ones(50), 0.25)
    both = [i for i in range(50) if not np.isnan(detected[i, 0] + anchored[i, 0])]
    for frame in np.flatnonzero(states == T):
        before = max((i for i in both if i < frame), default=None)
        after = min((i for i in both if i > frame), default=None)
        reach_s = 0.25
        if before is not None and after is not None:
            reach_s = min(reach_s, times_s[after] - times_s[before])
        expected = anchored[frame].copy()
        for near in (before, after):
            if near is not None:
                weight = max(0.0, 1 - abs(times_s[frame] - times_s[near]) / reach_s)
                expected[:2] += weight * (detected[near] - anchored[near])[:2]
                expected[2] *= (detected[near, 2] / anchored[near, 2]) ** weight
        assert boxes[frame] == pytest.approx(expected)


def test_nothing_is_made_up_before_the_first_and_after_the_last_box() -> None:
    _, states, _ = run(without(line(6), 0, 5))
    assert states.tolist() == [M, D, D, D, D, M]


def test_smoothing_follows_an_even_movement_without_lag() -> None:
    times_s = np.arange(30) / 25
    smooth = np.array([smooth_at(f, times_s, line(30), BoxConfig(centre_smoothing_s=0.1)) for f in range(30)])
    assert smooth == pytest.approx(line(30))


def test_smoothing_takes_jitter_away() -> None:
    rng = np.random.default_rng(0)
    times_s = np.arange(200) / 25
    noisy = line(200) + rng.normal(0, 3, (200, 3))
    config = BoxConfig()
    smooth = np.array([smooth_at(f, times_s, noisy, config) for f in range(200)])
    error_before, error_after = (np.abs(boxes - line(200)).mean(axis=0) for boxes in (noisy, smooth))
    assert (error_after < 0.85 * error_before).all()
    assert error_after[2] < 0.55 * error_before[2]


def test_smoothing_stops_at_a_break() -> None:
    boxes = line(9)
    boxes[4] = np.nan
    boxes[5:] += 300
    times_s = np.arange(9) / 25
    smooth = smooth_at(5, times_s, boxes, BoxConfig(centre_smoothing_s=0.2))
    assert smooth == pytest.approx(boxes[5])


def test_smoothing_can_be_off() -> None:
    boxes = np.random.default_rng(0).uniform(10, 90, (9, 3))
    config = BoxConfig(centre_smoothing_s=0, size_smoothing_s=0)
    assert smooth_at(4, np.arange(9) / 25, boxes, config).tolist() == boxes[4].tolist()


def test_a_box_centred_outside_the_frame_is_missing() -> None:
    boxes = np.stack([np.stack([[-1.0, 5, 9], [1, 5, 9], [5, 481, 9]])])  # (W=1, S, 3)
    window = Window(np.zeros(1), boxes, np.full_like(boxes, np.nan), np.zeros((1, 3)))
    (result,) = boxes_of(range(1), window, SIZE, BoxConfig())
    assert result.state.tolist() == [M, D, M]
    assert np.isnan(result.box[[0, 2]]).all()
    assert result.confidence.tolist() == [0, 1, 0]


def test_a_box_that_no_detector_vouches_for_must_lie_mostly_within_the_frame() -> None:
    at_rim, inside = [320.0, 470.0, 100.0], [320.0, 440.0, 100.0]  # 60 % and 90 % within 480 rows
    boxes = np.array([[at_rim, at_rim, inside]])
    none = np.full_like(boxes, np.nan)
    state = {}
    for name, detected, anchored in (("detected", boxes, none), ("tracked", none, boxes)):
        (result,) = boxes_of(range(1), Window(np.zeros(1), detected, anchored, np.ones((1, 3))), SIZE, BoxConfig())
        state[name] = result.state.tolist()
    assert state == {"detected": [D, D, D], "tracked": [M, M, T]}


def random_video(seed: int) -> tuple[np.ndarray, list[Observation]]:
    """Times of a variable rate, and observations with gaps of all lengths."""
    rng = np.random.default_rng(seed)
    num_frames = 120
    times_s = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 25, 0.12], num_frames))
    observations = []
    is_seen = np.ones((2, NUM_STREAMS), bool)
    for _ in range(num_frames):
        is_seen ^= rng.random((2, NUM_STREAMS)) < 0.15
        detected, anchored = rng.uniform(0, 480, (2, NUM_STREAMS, 3))
        detected[~is_seen[0]], anchored[~is_seen[1]] = np.nan, np.nan
        observations.append(Observation(detected, anchored, is_seen[1] * rng.uniform(0.5, 1, NUM_STREAMS)))
    return times_s, observations


def streamed(
    times_s: np.ndarray, observations: list[Observation], config: BoxConfig, max_waiting: int = 10_000
) -> tuple[list[FrameBoxes], int]:
    builder = TrackBuilder(*SIZE, config, max_waiting)
    result, most_waiting = [], 0
    for time_s, observation in zip(times_s, observations, strict=True):
        result += builder.add(time_s, observation)
        most_waiting = max(most_waiting, builder.num_waiting)
    return result + builder.finish(), most_waiting


@pytest.mark.parametrize("seed", range(6))
def test_streaming_equals_the_whole_video_at_once(seed: int) -> None:
    times_s, observations = random_video(seed)
    config = BoxConfig(max_gap_s=[0.0, 0.1, 0.25][seed % 3], size_smoothing_s=[0.1, 0.0][seed % 2])
    result, most_waiting = streamed(times_s, observations, config)
    whole = Window(times_s, *(np.array(part) for part in zip(*observations, strict=True)))
    at_once = boxes_of(range(len(times_s)), whole, SIZE, config)
    for got, expected in zip(result, at_once, strict=True):
        np.testing.assert_allclose(got.box, expected.box, rtol=1e-9)
        assert got.state.tolist() == expected.state.tolist()
        assert got.confidence.tolist() == expected.confidence.tolist()
    assert most_waiting <= (2 * 0.25 + 0.2) * 60 + 2 + BLOCK_FRAMES  # held back by time, however long the video is


def test_when_memory_is_short_boxes_come_early_and_none_is_lost() -> None:
    times_s, observations = random_video(0)
    for max_waiting in (1, 2, 7):
        result, most_waiting = streamed(times_s, observations, BoxConfig(), max_waiting)
        assert len(result) == len(times_s)
        assert most_waiting <= max_waiting
