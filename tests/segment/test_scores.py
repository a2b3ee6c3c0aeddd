"""Scores of found sentences: pairs within the tolerance, one to one."""

from __future__ import annotations

import itertools
import random

import pytest

from signstreams.segment.scores import Matches, SegmentScores, match_boundaries, match_sentences


def most_pairs(ours: list[float], theirs: list[float], tolerance_s: float) -> int:
    """The largest one-to-one pairing, by trying all."""
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    return max(
        sum(abs(a - b) <= tolerance_s for a, b in zip(ours, chosen, strict=True))
        for chosen in itertools.permutations(theirs, len(ours))
    )


@pytest.mark.parametrize("seed", range(20))
def test_as_many_boundaries_are_paired_as_can_be(seed: int) -> None:
    rng = random.Random(seed)
    spans = [
        [(at, at + rng.uniform(0.2, 1)) for at in sorted(rng.uniform(0, 3) for _ in range(rng.randint(0, 5)))]
        for _ in range(2)
    ]
    found, true = spans
    expected = sum(most_pairs([s[side] for s in found], [s[side] for s in true], 0.3) for side in (0, 1))
    assert match_boundaries(found, true, 0.3).num_matched == expected


def test_a_start_is_not_paired_with_an_end() -> None:
    assert match_boundaries([(1.0, 2.0)], [(2.0, 3.0)], 0.5) == Matches(0, 2, 2)
    assert match_boundaries([(1.0, 2.0)], [(1.2, 2.5)], 0.2) == Matches(1, 2, 2)


def test_sentences_count_by_overlap_over_union() -> None:
    true = [(0.0, 2.0), (3.0, 5.0)]
    assert match_sentences([(0.0, 1.0), (3.9, 5.0)], true) == Matches(2, 2, 2)
    assert match_sentences([(0.0, 0.9), (4.1, 5.0)], true) == Matches(0, 2, 2)
    assert match_sentences([(0.0, 5.0)], true) == Matches(0, 1, 2)


def test_scores_are_over_all_videos() -> None:
    scores = SegmentScores().adding([(0, 1)], [(0, 1)]).adding([], [(5, 6), (7, 8)]).adding([(1, 2)], [])
    assert scores.sentences == Matches(1, 2, 3)
    assert scores.as_dict()["boundary_f1_0.2s"] == round(2 * 2 / (4 + 6), 4)
    assert SegmentScores().as_dict()["sentence_f1_iou_0.5"] == 1.0
