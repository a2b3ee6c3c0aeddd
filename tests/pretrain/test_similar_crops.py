"""Crops that look alike: clusters are drawn from equally often, near-duplicates count once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.run_folder import recorded_fingerprint
from signstreams.errors import UserError
from signstreams.files import read_json
from signstreams.formats.crops import CropWriter
from signstreams.formats.layout import CorpusLayout
from signstreams.pretrain import derived_settings, run, similar_crops
from signstreams.pretrain.crop_index import CropIndex, build_index
from signstreams.pretrain.crop_points import crop_points, point_shapes
from signstreams.pretrain.data import find_crops, plan_batches
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.sampler import MAX_TIMES_OF_CLUSTER, BatchPlan, CropGroups, cluster_draws, pass_order
from signstreams.pretrain.selection import of_each_crop
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.similar_crops import (
    CLUSTER_CACHE,
    cluster,
    crop_clusters,
    num_distinct_crops,
    picture_histograms,
)

Make = Callable[..., PretrainConfig]


def _groups(sizes: list[int], videos: int, signers: list[int] | None = None) -> CropGroups:
    """Crops of clusters of these sizes, in turn over the videos' frames: shuffled, but the same in every call."""
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    video = np.sort(np.arange(len(label)) % videos)
    frame = np.concatenate([np.arange(count) for count in np.bincount(video)])
    return CropGroups.of(video, frame, None if signers is None else np.array(signers)[video], label)


# -- Draws


def test_each_cluster_is_drawn_equally_often_exactly_in_every_pass() -> None:
    groups = _groups([660, 200, 100, 40], videos=5)
    for number in range(6):
        order = pass_order(groups, 0, number, 0.0, 1.0)
        assert len(order) == 1000
        drawn = np.bincount(groups.cluster[order])
        # 40 crops have room for 160 draws; what they leave, the other three share
        assert drawn.sum() == 1000 and drawn[3] == 160
        assert drawn[:3].max() - drawn[:3].min() <= 1


def test_every_crop_of_a_large_cluster_has_its_turn() -> None:
    groups = _groups([900, 50, 50], videos=4)
    seen = sum(np.bincount(pass_order(groups, 0, number, 0.0, 1.0), minlength=1000) for number in range(16))
    assert seen.min() > 0
    of_rare = seen[groups.cluster > 0]
    assert of_rare.max() - of_rare.min() <= 16  # those of a cluster alike: at most one apart in each pass


@pytest.mark.parametrize(("balance", "share"), [(0.5, 0.25), (1.0, 0.5)])
def test_in_between_a_share_is_a_power_of_the_crops(balance: float, share: float) -> None:
    draws = cluster_draws(np.array([900.0, 100.0]), np.array([900, 100]), balance)
    assert draws[1] / draws.sum() == pytest.approx(min(share, MAX_TIMES_OF_CLUSTER * 100 / 1000))
    groups = _groups([900, 100], videos=3)
    assert np.bincount(groups.cluster[pass_order(groups, 1, 0, 0.0, balance)])[1] == pytest.approx(draws[1], abs=1)


@pytest.mark.parametrize("sizes", [[1, 1, 998], [5, 0, 995], [1], [10] * 100])
def test_no_cluster_is_drawn_more_often_than_it_has_room_for(sizes: list[int]) -> None:
    draws = cluster_draws(np.array(sizes, np.float64), np.array(sizes), 1.0)
    assert draws.sum() == pytest.approx(sum(sizes))
    assert (draws <= MAX_TIMES_OF_CLUSTER * np.array(sizes) + 1e-9).all()


def test_signers_are_balanced_before_their_clusters() -> None:
    """Signer 0 has 900 crops, signer 1 has 100, and the clusters do not depend on them: both come out equal."""
    groups = _groups([600, 400], videos=10, signers=[0] * 9 + [1])
    order = np.concatenate([pass_order(groups, 0, number, 1.0, 1.0) for number in range(8)])
    assert np.bincount(groups.cluster[order]) == pytest.approx([4000, 4000], abs=8)
    assert np.bincount(groups.signer[groups.video[order]]) == pytest.approx([4000, 4000], rel=0.08)


def test_without_balance_clusters_change_no_order() -> None:
    groups = _groups([70, 30], videos=3)
    plain = CropGroups.of(groups.video, groups.frame)
    assert np.array_equal(pass_order(groups, 5, 2, 0.0, 0.0), pass_order(plain, 5, 2))


