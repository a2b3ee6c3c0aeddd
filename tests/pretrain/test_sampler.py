"""Batches that spread over the videos, the frames and the signers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from signstreams.pretrain.sampler import BatchPlan, group_by_video, pass_order


def test_a_pass_sees_every_crop_once_and_another_pass_in_another_order() -> None:
    videos = [np.arange(0, 50), np.arange(50, 57), np.arange(57, 100)]
    orders = [pass_order(videos, 3, number) for number in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(100))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_near_duplicates_do_not_meet_in_a_batch() -> None:
    """16 videos of 100 frames in batches of 32: two frames of a video a batch, and those far apart."""
    videos = [np.arange(100 * v, 100 * (v + 1)) for v in range(16)]
    for number in range(3):
        order = pass_order(videos, 0, number)
        for batch in order[:1600].reshape(50, 32):
            counts = np.bincount(batch // 100, minlength=16)
            assert counts.max() <= 4
            gaps = [abs(a - b) for v in range(16) for a, b in itertools.combinations(batch[batch // 100 == v] % 100, 2)]
            assert min(gaps, default=99) >= 10


def test_two_ranks_see_the_batch_of_one() -> None:
    videos = group_by_video(["b", "a", "b", "a", "c", "c", "a", "b"] * 4)
    joint = BatchPlan(videos, batch_size=8, world_size=1, seed=0)
    split = BatchPlan(videos, batch_size=4, world_size=2, seed=0)
    parts = zip(split.batches(0, 0, 9), split.batches(1, 0, 9), strict=True)
    assert [a + b for a, b in parts] == list(joint.batches(0, 0, 9))


def test_a_plan_goes_on_from_any_step() -> None:
    plan = BatchPlan([np.arange(20), np.arange(20, 30)], batch_size=4, world_size=1, seed=0)
    whole = list(plan.batches(0, 0, 20))
    assert list(plan.batches(0, 9, 20)) == whole[9:]
    with pytest.raises(ValueError, match="30 crops do not fill a batch of 40"):
        BatchPlan(plan.videos, batch_size=40, world_size=1, seed=0)
