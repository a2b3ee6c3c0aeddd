"""Batches: buckets, padding, augmentation, and the plan of a run: every clip once per epoch, by similar length."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.integrate.batches import BatchPlan, Sample, augment, batches_by_length, bucketed_batches, collate
from signstreams.integrate.nodes import NUM_NODES
from signstreams.integrate.settings import AugmentationConfig

STILL = AugmentationConfig(scale=0, rotate_deg=0, translate=0, time_scale=[1, 1])


def sample(num_frames: int = 10) -> Sample:
    nodes = np.random.default_rng(0).uniform(0.1, 1, (num_frames, NUM_NODES, 3)).astype(np.float32)
    nodes[2, 5] = 0.0
    count = np.arange(num_frames)
    return Sample(
        "a",
        nodes,
        np.repeat(count[:, None], 21, axis=1).astype(np.float32),
        {"face": count % 2 == 0, "pose": count >= 0},
        {"face": [None] * num_frames},
        {"face": count[:, None].astype(np.float16)},
        tokens=[5, 1],
    )


def test_every_clip_is_once_in_an_epoch_and_epochs_differ() -> None:
    lengths = np.random.default_rng(0).integers(5, 50, 101).tolist()
    first, second = (bucketed_batches(lengths, 8, np.random.default_rng(seed)) for seed in (1, 2))
    assert sorted(row for batch in first for row in batch) == list(range(101))
    assert len(first) == len(second) == 13
    assert first != second
    assert first == bucketed_batches(lengths, 8, np.random.default_rng(1))


def test_buckets_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 256).tolist()

    def padded(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)

    order = np.random.default_rng(1).permutation(256).tolist()
    plain = [order[i : i + 8] for i in range(0, 256, 8)]
    assert padded(bucketed_batches(lengths, 8, np.random.default_rng(1))) < 0.75 * padded(plain)
    assert padded(batches_by_length(lengths, 8)) <= padded(bucketed_batches(lengths, 8, np.random.default_rng(1)))


def test_padding_is_absent_and_zero() -> None:
    batch = collate([sample(4), sample(10)])
    assert batch.lengths.tolist() == batch.num_frames == [4, 10]
    assert (batch.num_steps, batch.num_tokens) == ([1, 3], 4)
    assert batch.nodes.shape == (2, 10, NUM_NODES, 3)
    assert not batch.nodes[0, 4:].any() and not batch.features["face"][0, 4:].any()
    assert not batch.present["face"][0, 4:].any() and not batch.present["pose"][0, 4:].any()
    assert batch.tokens.tolist() == [[5, 1], [5, 1]]


def test_no_augmentation_is_the_identity() -> None:
    out = augment(sample(), STILL, np.random.default_rng(0))
    np.testing.assert_allclose(out.nodes, sample().nodes, atol=1e-6)


def test_every_clip_has_its_own_draw_and_the_same_seed_the_same() -> None:
    config = AugmentationConfig()
    first, again, other = (augment(sample(), config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.nodes, again.nodes)
    assert first.nodes.shape != other.nodes.shape or not np.allclose(first.nodes, other.nodes)


@pytest.mark.parametrize("change", [{"scale": 0.3}, {"rotate_deg": 20}, {"translate": 0.3}])
def test_each_change_moves_present_joints_and_leaves_missing_ones_and_confidences(change: dict[str, float]) -> None:
    before = sample()
    after = augment(before, STILL.model_copy(update=change), np.random.default_rng(0))
    assert not after.nodes[2, 5].any()
    np.testing.assert_array_equal(after.nodes[..., 2], before.nodes[..., 2])
    assert np.abs(after.nodes[..., :2] - before.nodes[..., :2]).max() > 0.01


def test_a_turn_keeps_distances() -> None:
    after = augment(sample(), STILL.model_copy(update={"rotate_deg": 40.0}), np.random.default_rng(3)).nodes
    before = sample().nodes
    lengths = [np.linalg.norm(nodes[0, 0, :2] - nodes[0, 1, :2]) for nodes in (before, after)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_time_is_resampled_in_all_streams_together(factor: float) -> None:
    config = STILL.model_copy(update={"time_scale": [factor, factor]})
    out = augment(sample(), config, np.random.default_rng(0))
    assert out.num_frames == round(10 * factor)
    frames = out.pose[:, 0].astype(int)
    assert (np.diff(frames) >= 0).all()
    np.testing.assert_array_equal(out.features["face"][:, 0].astype(int), frames)
    np.testing.assert_array_equal(out.present["face"], frames % 2 == 0)
    np.testing.assert_allclose(out.nodes, sample().nodes[frames], atol=1e-6)
    assert len(out.crops["face"]) == out.num_frames


def frames_of(clip: Sample) -> list[int]:
    """The frames that an augmented `sample` was made of, of which all streams tell."""
    frames = clip.pose[:, 0].astype(int)
    np.testing.assert_array_equal(clip.features["face"][:, 0].astype(int), frames)
    np.testing.assert_array_equal(clip.present["face"], frames % 2 == 0)
    assert len(clip.crops["face"]) == len(clip.nodes) == len(frames)
    return frames.tolist()


def test_random_frames_are_a_subset_or_all_and_some_twice_in_their_order() -> None:
    seen = set()
    for factor in (0.5, 1.0, 1.5):
        config = STILL.model_copy(update={"frame_sampling": "random", "time_scale": [factor, factor]})
        for seed in range(20):
            frames = frames_of(augment(sample(20), config, np.random.default_rng(seed)))
            assert len(frames) == round(20 * factor) and frames == sorted(frames)
            assert frames == frames_of(augment(sample(20), config, np.random.default_rng(seed)))
            unique = set(frames)
            assert len(unique) == len(frames) if factor <= 1 else unique == set(range(20))
            seen.add(tuple(frames))
    assert len(seen) > 35  # 20 of each factor but 1, and that once


def test_a_long_clip_gets_lengths_up_to_the_longest_and_the_whole_clip_is_drawn_from() -> None:
    config = STILL.model_copy(update={"frame_sampling": "random", "time_scale": [0.5, 1.5]})
    drawn = [frames_of(augment(sample(60), config, np.random.default_rng(seed), most_frames=40)) for seed in range(300)]
    lengths = [len(frames) for frames in drawn]
    assert (min(lengths), max(lengths)) == (30, 40) and len(set(lengths)) == 11  # half of 60 to 40
    assert {frame for frames in drawn for frame in frames} == set(range(60))
    long = [augment(sample(200), config, np.random.default_rng(seed), most_frames=40).num_frames for seed in range(9)]
    assert set(long) == {40}
    even = STILL.model_copy(update={"time_scale": [1, 1]})
    assert frames_of(augment(sample(60), even, np.random.default_rng(0), most_frames=20)) == list(range(1, 60, 3))


def test_a_limit_that_no_clip_reaches_changes_no_draw() -> None:
    config = AugmentationConfig()
    plain, limited = (augment(sample(), config, np.random.default_rng(3), most_frames=most) for most in (None, 12))
    np.testing.assert_array_equal(plain.nodes, limited.nodes)


def test_a_clip_is_turned_with_the_probability_that_is_asked_for_and_the_rest_of_the_draws_stays() -> None:
    before, turning = sample().nodes, {"rotate_deg": 30.0}
    always = STILL.model_copy(update=turning)
    half, never = (always.model_copy(update={"rotate_prob": share}) for share in (0.5, 0.0))
    num_turned = 0
    for seed in range(200):
        turned, found = (augment(sample(), config, np.random.default_rng(seed)).nodes for config in (always, half))
        is_turned = bool(np.abs(found - before).max() > 1e-5)
        num_turned += is_turned
        np.testing.assert_allclose(found, turned if is_turned else before, atol=1e-6)
    assert 70 < num_turned < 130
    np.testing.assert_allclose(augment(sample(), never, np.random.default_rng(0)).nodes, before, atol=1e-6)


# a clip as the version before rotate_prob and frame_sampling augmented it
RECORDED_FRAMES, RECORDED_NODE = 43, [0.21113009750843048, 0.7922308444976807, 0.7689696550369263]


def test_by_default_the_draws_are_those_of_before() -> None:
    out = augment(sample(50), AugmentationConfig(), np.random.default_rng(11))
    assert out.num_frames == RECORDED_FRAMES
    np.testing.assert_allclose(out.nodes[7, 3], RECORDED_NODE, rtol=1e-5)


def test_every_clip_is_in_one_part_of_one_step_of_an_epoch() -> None:
    lengths = [5, 9, 30, 31, 8, 7, 6, 29, 28, 10, 4]
    plan = BatchPlan(lengths, batch_size=2, num_parts=2, seed=0)
    assert plan.steps_per_epoch == 3
    for epoch in range(3):
        steps = range(epoch * 3, epoch * 3 + 3)
        parts = [plan.rows(step, part) for step in steps for part in range(2)]
        assert sorted(row for rows in parts for row in rows) == list(range(11))
        assert all(len(rows) <= 2 for rows in parts)
    joint = [[*plan.rows(step, 0), *plan.rows(step, 1)] for step in range(3)]
    spreads = [max(lengths[row] for row in rows) - min(lengths[row] for row in rows) for rows in joint]
    assert sorted(spreads)[0] <= 3  # like lengths together


def test_a_part_without_clips_counts_for_nothing() -> None:
    plan = BatchPlan([5, 6, 7], batch_size=2, num_parts=4, seed=0)
    assert sorted(len(plan.rows(0, part)) for part in range(4)) == [0, 1, 1, 1]


def test_the_order_follows_the_seed_and_the_epoch_alone() -> None:
    lengths = list(range(40))
    plans = [BatchPlan(lengths, batch_size=4, num_parts=2, seed=seed) for seed in (0, 0, 1)]
    first, again, other = ([plan.rows(step, 1) for step in range(10)] for plan in plans)
    assert first == again != other
    assert first[:5] != first[5:]  # two epochs
    assert plans[0].rows(2, 1) == first[2]  # back in the first one
    assert [plans[0].epoch(step) for step in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 2]