@pytest.mark.parametrize("min_gap_frames", [None, 4])
def test_the_order_keeps_frames_of_a_video_apart(min_gap_frames: int | None) -> None:
    """A crop that is drawn four times in a pass never meets itself, nor its neighbours, in a batch."""
    groups = _groups([560, 20, 20], videos=10)
    plan = BatchPlan(groups, batch_size=10, world_size=1, seed=0, cluster_balance=1.0, min_gap_frames=min_gap_frames)
    for number in range(4):
        for batch in plan.order(number).reshape(60, 10):
            for video in range(10):
                frames = np.sort(groups.frame[batch[groups.video[batch] == video]])
                assert (np.diff(frames) >= (min_gap_frames or 10)).all()


def test_two_ranks_see_the_batch_of_one_and_a_plan_goes_on_from_any_step() -> None:
    groups = _groups([30, 8, 2], videos=4)
    joint = BatchPlan(groups, batch_size=8, world_size=1, seed=0, cluster_balance=0.7)
    split = BatchPlan(groups, batch_size=4, world_size=2, seed=0, cluster_balance=0.7)
    replanned = BatchPlan(groups, batch_size=8, world_size=1, seed=0, cluster_balance=0.7)
    whole = list(joint.batches(0, 0, 12))
    parts = zip(split.batches(0, 0, 12), split.batches(1, 0, 12), strict=True)
    assert [a + b for a, b in parts] == whole
    assert list(replanned.batches(0, 7, 12)) == whole[7:]


# -- Clusters


