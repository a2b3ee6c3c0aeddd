"""Which crops a run learns from: every limit has its effect, says what it needs, and is in the fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.errors import UserError
from signstreams.formats.arrays import StreamTrack, Tracks, write_tracks
from signstreams.formats.crops import CropWriter
from signstreams.pretrain import selection
from signstreams.pretrain.crop_index import build_index
from signstreams.pretrain.data import find_crops, plan_batches
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.selection import crop_sharpness, monotony, sharpness, signers
from signstreams.pretrain.settings import DatasetConfig
from signstreams.streams import STREAMS, BoxState

FRAMES = 16


@pytest.fixture
def corpus(tmp_path: Path, picture: Callable[[int, int], bytes]) -> Path:
    """Corpus of three videos; crops of even frames detected, of odd ones filled, confidence frame / 20."""
    frame = np.arange(FRAMES)
    state = np.where(frame % 2, BoxState.FILLED, BoxState.DETECTED).astype(np.uint8)
    track = StreamTrack(np.ones((FRAMES, 4), np.float32), (frame / 20).astype(np.float32), state)
    for video in range(3):
        write_tracks(tmp_path / f"processed/tracks/v{video}.npz", Tracks(dict.fromkeys(STREAMS, track), frame / 25))
        with CropWriter(tmp_path / f"processed/hand_r/v{video}.zip", f"v{video}") as writer:
            for i in frame:
                writer.add(int(i), picture(video, int(i)))
    return tmp_path


def _find(corpus: Path, **settings: Any) -> list[tuple[str, int]]:
    """Video and frame of the crops that are left."""
    found = find_crops(
        [corpus / "processed/hand_r"], probe_crops=0, dataset=DatasetConfig(**settings), stream="hand_r", cache_dir=None
    )
    return [(crop.video_id, crop.frame) for crop in found.train]


def test_confidence_and_state_choose(corpus: Path) -> None:
    assert len(_find(corpus)) == 48
    assert {frame for _, frame in _find(corpus, min_confidence=0.5)} == set(range(10, 16))
    assert {frame for _, frame in _find(corpus, states=["filled"])} == set(range(1, 16, 2))
    both = _find(corpus, states=["detected", "tracked"], min_confidence=0.5)
    assert both == [(f"v{video}", frame) for video in range(3) for frame in (10, 12, 14)]
    with pytest.raises(UserError, match="no crop is within"):
        _find(corpus, states=["tracked"])


def test_the_log_says_how_many_crops_are_left_out_and_why(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each crop by its first reason: of 48, every second is filled, and of the others 15 are below the confidence."""
    with caplog.at_level("INFO"):
        _find(corpus, states=["detected", "tracked"], min_confidence=0.5)
    assert caplog.messages == [
        "9 of 48 crops are left; left out: 24 (50.00%) filled (dataset.states),"
        " 15 (31.25%) below dataset.min_confidence 0.5"
    ]
    caplog.clear()
    _find(corpus)
    assert not caplog.messages


def test_limits_without_tracks_are_refused(corpus: Path) -> None:
    (corpus / "processed/tracks/v1.npz").unlink()
    assert len(_find(corpus)) == 48
    with pytest.raises(UserError, match=r"v1.npz: no such file, but dataset.min_confidence"):
        _find(corpus, min_confidence=0.1)
    short = StreamTrack(np.ones((4, 4), np.float32), np.ones(4, np.float32), np.ones(4, np.uint8))
    write_tracks(corpus / "processed/tracks/v1.npz", Tracks(dict.fromkeys(STREAMS, short), np.arange(4) / 25))
    with pytest.raises(UserError, match="fewer frames"):
        _find(corpus, min_confidence=0.1)


def test_sharpness_knows_a_blurred_crop_at_any_size(picture: Callable[[int, int], bytes]) -> None:
    sharp = cv2.resize(cv2.imdecode(np.frombuffer(picture(0, 3), np.uint8), 1), (224, 224), interpolation=2)
    values = []
    for sigma in (0.01, 4.0, 8.0):
        image = cv2.GaussianBlur(sharp, (0, 0), sigma)
        sizes = [cv2.resize(image, (side, side), interpolation=3) for side in (224, 112)]
        values.append([crop_sharpness(cv2.imencode(".png", one)[1].tobytes()) for one in sizes])
        assert values[-1][0] == pytest.approx(values[-1][1], rel=0.15)
    assert values[0][0] > 2 * values[1][0] > 4 * values[2][0]


def test_blurred_crops_are_left_out_and_measured_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = build_index([corpus / "processed/hand_r"])
    measured = sharpness(index, corpus / "cache")
    limit = float(np.median(measured))
    assert len(_find(corpus, min_sharpness=limit)) == (measured >= limit).sum() < 48
    monkeypatch.setattr(selection, "crop_sharpness", lambda jpeg: pytest.fail("measured again"))
    assert np.array_equal(sharpness(index, corpus / "cache"), measured)
    with pytest.raises(pytest.fail.Exception, match="measured again"):  # other crops: what is kept is not theirs
        sharpness(index.take(np.arange(5)), corpus / "cache")


