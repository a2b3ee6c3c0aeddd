"""Frames by timestamp, against a slow readable version."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from signstreams.extract.frame_source import Gap, Timed, sample_at_rate, sample_every


def constant(num_frames: int, fps: float) -> list[Timed]:
    return [Timed(index / fps, 1 / fps, index) for index in range(num_frames)]


def slow(frames: list[Timed], fps: float, source_fps: float) -> list[object]:
    """Every output time asks all frames."""
    early_s = 0.5 / max(fps, source_fps)
    end_s = frames[-1].time_s + frames[-1].duration_s
    shown = []
    while not shown or frames[0].time_s + len(shown) / fps < end_s - 1e-3 / fps:
        time_s = frames[0].time_s + len(shown) / fps
        shown.append([f.payload for f in frames if f.time_s <= time_s + early_s][-1])
    return shown


def test_thirty_to_twenty_five_gives_twenty_five() -> None:
    sampled = list(sample_at_rate(constant(60, 30), 25, 30))
    assert len(sampled) == 50
    assert [s.time_s for s in sampled] == pytest.approx([k / 25 for k in range(50)])
    assert len({s.payload for s in sampled}) == 50


def test_a_constant_rate_takes_the_nearest_frame() -> None:
    for sampled in sample_at_rate(constant(300, 30), 25, 30):
        assert abs(sampled.payload / 30 - sampled.time_s) <= 0.5 / 30 + 1e-9


def test_the_sources_own_rate_shows_every_frame_once_although_timestamps_are_rounded() -> None:
    fps = 30_000 / 1001
    frames = [Timed(round(index / fps, 3), 0.033, index) for index in range(300)]
    sampled = list(sample_at_rate(frames, fps, fps))
    assert [s.payload for s in sampled] == list(range(300))
    assert not any(s.is_repeat for s in sampled)


def test_a_slower_source_repeats_frames_and_says_so() -> None:
    sampled = list(sample_at_rate(constant(4, 10), 30, 10))
    assert len(sampled) == 12
    assert [s.payload for s in sampled if not s.is_repeat] == [0, 1, 2, 3]


def test_every_frame_keeps_its_own_time() -> None:
    frames = [Timed(0.5, 0.1, "a"), Timed(0.61, 0.1, "b")]
    assert [(s.time_s, s.payload, s.is_repeat) for s in sample_every(frames)] == [(0.5, "a", False), (0.61, "b", False)]


def test_one_frame_without_duration_is_one_frame() -> None:
    assert [s.payload for s in sample_at_rate([Timed(0.0, 0.0, "a")], 25, 0)] == ["a"]
    assert list(sample_at_rate([], 25, 0)) == []


@pytest.mark.parametrize("seed", range(20))
def test_variable_rates_agree_with_the_slow_version(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps_s = rng.choice([0.01, 0.033, 0.04, 0.2, 1.1], size=40)
    times_s = 3.3 + np.cumsum(steps_s)
    frames = [Timed(float(t), 0.04, index) for index, t in enumerate(times_s)]
    fps, source_fps = float(rng.choice([5, 24, 25, 29.97, 60])), float(1 / steps_s.mean())
    sampled = list(sample_at_rate(frames, fps, source_fps))
    assert [s.payload for s in sampled] == slow(frames, fps, source_fps)
    repeats = [after.payload == before.payload for before, after in pairwise(sampled)]
    assert [s.is_repeat for s in sampled] == [False, *repeats]


DAY_S = 86_400.0


@pytest.mark.parametrize("fps", [5, 25, 29.97])
@pytest.mark.parametrize("gap_s", [12.1, 3600.0, DAY_S])
def test_a_long_gap_is_not_filled_and_is_told(fps: float, gap_s: float) -> None:
    before, after = constant(60, 30), constant(60, 30)
    frames = before + [Timed(f.time_s + gap_s, f.duration_s, f.payload + 60) for f in after]
    gaps: list[Gap] = []
    sampled = list(sample_at_rate(frames, fps, 30, gaps))
    assert len(sampled) == pytest.approx(4 * fps, abs=3)
    assert [(gap.start_s, gap.end_s) for gap in gaps] == [(before[-1].time_s, gap_s)]
    places = [s.time_s * fps for s in sampled]  # the grid stays that of the first frame
    assert places == pytest.approx(np.round(places), abs=1e-4)
    assert all(s.payload < 60 for s in sampled if s.time_s < 3)
    for s in sampled:
        if s.time_s > 3:
            assert abs(frames[s.payload].time_s - s.time_s) <= 0.5 / min(30, fps) + 1e-6


def test_a_gap_of_ten_seconds_is_filled_as_ever() -> None:
    frames = [Timed(0.0, 0.04, 0), Timed(10.0, 0.04, 1)]
    gaps: list[Gap] = []
    assert len(list(sample_at_rate(frames, 25, 25, gaps))) == 251 and not gaps


def test_a_last_frame_that_claims_a_day_is_shown_once() -> None:
    gaps: list[Gap] = []
    sampled = list(sample_at_rate([*constant(3, 25), Timed(0.12, DAY_S, 3)], 25, 25, gaps))
    assert [s.payload for s in sampled] == [0, 1, 2, 3] and len(gaps) == 1