def test_a_dense_place_is_one_cluster_and_not_many() -> None:
    """1,900 crops of a rest pose, 100 of ten others: nearly all of 40 centres at random would lie in the first."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(11, 42)) * 5
    truth = np.concatenate([np.zeros(1900, int), np.repeat(np.arange(1, 11), 10)])
    labels = cluster((places[truth] + rng.normal(size=(2000, 42)) * 0.1).astype(np.float32))
    assert labels.min() == 0 and set(labels) == set(range(labels.max() + 1))
    assert all(len(set(truth[labels == label])) == 1 for label in set(labels))
    assert len({*labels}) == 11


def test_fewer_different_crops_than_clusters_are_fewer_clusters() -> None:
    assert cluster(np.repeat(np.eye(3, dtype=np.float32), 200, axis=0)).max() == 2
    assert cluster(np.zeros((1, 5), np.uint8)).tolist() == [0]


def test_hands_are_clustered_by_their_points_and_those_not_seen_by_their_picture(hands_corpus: CorpusLayout) -> None:
    index = _index(hands_corpus)
    clusters = crop_clusters(index, stream="hand_r", cache_dir=None)
    shapes = point_shapes(crop_points(index, None, needed_by="a test"))
    is_seen = np.isfinite(shapes).all(axis=1)
    assert not {*clusters[is_seen]} & {*clusters[~is_seen]}
    assert np.array_equal(clusters[is_seen], cluster(shapes[is_seen]))
    assert {*clusters} == {*range(clusters.max() + 1)}
    means = np.stack([shapes[clusters == label].mean(axis=0) for label in {*clusters[is_seen].tolist()}])
    labels = clusters[is_seen]
    seen = shapes[is_seen]
    assert ((seen - means[labels]) ** 2).sum() < 0.2 * ((seen - seen.mean(axis=0)) ** 2).sum()


def test_what_has_no_points_is_clustered_by_pictures(crops_dir: Path, tmp_path: Path) -> None:
    """Faces, plain images, and hands whose points are not beside them: bars of three videos, by their angle."""
    index, _ = build_index([crops_dir])
    expected = cluster(of_each_crop(index, picture_histograms))
    for stream in ("hand_r", "face", None):
        assert np.array_equal(crop_clusters(index, stream=stream, cache_dir=tmp_path), expected)
    # bars of one angle on three backgrounds are alike
    assert np.mean([len({*expected[index.frame == frame]}) for frame in range(16)]) < 1.6


def test_clusters_are_found_once_and_again_for_other_crops(
    hands_corpus: CorpusLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = _index(hands_corpus)
    found = crop_clusters(index, stream="hand_r", cache_dir=tmp_path)
    assert (tmp_path / CLUSTER_CACHE).exists()
    with monkeypatch.context() as patch:
        patch.setattr(similar_crops, "cluster", lambda _: pytest.fail("found again"))
        assert np.array_equal(crop_clusters(index, stream="hand_r", cache_dir=tmp_path), found)
        with pytest.raises(pytest.fail.Exception, match="found again"):
            crop_clusters(index.take(np.arange(50)), stream="hand_r", cache_dir=tmp_path)
    (tmp_path / CLUSTER_CACHE).write_bytes(b"PK no archive")
    assert np.array_equal(crop_clusters(index, stream="hand_r", cache_dir=tmp_path), found)


def test_a_video_without_points_is_refused(hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    shutil.copytree(hands_corpus.root, layout.root, dirs_exist_ok=True)
    layout.keypoints("v1").unlink()
    with pytest.raises(UserError, match=r"v1.npz: no such file, but dataset.cluster_balance needs it"):
        crop_clusters(_index(layout), stream="hand_r", cache_dir=None)


def test_clusters_and_the_sample_that_they_are_found_on_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """For more crops only their assignment takes longer, block by block."""
    found: list[int] = []

    def count(sample: np.ndarray, num_clusters: int, *others: np.random.Generator, noise_share: float) -> np.ndarray:
        found.extend((len(sample), num_clusters))
        return original(sample, num_clusters, *others, noise_share=noise_share)

    original = similar_crops.k_means
    monkeypatch.setattr(similar_crops, "MAX_CLUSTERS", 16)
    monkeypatch.setattr(similar_crops, "k_means", count)
    labels = cluster(np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32))
    assert found == [16 * similar_crops.SAMPLE_PER_CLUSTER, 16]
    assert np.bincount(labels).sum() == 20_000 and labels.max() == 15


# -- Near-duplicates


def _videos(folder: Path, *videos: list[int]) -> CropIndex:
    """Crops whose grey level is given, as a gradient on it."""
    for number, levels in enumerate(videos):
        with CropWriter(folder / f"v{number}.zip", f"v{number}") as writer:
            for frame, level in enumerate(levels):
                image = np.full((48, 48, 3), level, np.uint8) + np.arange(48, dtype=np.uint8)[None, :, None]
                writer.add(frame, cv2.imencode(".jpg", image)[1].tobytes())
    return build_index([folder])[0]


@pytest.mark.parametrize(
    ("videos", "expected"),
    [
        ([[50] * 10], 1),
        ([[50] * 5 + [90] * 5], 2),
        ([[50] * 10, [50] * 10], 2),  # of two videos: never near-duplicates
        ([[50, 52, 54, 56, 58, 60, 62]], 3),  # slow change counts from the last distinct one: 50, 56, 62
        ([[50, 90] * 5], 10),
        ([[50], [50]], 2),
    ],
)
def test_near_duplicates_count_once(tmp_path: Path, videos: list[list[int]], expected: int) -> None:
    assert num_distinct_crops(_videos(tmp_path, *videos)) == expected


def test_plain_images_are_distinct_and_not_read(tmp_path: Path, picture: Callable[[int, int], bytes]) -> None:
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(b"not read")
    assert num_distinct_crops(build_index([tmp_path])[0]) == 6


def test_of_a_large_corpus_the_share_is_estimated_from_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of ten frames are new; 4 of 30 rows are looked at."""
    frames = [50 + 20 * min(i % 10, 5) for i in range(300)]
    index = _videos(tmp_path, frames, frames)
    assert num_distinct_crops(index) == 360
    monkeypatch.setattr(similar_crops, "DISTINCT_RUN", 20)
    monkeypatch.setattr(similar_crops, "MAX_DISTINCT_RUNS", 4)
    read: list[int] = []
    monkeypatch.setattr(similar_crops, "_small_grey", lambda jpeg: [read.append(1), _original(jpeg)][1])
    assert num_distinct_crops(index) == pytest.approx(360, rel=0.05)
    assert len(read) == 80


_original = similar_crops._small_grey


# -- Runs


def test_balanced_clusters_reach_the_plan_and_the_fingerprint(make: Make, hands_corpus: CorpusLayout) -> None:
    config = make(train_dir=[str(hands_corpus.processed / "hand_r")], dataset={"cluster_balance": 1.0, "batch_size": 5})
    crops = find_crops(config.train_dir, probe_crops=0)
    plan = plan_batches(config, crops, 1)
    sizes = np.bincount(crop_clusters(crops.train, stream="hand_r", cache_dir=None))
    drawn = np.bincount(plan.groups.cluster[plan.order(0)])
    ideal = cluster_draws(sizes.astype(float), sizes, 1.0)
    assert (np.abs(drawn - ideal) < 1 + 5).all() and not np.array_equal(drawn, sizes)  # an exchange alters none
    assert config.identity() != make(train_dir=config.train_dir, dataset={"batch_size": 5}).identity()
    assert "cluster_balance" not in make().identity()["dataset"]  # as runs of before recorded it


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_balance_out_of_range_is_refused(make: Make, value: float) -> None:
    with pytest.raises(ValueError, match="cluster_balance"):
        make(dataset={"cluster_balance": value})