def test_a_cache_that_cannot_be_read_is_measured_again(corpus: Path) -> None:
    index, _ = build_index([corpus / "processed/hand_r"])
    measured = sharpness(index, corpus)
    (corpus / selection.SHARPNESS_CACHE).write_bytes(b"PK no archive")
    assert np.array_equal(sharpness(index, corpus), measured)


def test_signers_come_from_meta_csv_else_from_the_video(corpus: Path) -> None:
    index, _ = build_index([corpus / "processed/hand_r"])
    assert len(set(signers(index))) == 3
    (corpus / "meta.csv").write_text("id;video;label;signer\na;v0;x;ana\nb;v1;x;ana\nc;v2;x;berta\n", encoding="utf-8")
    numbers = signers(index)
    assert [len(set(numbers[index.video == video])) for video in range(3)] == [1, 1, 1]
    assert numbers[0] == numbers[FRAMES] != numbers[2 * FRAMES]


def test_balance_and_gap_reach_the_plan(corpus: Path, make: Callable[..., Any]) -> None:
    (corpus / "meta.csv").write_text("id;video;label;signer\na;v0;x;ana\nb;v1;x;ana\nc;v2;x;berta\n", encoding="utf-8")
    found = find_crops([corpus / "processed/hand_r"], probe_crops=0)
    crops = found.train
    shares = []
    for balance in (0.0, 1.0):
        plan = plan_batches(make(dataset={"signer_balance": balance, "batch_size": 4}), found, 1)
        shares.append(float((crops.video[plan.order(0)] == crops.video[-1]).mean()))
    assert shares == [pytest.approx(1 / 3), pytest.approx(1 / 2, abs=0.03)]
    gaps = []
    for gap in (0, 7):
        plan = plan_batches(make(dataset={"min_gap_frames": gap, "batch_size": 6}), found, 1)
        near = 99
        for batch in plan.order(0).reshape(-1, 6):
            for video in range(3):
                near = min([near, *np.diff(np.sort(crops.frame[batch][crops.video[batch] == video]))])
        gaps.append(near)
    assert gaps[0] < 7 <= gaps[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"min_confidence": 0.5},
        {"states": ["detected"]},
        {"min_sharpness": 10.0},
        {"signer_balance": 0.5},
        {"cluster_balance": 0.5},
        {"min_gap_frames": 5},
        {"max_crops": 20},
    ],
)
def test_every_choice_is_in_the_fingerprint(make: Callable[..., Any], settings: dict[str, Any]) -> None:
    assert make(dataset=settings).identity() != make().identity()


def test_the_device_of_the_views_is_in_the_fingerprint(make: Callable[..., Any]) -> None:
    assert make(augmentation={"on_device": True}).identity() != make().identity()


def test_a_corrected_signer_is_another_experiment_where_signers_are_balanced(
    corpus: Path, make: Callable[..., Any], tmp_path: Path
) -> None:
    for folder, balance in (("even", 0.0), ("balanced", 1.0)):
        config = make(
            train_dir=[str(corpus / "processed/hand_r")],
            output_dir=str(tmp_path / folder),
            epochs=1,
            dataset={"signer_balance": balance},
        )
        for names in ("ana ana ana", "ana ana eva"):
            rows = [f"c{i};v{i};x;{signer}\n" for i, signer in enumerate(names.split())]
            (corpus / "meta.csv").write_text("id;video;label;signer\n" + "".join(rows), encoding="utf-8")
            if balance and "eva" in names:
                with pytest.raises(UserError, match=r"dataset\.signers is"):
                    pretrain(config, "hand_r")
            else:
                pretrain(config, "hand_r")


@pytest.mark.parametrize("kind", ["one", "equal", "few"])
def test_pictures_that_teach_nothing_are_said_in_log_and_card(
    kind: str,
    make: Callable[..., Any],
    tmp_path: Path,
    picture: Callable[[int, int], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    count, batch_size = {"one": (1, 1), "equal": (40, 8), "few": (40, 8)}[kind]
    (tmp_path / "photos").mkdir()
    for i in range(count):
        (tmp_path / "photos" / f"{i:02d}.jpg").write_bytes(picture(0, i % 3 if kind == "few" else 0))
    dataset = {"batch_size": batch_size}
    target = pretrain(make(train_dir=[str(tmp_path / "photos")], epochs=1, dataset=dataset), "hand_r")
    looked_at = count - count // 8 if count > 8 else count
    said = f"{looked_at} crops show {3 if kind == 'few' else 1} different pictures: next to nothing can be learned"
    assert [record.levelname for record in caplog.records if said in record.message] == ["WARNING"]
    assert f"**{said}" in (target.parent / "README.md").read_text(encoding="utf-8")


def test_crops_that_differ_are_no_cause_for_a_warning(crops_dir: Path) -> None:
    assert monotony(find_crops([crops_dir], probe_crops=8).train) is None
