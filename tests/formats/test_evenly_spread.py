"""Evenly spread places."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from signstreams.formats.crops import evenly_spread, most_different


def test_places_are_in_the_middle_of_their_parts_or_reach_both_ends() -> None:
    assert evenly_spread(3, 12) == [2, 6, 10]
    assert evenly_spread(3, 11, with_ends=True) == [0, 5, 10]
    assert evenly_spread(1, 5) == [2] and evenly_spread(1, 5, with_ends=True) == [0]
    assert evenly_spread(4, 2) == [0, 0, 1, 1]  # fewer places than wanted
    assert evenly_spread(0, 0) == evenly_spread(0, 0, with_ends=True) == []


@pytest.mark.parametrize("with_ends", [False, True])
@pytest.mark.parametrize(("count", "among"), [(7, 7), (7, 100), (100, 12_345_679)])
def test_places_differ_rise_and_keep_their_distance(count: int, among: int, with_ends: bool) -> None:
    places = evenly_spread(count, among, with_ends=with_ends)
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert len(places) == count and places[0] >= 0 and places[-1] < among
    assert min(steps) >= 1 and max(steps) - min(steps) <= 1


def test_different_ones_are_spread_over_signers_then_videos_then_as_far_apart_as_they_are() -> None:
    features = np.array([[0.0], [0.1], [5.0], [9.0], [0.2], [7.0]])
    groups = [("ana", "a"), ("ana", "a"), ("ana", "a"), ("ana", "b"), ("bea", "c"), ("bea", "c")]
    assert most_different(features, groups, 4) == [3, 4, 2, 5]  # the middle; bea; the other video of ana; bea again
    assert sorted(most_different(features, groups, 9)) == [0, 1, 2, 3, 4, 5]
    assert most_different(np.empty((0, 1)), [], 3) == []