def test_two_processes_and_a_resumed_run_see_what_one_straight_run_sees(
    make: Make, project: Path, tmp_path: Path, hands_corpus: CorpusLayout, run_two: Callable[..., None]
) -> None:
    def config(name: str, **changes: Any) -> PretrainConfig:
        dataset = {"cluster_balance": 0.8, "batch_size": 8} | changes.pop("dataset", {})
        return make(
            train_dir=[str(hands_corpus.processed / "hand_r")],
            output_dir=str(tmp_path / name),
            dataset=dataset,
            **changes,
        )

    pretrain(config("one"), "hand_r")
    two = config("two", distributed=True, dataset={"batch_size": 4})
    path = tmp_path / "two.json"
    path.write_text(two.model_dump_json(exclude_unset=True))
    run_two(tmp_path, project / "scripts/pretrain_dino_hands.py", "--config", str(path))
    states = [checkpoint.load(tmp_path / name / "checkpoint_last.pt") for name in ("one", "two")]
    assert states[0]["fingerprint"] == states[1]["fingerprint"]
    assert len(states[0]["fingerprint"]["config"]["dataset"]["clusters"]) == 64
    for name, tensor in states[0]["trainer"]["student"].items():
        torch.testing.assert_close(states[1]["trainer"]["student"][name], tensor, rtol=5e-3, atol=5e-4)
    best = checkpoint.load(tmp_path / "one/state/checkpoint_best.pt")
    checkpoint.save(tmp_path / "one/state/checkpoint_last.pt", best)
    for left in (tmp_path / "one").glob("*.*"):
        if left.name != CLUSTER_CACHE:
            left.unlink()
    pretrain(config("one", resume="must"), "hand_r")
    for name, tensor in checkpoint.load(tmp_path / "one/checkpoint_last.pt")["trainer"]["student"].items():
        assert torch.equal(tensor, states[0]["trainer"]["student"][name])


def test_head_and_temperature_are_for_the_distinct_crops(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """6 levels of 16 frames each: 6 distinct crops of 96, less the held-out ones."""
    monkeypatch.setattr(derived_settings, "PROTOTYPES", ((20, 256), (10**6, 512)))
    monkeypatch.setattr(derived_settings, "TARGETS_PER_PROTOTYPE", 0)
    _videos(tmp_path / "hand_r", *[[level] * 16 + [level + 90] * 16 for level in (20, 50, 80)])
    config = make(train_dir=[str(tmp_path / "hand_r")], dino={"num_prototypes": None})
    with caplog.at_level(logging.INFO):
        pretrain(config, "hand_r")
    assert "6 of the crops are distinct" in caplog.text
    params = read_json(config.output_dir / "params.json")
    assert params["data"]["num_distinct_crops"] == 6 < params["data"]["train_crops"]
    assert params["chosen"]["num_prototypes"] == 256
    recorded = recorded_fingerprint(config.output_dir)
    assert recorded is not None and recorded.config["distinct_crops"] == 6
    monkeypatch.setattr(similar_crops, "_small_grey", lambda _: pytest.fail("counted again"))
    pretrain(config, "hand_r")  # the finished run is found again, and nothing is counted


def test_a_run_begun_when_all_crops_counted_goes_on_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived_settings, "PROTOTYPES", ((20, 256), (10**6, 512)))
    monkeypatch.setattr(derived_settings, "TARGETS_PER_PROTOTYPE", 0)
    _videos(tmp_path / "hand_r", [50] * 30, [90] * 30)
    config = make(train_dir=[str(tmp_path / "hand_r")], dino={"num_prototypes": None})
    with monkeypatch.context() as patch:  # as the version that counted every crop
        patch.setattr(run, "num_distinct_crops", len)
        first = pretrain(config, "hand_r").read_bytes()
    assert read_json(config.output_dir / "params.json")["chosen"]["num_prototypes"] == 512
    recorded = recorded_fingerprint(config.output_dir)
    assert recorded is not None and "distinct_crops" not in recorded.config
    assert pretrain(config.model_copy(update={"resume": "must"}), "hand_r").read_bytes() == first
    pretrain(config.model_copy(update={"seed": 1, "on_conflict": "archive"}), "hand_r")  # another one, of today
    assert read_json(config.output_dir / "params.json")["chosen"]["num_prototypes"] == 256


def _index(layout: CorpusLayout) -> CropIndex:
    return build_index([layout.processed / "hand_r"])[0]
