"""Positives from neighbouring frames and other signers: who they are, draws, views, resume, refusals."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.formats.arrays import StreamTrack, Tracks, read_tracks, write_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.pretrain import positives
from signstreams.pretrain.crop_index import CropIndex, build_index
from signstreams.pretrain.crop_points import crop_points, point_shapes
from signstreams.pretrain.data import ViewLoader, find_crops, plan_batches
from signstreams.pretrain.points_teacher import PointTargets
from signstreams.pretrain.positives import MIN_COSINE, NUM_NEAREST, PartnerSearch, Positives, nearest_others
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.selection import signers
from signstreams.pretrain.settings import PositivesConfig, PretrainConfig

Make = Callable[..., PretrainConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
ALONE = World(0, 1, torch.device("cpu"))
STREAM = "hand_r"


@pytest.fixture
def index(hands_corpus: CorpusLayout) -> CropIndex:
    found, problems = build_index([hands_corpus.processed / STREAM])
    assert not problems
    return found


def search(index: CropIndex, **settings: Any) -> Positives:
    points = crop_points(index, None, needed_by="a test")
    return PartnerSearch(PositivesConfig(**settings), index, points, seed=3).partners(None)


# -- Partners


def test_neighbours_are_frames_of_the_same_video_within_reach(index: CropIndex) -> None:
    found = search(index, neighbour_s=[0.1, 0.3])  # 3 to 7 frames at 25 Hz
    seen: dict[int, set[int]] = {}
    for crop in range(len(index)):
        seen[crop] = {found.partner(step, crop) for step in range(150)}
    for crop, partners in seen.items():
        distance = np.abs(index.frame - index.frame[crop])
        within = (index.video == index.video[crop]) & (distance >= 3) & (distance <= 7)
        assert partners == set(np.flatnonzero(within).tolist())


def by_spans(hands_corpus: CorpusLayout, folder: Path) -> CorpusLayout:
    """Of ``v0`` two spans of 12 frames were extracted, at 10 and 300 s; ``v1`` has no tracks, those of ``v2`` no times.

    ``v3`` starts late, and its times are in milliseconds.
    """
    layout = CorpusLayout(folder)
    shutil.copytree(hands_corpus.root, layout.root)
    tracks = read_tracks(layout.tracks("v0"))
    times_s = np.concatenate((10 + np.arange(12) / 25, 300 + np.arange(12) / 25))
    write_tracks(layout.tracks("v0"), replace(tracks, times_s=times_s))
    layout.tracks("v1").unlink()
    with np.load(layout.tracks("v2")) as file:
        rest = {name: file[name] for name in file.files if name != "times_s"}
    np.savez(layout.tracks("v2"), **rest)
    write_tracks(layout.tracks("v3"), replace(tracks, times_s=np.round(7 + np.arange(24) / 25.1, 3)))
    return layout


def test_neighbours_are_no_frames_beyond_a_gap(hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    index, _ = build_index([by_spans(hands_corpus, tmp_path / "corpus").processed / STREAM])
    config = PositivesConfig(neighbour_s=[0.1, 0.3])  # 3 to 7 frames at 25 Hz
    found = PartnerSearch(config, index, None, seed=3).partners(None)
    of_v0 = np.array([index.videos[video] == "v0" for video in index.video])
    for crop in range(len(index)):
        partners = {found.partner(step, crop) for step in range(150)}
        distance = np.abs(index.frame - index.frame[crop])
        within = (index.video == index.video[crop]) & (distance >= 3) & (distance <= 7)
        within &= ~of_v0 | ((index.frame < 12) == (index.frame[crop] < 12))
        assert partners == set(np.flatnonzero(within).tolist()), (crop, index[crop])


def test_other_gaps_are_another_run_and_none_are_none(
    index: CropIndex, hands_corpus: CorpusLayout, tmp_path: Path
) -> None:
    """Partners follow from them; a corpus without gaps goes on with the runs that it has."""
    config = PositivesConfig(neighbour_s=[0.1, 0.3])
    layout = by_spans(hands_corpus, tmp_path / "corpus")
    folder = layout.processed / STREAM
    with_gap = PartnerSearch(config, build_index([folder])[0], None, 3).digest
    layout.tracks("v0").unlink()
    without = PartnerSearch(config, build_index([folder])[0], None, 3).digest
    before = hashlib.sha256(np.array([[3, 7]] * 5, np.int32).data).hexdigest()
    assert without == before == PartnerSearch(config, index, None, 3).digest
    assert with_gap != before


def test_tracks_that_cannot_be_read_are_named(hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    layout = by_spans(hands_corpus, tmp_path / "corpus")
    layout.tracks("v0").write_bytes(b"PK")
    tracks = read_tracks(layout.tracks("v3"))
    few = {
        name: StreamTrack(track.box[:9], track.confidence[:9], track.state[:9])
        for name, track in tracks.streams.items()
    }
    write_tracks(layout.tracks("v3"), Tracks(few, tracks.times_s[:9]))
    index, _ = build_index([layout.processed / STREAM])
    with pytest.raises(UserError) as refused:
        PartnerSearch(PositivesConfig(neighbour_s=[0.1, 0.3]), index, None, 3)
    of_v0, of_v3 = refused.value.problems
    assert str(layout.tracks("v0")) in of_v0 and "npz" in of_v0
    assert str(layout.tracks("v3")) in of_v3 and "has fewer frames than" in of_v3


def test_a_crop_without_neighbours_is_its_own_partner(index: CropIndex) -> None:
    alone = index.take(index.frame == 5)
    assert len(alone) == 5
    found = search(alone, neighbour_s=[0.1, 0.3])
    assert [found.partner(0, crop) for crop in range(5)] == list(range(5))


def test_others_are_the_nearest_by_brute_force_and_never_of_the_same_signer(index: CropIndex) -> None:
    found = search(index, other_signer_prob=1.0)
    assert found.nearest is not None
    shapes, signer = point_shapes(crop_points(index, None, needed_by="a test")), signers(index)
    assert len(set(signer.tolist())) == 3
    num_known = 0
    for crop in range(len(index)):
        rivals = [i for i in range(len(index)) if signer[i] != signer[crop]]
        cosine = {i: float(np.dot(shapes[crop], shapes[i])) for i in rivals}
        near = [i for i in rivals if cosine[i] >= MIN_COSINE]  # NaN is not
        expected = sorted(near, key=lambda i: -cosine[i])[:NUM_NEAREST]
        ours = [i for i in found.nearest[crop].tolist() if i >= 0]
        assert [cosine[i] for i in ours] == pytest.approx([cosine[i] for i in expected], abs=1e-6)
        assert {found.partner(step, crop) for step in range(60)} == (set(ours) or {crop})
        num_known += bool(ours)
    assert 10 < num_known < len(index)  # some have none: every fourth has no points


def test_a_bank_of_some_crops_gives_the_nearest_of_these(index: CropIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positives, "MAX_BANK", 20)
    monkeypatch.setattr(positives, "_BLOCK", 7)
    shapes, signer = point_shapes(crop_points(index, None, needed_by="a test")), signers(index)
    found = nearest_others(shapes, [signer])
    assert len(np.unique(found[found >= 0])) <= 20
    rows, _ = np.nonzero(found >= 0)
    assert (signer[rows] != signer[found[found >= 0]]).all()


def test_hands_of_one_recording_are_not_of_two_signers(hands_corpus: CorpusLayout, tmp_path: Path) -> None:
    """Both hands of a video, whose signer nobody named, would find each other."""
    layout = CorpusLayout(tmp_path / "corpus")
    shutil.copytree(hands_corpus.processed, layout.processed)
    shutil.copytree(layout.processed / "hand_r", layout.processed / "hand_l")
    both, _ = build_index([layout.processed / "hand_l", layout.processed / "hand_r"])
    points = crop_points(both, "hand_r", needed_by="a test")
    points[: len(points) // 2] = points[len(points) // 2 :]  # as if the left hands were the mirrored right ones
    found = PartnerSearch(PositivesConfig(other_signer_prob=1.0), both, points, 0).partners(None).nearest
    assert found is not None
    names = np.array([both.videos[video] for video in both.video])
    rows, _ = np.nonzero(found >= 0)
    assert len(rows) and (names[rows] != names[found[found >= 0]]).all()


def test_the_draw_depends_on_seed_step_and_crop_alone(index: CropIndex) -> None:
    first, again = (search(index, neighbour_s=[0.04, 0.4], other_signer_prob=0.5) for _ in range(2))
    pairs = [(step, crop) for step in range(4) for crop in range(len(index))]
    drawn = [first.partner(*pair) for pair in pairs]
    assert [again.partner(*pair) for pair in reversed(pairs)] == drawn[::-1]
    kinds = np.array(
        [index.video[partner] == index.video[crop] for (_, crop), partner in zip(pairs, drawn, strict=True)]
    )
    assert 0.3 < kinds.mean() < 0.9  # both kinds


def test_what_was_found_is_kept_and_another_corpus_is_searched_again(
    index: CropIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, points = PositivesConfig(other_signer_prob=1.0), crop_points(index, None, needed_by="a test")
    first = PartnerSearch(config, index, points, 0).partners(tmp_path)
    calls = []
    original = nearest_others

    def counted(*args: Any) -> Any:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(positives, "nearest_others", counted)
    again = PartnerSearch(config, index, points, 0).partners(tmp_path)
    np.testing.assert_array_equal(again.nearest, first.nearest)
    assert not calls
    PartnerSearch(config, index, points * 2, 0).partners(tmp_path)
    assert len(calls) == 1


# -- Views and runs


@pytest.fixture
def partnered(make: Make, hands_corpus: CorpusLayout) -> Make:
    """Config of a tiny run on the corpus of drawn hands, with partners of both kinds."""
    both = {"neighbour_s": [0.1, 0.3], "other_signer_prob": 0.5}

    def build(**changes: Any) -> PretrainConfig:
        return make(**{"train_dir": [str(hands_corpus.processed / STREAM)], "positives": both, **changes})

    return build


@pytest.mark.parametrize("workers", [0, 2])
def test_only_view_2_and_its_points_are_the_partners(partnered: Make, workers: int) -> None:
    config = partnered(dataset={"num_workers": workers})
    crops = find_crops(config.train_dir, probe_crops=8)
    points = crop_points(crops.train, None, needed_by="a test")
    targets = PointTargets.of(points, crops.train, crops.probe, STREAM)
    found = PartnerSearch(config.positives, crops.train, points, config.seed).partners(None)
    plan = plan_batches(config, crops, 1)
    plain = list(ViewLoader(config, crops.train, plan, ALONE, targets).steps(1, 4))
    with_partners = list(ViewLoader(config, crops.train, plan, ALONE, targets, found).steps(1, 4))
    num_others = 0
    for before, after, keys in zip(plain, with_partners, plan.batches(0, 1, 4), strict=True):
        assert torch.equal(after[0][0], before[0][0]) and torch.equal(after[1], before[1])
        partners = [found.partner(*key) for key in keys]
        for i, ((_, crop), partner) in enumerate(zip(keys, partners, strict=True)):
            assert torch.equal(after[0][1, i], before[0][1, i]) == (partner == crop)
            num_others += partner != crop
        np.testing.assert_array_equal(after[2][0].numpy(), targets.train[[crop for _, crop in keys]])
        np.testing.assert_array_equal(after[2][1].numpy(), targets.train[partners])
    assert num_others > 10


def test_a_run_that_was_stopped_ends_with_the_same_bits(partnered: Make, tmp_path: Path, stopped_at: StoppedAt) -> None:
    changes = {"points": {"weight": 1.0}, "algorithm": "ibot", "epochs": 1}
    straight = pretrain(partnered(output_dir=str(tmp_path / "straight"), **changes), STREAM)
    config = partnered(output_dir=str(tmp_path / "stopped"), **changes)
    with stopped_at(5):
        pretrain(config, STREAM)
    assert (config.output_dir / "state" / positives.NEAREST_CACHE).exists()
    assert pretrain(config, STREAM).read_bytes() == straight.read_bytes()
    card = straight.with_name("README.md").read_text()
    assert (
        "| `positives` | view 2: a frame 0.1 to 0.3 s away, or another signer's with nearly the same points (p 0.5) |"
        in card
    )
    with pytest.raises(UserError, match=r"positives\.other_signer_prob is 0\.5 there, 0\.4 here"):
        pretrain(
            config.model_copy(update={"positives": PositivesConfig(neighbour_s=[0.1, 0.3], other_signer_prob=0.4)}),
            STREAM,
        )


def test_without_partners_nothing_is_recorded_of_them(make: Make) -> None:
    assert "positives" not in make().identity()


def test_what_cannot_give_partners_is_refused_in_one_line(
    make: Make, hands_corpus: CorpusLayout, crops_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"neighbour_s \[0\.3, 0\.1\]: expected 0 < low <= high"):
        PositivesConfig(neighbour_s=[0.3, 0.1])
    with pytest.raises(UserError, match=r"video_0\.json: no such file, but positives\.neighbour_s needs its frames"):
        pretrain(make(positives={"neighbour_s": [0.1, 0.3]}), STREAM)
    with pytest.raises(UserError, match=r"but positives\.other_signer_prob needs the points") as refused:
        pretrain(make(positives={"other_signer_prob": 0.5}), STREAM)
    assert len(refused.value.problems) == 1
    train_dir = [str(hands_corpus.processed / STREAM)]
    with pytest.raises(
        UserError, match=r"no frame is so far away at 25 frames per second; give a range that holds a mul"
    ):
        pretrain(make(train_dir=train_dir, positives={"neighbour_s": [0.01, 0.03]}), STREAM)
    layout = CorpusLayout(tmp_path / "corpus")
    shutil.copytree(hands_corpus.root, layout.root)
    layout.meta.write_text("video_id,signer\n" + "".join(f"v{i},one\n" for i in range(5)))
    with pytest.raises(UserError, match=r"no crop has nearly the hand points of one of another signer \(1 signers\)"):
        pretrain(make(train_dir=[str(layout.processed / STREAM)], positives={"other_signer_prob": 0.5}), STREAM)
