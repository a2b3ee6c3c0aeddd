"""Signing against rest: wrists that rise, sign and sink, wherever they rest; and long sentences are cut."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.array_types import Floats
from signstreams.segment.activity import (
    ELBOWS,
    MAX_SENTENCE_S,
    SPACE_UNITS,
    WRISTS,
    RestPlaces,
    cut_at_stillest,
    hand_activity,
    joined,
    runs,
    sentences_of,
)
from signstreams.segment.scores import SegmentScores, Span

FPS = 25.0


def signing(sentences: list[Span], length_s: float, rest: tuple[float, float], seed: int = 0) -> tuple[Floats, Floats]:
    """Pose (T, 7, 3) and times (T,): the right hand rises from ``rest``, moves in the sentences, and sinks again."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(length_s * FPS)) / FPS
    pose = np.full((len(times_s), 7, 3), (0.5, 0.5, 1.0))
    for hand, wrist in enumerate(WRISTS):
        place = np.tile(rest, (len(times_s), 1)) + rng.normal(0, 0.02, (len(times_s), 2))
        if hand == 1:
            for start_s, end_s in sentences:
                inside = (start_s <= times_s) & (times_s < end_s)
                share = np.minimum((times_s - start_s), (end_s - times_s)).clip(0, 0.3)[inside] / 0.3  # rises, sinks
                moving = np.stack([np.sin(5 * times_s), np.cos(4 * times_s) - 1.5], axis=-1)[inside]
                place[inside] += share[:, None] * moving
        pose[:, wrist, :2] = place / SPACE_UNITS
    return pose, times_s


TRUE = [(1.0, 3.0), (3.6, 6.0), (7.5, 9.0), (9.4, 13.0)]


@pytest.mark.parametrize("rest", [(2.0, 4.2), (3.0, 5.8), (4.0, 6.9)])
def test_sentences_between_rests_are_found_wherever_the_hands_rest(rest: tuple[float, float]) -> None:
    pose, times_s = signing(TRUE, 15.0, rest)
    found = sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s)
    scores = SegmentScores().adding(found, TRUE).as_dict()
    assert scores["boundary_f1_0.2s"] == 1.0
    assert scores["sentence_f1_iou_0.5"] == 1.0


def test_a_longer_pause_joins_sentences() -> None:
    pose, times_s = signing(TRUE, 15.0, (3.0, 5.8))
    activity = hand_activity(pose, times_s, RestPlaces())
    found = sentences_of(activity, times_s, pause_s=1.0)
    assert [start_s for start_s, _ in found] == pytest.approx([1.0, 7.5], abs=0.2)


def test_a_hand_held_away_from_its_rest_signs_and_one_out_of_the_picture_rests() -> None:
    pose, times_s = signing([], 10.0, (3.0, 5.8))
    held = (times_s >= 4) & (times_s < 5)
    pose[held, WRISTS[1], :2] = np.array((2.0, 2.5)) / SPACE_UNITS
    pose[times_s >= 7, WRISTS[1]] = (-1, -1, 0)
    found = sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s)
    (span,) = found
    assert span == pytest.approx((4.0, 5.0), abs=0.2)


def test_a_hold_in_the_air_is_no_rest_even_where_it_is_the_longest_stillness_of_a_short_video() -> None:
    pose, times_s = signing([(0.4, 2.6)], 3.0, (3.0, 5.8))
    held = (times_s >= 1.1) & (times_s < 1.9)
    pose[held, WRISTS[1], :2] = np.array((2.5, 2.5)) / SPACE_UNITS  # above the elbow, at 3.5
    pose[:, WRISTS[0]] = (-1, -1, 0)  # of a hand out of the picture nothing is learned
    (span,) = sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s)
    assert span == pytest.approx((0.4, 2.6), abs=0.2)


def test_hands_that_sink_to_another_place_each_time_rest_there() -> None:
    pose, times_s = signing(TRUE, 15.0, (3.0, 5.8))
    edges = [0.0, *(edge for span in TRUE for edge in span), 15.0]
    for number, (start_s, end_s) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
        outside = (start_s <= times_s) & (times_s < end_s)
        pose[outside, WRISTS[1], :2] += np.array((0.6, -0.4)) * (number - 2) / SPACE_UNITS  # 0.7 units apart: 13 cm
    scores = SegmentScores().adding(sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s), TRUE).as_dict()
    assert scores["sentence_f1_iou_0.5"] > 0.8, scores  # the shortest rest, of 0.4 s, may be missed


def test_where_the_elbow_is_not_seen_a_hand_that_is_held_still_is_not_taken_for_low() -> None:
    pose, times_s = signing([], 10.0, (3.0, 5.8))
    held = (times_s >= 4) & (times_s < 5)
    pose[held, WRISTS[1], :2] = np.array((2.0, 2.5)) / SPACE_UNITS
    pose[:, ELBOWS] = (-1, -1, 0)
    (span,) = sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s)
    assert span == pytest.approx((4.0, 5.0), abs=0.2)


def test_hands_clasped_high_for_long_are_at_rest_all_the_same() -> None:
    pose, times_s = signing([(8.0, 9.5), (18.0, 20.0)], 30.0, (3.0, 3.3))  # a rest above the elbows, at 3.5
    found = sentences_of(hand_activity(pose, times_s, RestPlaces()), times_s)
    assert [round(start_s) for start_s, _ in found] == [8, 18]


def test_nobody_and_nothing_give_no_sentence() -> None:
    times_s = np.arange(50) / FPS
    nobody = np.tile(np.array((-1.0, -1.0, 0.0)), (50, 7, 1))
    assert sentences_of(hand_activity(nobody, times_s, RestPlaces()), times_s) == []
    assert sentences_of(hand_activity(nobody[:0], times_s[:0], RestPlaces()), times_s[:0]) == []
    assert sentences_of(hand_activity(nobody[:1], times_s[:1], RestPlaces()), times_s[:1]) == []


def test_a_rest_learned_before_is_known_in_a_part_without_rests() -> None:
    rest = RestPlaces()
    hand_activity(*signing(TRUE, 15.0, (3.0, 5.8)), rest)
    pose, times_s = signing([(0.0, 3.0)], 3.2, (3.0, 5.8), seed=1)
    (span,) = sentences_of(hand_activity(pose, times_s, rest), times_s)
    assert span == pytest.approx((0.0, 3.0), abs=0.2)


def test_a_sentence_that_is_too_long_is_cut_where_the_hands_are_stillest() -> None:
    times_s = np.arange(round(50 * FPS)) / FPS
    activity = np.full(len(times_s), 2.0)
    activity[round(17 * FPS)] = 1.2
    activity[round(32 * FPS)] = 1.1
    parts = cut_at_stillest((0.0, 50.0), activity, times_s)
    assert [start_s for start_s, _ in parts] == pytest.approx([0.0, 17.0, 32.0], abs=0.1)
    assert max(end_s - start_s for start_s, end_s in parts) <= MAX_SENTENCE_S
    assert parts[0][1] == parts[1][0] and parts[-1][1] == 50.0


def test_runs_end_with_their_frame_and_do_not_span_a_gap_in_time() -> None:
    times_s = np.array([0.0, 0.04, 0.08, 5.0, 5.04])
    assert runs(np.array([True, True, True, False, True]), times_s) == [(0.0, pytest.approx(0.14)), (5.04, 5.08)]
    assert joined([(0, 1), (1.1, 2), (3, 4)], 0.2) == [(0, 2), (3, 4)]
