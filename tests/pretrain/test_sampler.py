"""Batches that spread over the videos, the frames and the signers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from signstreams.pretrain.sampler import BatchPlan, CropGroups, pass_order, too_close


def _groups(*counts: int, signers: list[int] | None = None) -> CropGroups:
    """Videos of so many frames each."""
    video = np.repeat(np.arange(len(counts)), counts)
    frame = np.concatenate([np.arange(count) for count in counts])
    return CropGroups.of(video, frame, None if signers is None else np.array(signers)[video])


def _gaps(batch: np.ndarray, groups: CropGroups) -> list[int]:
    """Distances of all pairs of frames of one video in a batch."""
    pairs = itertools.combinations(batch, 2)
    return [abs(int(groups.frame[a]) - int(groups.frame[b])) for a, b in pairs if groups.video[a] == groups.video[b]]


def test_a_pass_sees_every_crop_once_and_another_pass_in_another_order() -> None:
    groups = _groups(50, 7, 43)
    orders = [pass_order(groups, 3, number) for number in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(100))
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_groups_come_in_any_order() -> None:
    groups = CropGroups.of(np.array([9, 4, 9, 4]), np.array([5, 8, 3, 7]))
    assert groups.order.tolist() == [3, 1, 2, 0]
    assert (groups.starts.tolist(), groups.counts.tolist()) == ([0, 2], [2, 2])


def test_near_duplicates_do_not_meet_in_a_batch() -> None:
    """16 videos of 100 frames in batches of 32: two frames of a video a batch, and those far apart."""
    groups = _groups(*[100] * 16)
    for number in range(3):
        for batch in pass_order(groups, 0, number)[:1600].reshape(50, 32):
            assert np.bincount(groups.video[batch], minlength=16).max() <= 4
            assert min(_gaps(batch, groups), default=99) >= 10


def test_spreading_alone_leaves_near_duplicates_where_videos_are_few_and_exchange_does_not() -> None:
    groups = _groups(120, 90, 60)
    apart = BatchPlan(groups, batch_size=14, world_size=1, seed=0, min_gap_frames=None)
    left = BatchPlan(groups, batch_size=14, world_size=1, seed=0, min_gap_frames=0)
    found = {}
    for name, plan in (("apart", apart), ("left", left)):
        orders = [plan.order(number) for number in range(5)]
        assert all(sorted(order) == list(range(270)) for order in orders)
        found[name] = sum(len(too_close(order, groups, 14, 10)) for order in orders)
    assert found["left"] > 20
    assert found["apart"] == 0


def test_what_is_too_close_is_what_all_pairs_say() -> None:
    groups, rng = _groups(30, 30), np.random.default_rng(0)
    for _ in range(20):
        order = rng.permutation(60)
        batches = order[:56].reshape(4, 14)
        slow = [any(gap < 3 for gap in _gaps(batch, groups)) for batch in batches]
        fast = np.isin(np.arange(4), too_close(order, groups, 14, 3) // 14)
        assert slow == fast.tolist()


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_gap_that_is_asked_for_is_kept(balance: float) -> None:
    """Where nothing but leaving crops out helps: 40 frames hold a batch of 6 with 5 frames between."""
    groups = _groups(40, 4, 3)
    plan = BatchPlan(groups, batch_size=3, world_size=2, seed=1, min_gap_frames=5, balance=balance)
    assert plan._room(5) == 7
    for number in range(20):
        order = plan.order(number)
        assert len(order) == 47
        assert min(min(_gaps(batch, groups), default=99) for batch in order[:42].reshape(7, 6)) >= 5
    with pytest.raises(ValueError, match="guaranteed for 7 crops of 3 videos, and a batch has 8"):
        BatchPlan(groups, batch_size=8, world_size=1, seed=0, min_gap_frames=5)


def test_balance_gives_rare_signers_their_share() -> None:
    """Signer 0 has two videos with 900 crops, signer 1 one with 100: seen 9 to 1, 3 to 1 or equally often."""
    groups = _groups(600, 300, 100, signers=[0, 0, 1])
    shares = {}
    for balance in (0.0, 0.5, 1.0):
        orders = [pass_order(groups, 0, number, balance) for number in range(8)]
        assert {len(order) for order in orders} == {1000}
        seen = np.bincount(np.concatenate(orders), minlength=1000)
        shares[balance] = seen[900:].sum() / seen.sum()
        assert seen.min() > 0  # every crop has its turn, in some pass
        assert seen[900:].max() - seen[900:].min() <= 8  # those of a signer alike
        assert abs(seen[:600].sum() / seen[600:900].sum() - 2) < 0.05
    assert shares[0.0] == pytest.approx(0.1)
    assert shares[0.5] == pytest.approx(0.25, abs=0.002)
    assert shares[1.0] == pytest.approx(0.5, abs=0.002)


def test_two_ranks_see_the_batch_of_one() -> None:
    groups = CropGroups.of(np.array([1, 0, 1, 0, 2, 2, 0, 1] * 4), np.arange(32))
    joint = BatchPlan(groups, batch_size=8, world_size=1, seed=0)
    split = BatchPlan(groups, batch_size=4, world_size=2, seed=0)
    parts = zip(split.batches(0, 0, 9), split.batches(1, 0, 9), strict=True)
    assert [a + b for a, b in parts] == list(joint.batches(0, 0, 9))


def test_a_plan_goes_on_from_any_step() -> None:
    plan = BatchPlan(_groups(20, 10), batch_size=4, world_size=1, seed=0)
    whole = list(plan.batches(0, 0, 20))
    assert list(plan.batches(0, 9, 20)) == whole[9:]
    with pytest.raises(ValueError, match="30 crops do not fill a batch of 40"):
        BatchPlan(plan.groups, batch_size=40, world_size=1, seed=0)


def test_a_pass_is_planned_once_however_many_epochs_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []
    original = BatchPlan.order

    def count(self: BatchPlan, number: int) -> np.ndarray:
        planned.append(number)
        return original(self, number)

    monkeypatch.setattr(BatchPlan, "order", count)
    plan, straight = (BatchPlan(_groups(40, 40), batch_size=8, world_size=1, seed=0) for _ in range(2))
    by_epochs = [batch for start in range(0, 24, 3) for batch in plan.batches(0, start, start + 3)]
    assert planned == [0, 1, 2]  # 24 steps of 8 crops: two passes and a part
    assert by_epochs == list(straight.batches(0, 0, 24))
    assert list(plan.batches(0, 2, 4)) == by_epochs[2:4]  # and back
