"""What is hidden of a window and what is predicted of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.integrate.batches import Sample
from signstreams.integrate.settings import ModelConfig
from signstreams.sequence.settings import PredictionConfig
from signstreams.sequence.targets import (
    NO_TARGET,
    NODES,
    Clusters,
    descriptors,
    draw_mask,
    find_clusters,
    hidden_targets,
    hide,
    repeated,
    target_streams,
)


def window(seed: int = 0, num_frames: int = 42) -> Sample:
    """Face by a backbone, hands by their nodes, and the pose."""
    rng = np.random.default_rng(seed)
    nodes = rng.normal(size=(num_frames, 79, 3)).astype(np.float32)
    nodes[..., 2] = 1
    return Sample(
        "a",
        nodes,
        rng.normal(size=(num_frames, 21)).astype(np.float32),
        {"face": np.ones(num_frames, bool), "pose": np.ones(num_frames, bool)},
        {},
        {"face": rng.normal(size=(num_frames, 5)).astype(np.float16)},
    )


def test_the_79_nodes_are_shared_out_among_the_streams() -> None:
    assert sorted(np.concatenate(list(NODES.values()))) == list(range(79))
    assert {stream: len(rows) for stream, rows in NODES.items()} == {"face": 26, "hand_l": 21, "hand_r": 21, "pose": 11}


@pytest.mark.parametrize(("ratio", "span"), [(0.5, 2), (0.3, 3), (0.8, 3), (0.05, 1)])
def test_a_mask_is_whole_spans_and_has_its_share_of_the_steps_on_average(ratio: float, span: int) -> None:
    config, rng = PredictionConfig(mask_ratio=ratio, span_steps=span), np.random.default_rng(0)
    masks = np.stack([draw_mask(40, config, rng) for _ in range(400)])
    for mask in masks:
        ends = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(int), [0]))))
        assert len(ends) >= 2 and not ((ends[1::2] - ends[::2]) % span).any()
    assert masks.mean() == pytest.approx(ratio, abs=0.015)
    assert masks.mean(axis=0).min() > 0  # every step is hidden at times


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_a_short_window_hides_something_and_not_more_than_it_has(num_steps: int) -> None:
    mask = draw_mask(num_steps, PredictionConfig(span_steps=3), np.random.default_rng(0))
    assert mask.shape == (num_steps,) and mask.any()


def test_nothing_of_what_is_hidden_is_left_and_all_else_stays() -> None:
    sample, other = window(0), window(1)
    mask = np.zeros(11, bool)  # ceil(42 / 4) steps
    mask[[4, 5]] = True
    hidden = slice(14, 22)  # 4 s - 2 to 4 s + 1
    for stream in ("face", "hand_l", "pose"):
        result = hide(sample, {stream: mask})
        shown = np.setdiff1d(np.arange(79), NODES[stream])
        assert not result.nodes[hidden, NODES[stream]].any()
        assert (result.nodes[:, shown] == sample.nodes[:, shown]).all()
        outside = np.r_[0:14, 22:42]
        assert (result.nodes[outside] == sample.nodes[outside]).all()
        for name, present in result.present.items():
            assert (present == sample.present[name])[outside].all()
            assert present[hidden].any() == (name != stream)
        # another signing there gives the same window: the features of absent frames are ignored by the projections
        nodes = sample.nodes.copy()
        nodes[hidden, NODES[stream]] = other.nodes[hidden, NODES[stream]]
        assert (hide(replace(sample, nodes=nodes), {stream: mask}).nodes == result.nodes).all()
    assert sample.nodes.any(axis=(1, 2)).all()  # the window itself is as it was


def test_a_hand_is_told_by_its_shape_and_the_pose_by_its_place() -> None:
    sample = window()
    moved = sample.nodes.copy()
    moved[..., :2] += 0.25
    there = replace(sample, nodes=moved)
    for stream in ("hand_l", "hand_r"):
        assert np.allclose(descriptors(sample, stream)[0], descriptors(there, stream)[0], atol=1e-5)
        assert descriptors(sample, stream)[0].shape == (11, 42)
    by_nodes = replace(sample, present={}), replace(there, present={})
    assert not np.allclose(descriptors(by_nodes[0], "pose")[0], descriptors(by_nodes[1], "pose")[0])
    assert descriptors(by_nodes[0], "pose")[0].shape == (11, 22) and descriptors(sample, "pose")[0].shape == (11, 14)
    assert (descriptors(sample, "face")[0] == sample.features["face"][::4]).all()  # its backbone's features


def test_a_step_of_a_missing_stream_has_no_target() -> None:
    sample = window()
    sample.nodes[8, NODES["hand_l"]] = 0  # step 2
    sample.present["face"][12] = False  # step 3
    clusters = Clusters({"hand_l": np.zeros((1, 42), np.float32), "face": np.zeros((1, 5), np.float32)}, {})
    labels = clusters.labels(sample)
    assert np.flatnonzero(labels["hand_l"] == NO_TARGET).tolist() == [2]
    assert np.flatnonzero(labels["face"] == NO_TARGET).tolist() == [3]
    mask = np.zeros(11, bool)
    mask[1:4] = True
    targets = hidden_targets(labels, {"hand_l": mask, "face": mask})
    assert np.flatnonzero(targets["hand_l"] != NO_TARGET).tolist() == [1, 3]


def test_repeating_takes_the_nearest_step_that_is_seen_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels, mask = rng.integers(0, 5, 12), rng.random(12) < 0.6
        labels[rng.random(12) < 0.2] = NO_TARGET
        seen = [step for step in range(12) if not mask[step] and labels[step] != NO_TARGET]
        expected = [labels[min(seen, key=lambda at: (abs(at - step), at))] if seen else NO_TARGET for step in range(12)]
        assert repeated(labels, mask).tolist() == expected


def test_clusters_are_the_same_each_time_and_read_back(tmp_path: Path) -> None:
    windows = [window(seed, 64) for seed in range(24)]
    model = ModelConfig(face_backbone="file::x")
    assert target_streams(model) == ["face", "hand_l", "hand_r", "pose"]
    first, again = (find_clusters(windows, model, PredictionConfig(num_clusters=5), 3) for _ in range(2))
    first.save(tmp_path / "clusters.npz")
    for other in (again, Clusters.load(tmp_path / "clusters.npz")):
        assert other.commonest == first.commonest
        assert all((other.centres[stream] == centres).all() for stream, centres in first.centres.items())
    assert {len(centres) for centres in first.centres.values()} == {5}
    labels = np.concatenate([first.labels(one)["pose"] for one in windows])
    assert np.bincount(labels).argmax() == first.commonest["pose"]


def test_a_corpus_too_small_for_clusters_says_what_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    few = [window(seed, 64) for seed in range(8)]  # 128 steps
    for sample in few:
        sample.nodes[:, NODES["hand_r"]] = 0
    found = find_clusters(few, ModelConfig(), PredictionConfig(), 0)
    assert "hand_r" not in found.centres and {len(centres) for centres in found.centres.values()} == {2}
    assert "hand_r: is present in 0 steps, clusters need 128: nothing is predicted of it" in caplog.text
    with pytest.raises(UserError, match=r"no stream is present in 128 steps .*; extract more video"):
        find_clusters(few[:7], ModelConfig(), PredictionConfig(), 0)


@pytest.mark.parametrize("damage", [b"no archive", b"", b"PK\x03\x04 and no more"])
def test_clusters_that_cannot_be_read_say_so(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "clusters.npz").write_bytes(damage)
    with pytest.raises(UserError, match=r"clusters\.npz: holds no clusters .*; remove it"):
        Clusters.load(tmp_path / "clusters.npz")
