"""k-NN on handshape: the vote, the split by video and signer, the report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from timm import create_model

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.errors import UserError
from signstreams.formats.crops import CropWriter
from signstreams.pretrain.knn import cosines, evaluate_knn, read_labels, table, vote
from signstreams.pretrain.settings import KnnConfig

NUM_VIDEOS, NUM_FRAMES = 4, 16


@pytest.fixture
def corpus(tmp_path: Path, picture: Callable[[int, int], bytes]) -> KnnConfig:
    """Four videos of two signers, handshape by quarter of the turn; the last video is not of the train split."""
    for video in range(NUM_VIDEOS):
        name = f"v{video}"
        with CropWriter(tmp_path / "processed" / "hand_r" / f"{name}.zip", name) as writer:
            for frame in range(NUM_FRAMES):
                writer.add(frame, picture(video % 2, frame))
        (tmp_path / "ground_truth").mkdir(exist_ok=True)
        handshape = np.arange(NUM_FRAMES, dtype=np.int16) // 4
        handshape[0] = -1  # in between two handshapes
        np.savez(
            tmp_path / "ground_truth" / f"{name}.npz",
            hand_r_handshape=handshape,
            handshape_names=np.array(["a", "b", "c", "d"]),
            clip_ids=np.array([f"{name}_0", f"{name}_1"]),
            signer=np.array("ana" if video < 2 else "beto"),
        )
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "train.csv").write_text("v0_0\nv0_1\nv1_0\nv2_1\n")
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=1)
    model = VisionTransformer(arch)
    model.init_weights(torch.Generator().manual_seed(3))
    export_backbone(tmp_path / "backbone.pt", arch, model.state_dict(), {"image_px": 16})
    return KnnConfig(
        backbone=str(tmp_path / "backbone.pt"),
        crops=tmp_path / "processed" / "hand_r",
        ground_truth=tmp_path / "ground_truth",
        output=tmp_path / "out" / "knn.json",
        k=3,
    )


def test_neighbours_vote_with_the_exponential_of_their_cosine() -> None:
    angles = torch.tensor([0.0, 0.3, 0.32, 2.0])
    bank = torch.stack((angles.cos(), angles.sin()), dim=1) * 5
    labels = torch.tensor([0, 1, 1, 2])
    similarity = cosines(torch.tensor([[2.0, 0.0]]), bank)
    near, far = math.exp(1 / 0.07), math.exp(math.cos(0.3) / 0.07) + math.exp(math.cos(0.32) / 0.07)
    assert vote(similarity, labels, k=3, temperature=0.07).tolist() == [0 if near > far else 1]
    assert vote(similarity, labels, k=1, temperature=0.07).tolist() == [0]
    assert vote(similarity, labels, k=100, temperature=100.0).tolist() == [1]  # heads count, not distance


def test_crops_are_labelled_and_split_by_video(corpus: KnnConfig) -> None:
    data = read_labels(corpus, "hand_r")
    assert len(data.crops) == NUM_VIDEOS * (NUM_FRAMES - 1)
    assert {crop.video_id for crop, train in zip(data.crops, data.is_train, strict=True) if not train} == {"v3"}
    assert all(int(label) == crop.frame // 4 for crop, label in zip(data.crops, data.labels, strict=True))
    assert data.signers.unique().tolist() == [0, 1]
    assert data.num_videos == (3, 1)


def test_the_report_holds_every_comparison(corpus: KnnConfig) -> None:
    report = evaluate_knn(corpus)
    assert json.loads(corpus.output.read_text()) == report
    assert list(report["accuracy"]) == list(report["accuracy_unseen_signer"])
    assert list(report["accuracy"]) == ["pretrained", "random_weights", "raw_pixels"]
    assert report["accuracy"]["raw_pixels"] == 1.0  # v3 shows the very pictures of v1
    assert report["most_frequent_handshape"] == pytest.approx(4 / 15)
    assert (report["num_train_crops"], report["num_test_crops"]) == (45, 15)
    assert "raw pixels" in table(report)
    assert "100.0 %" in table(report)


def test_the_script_prints_the_table(corpus: KnnConfig, project: Path) -> None:
    command = [sys.executable, str(project / "scripts" / "evaluate_knn.py")]
    for name in ("backbone", "crops", "ground_truth", "output"):
        command += [f"--{name.replace('_', '-')}", str(getattr(corpus, name))]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert "random weights" in answer.stdout
    assert corpus.output.exists()


def test_a_network_of_timm_is_fetched_only_with_leave(corpus: KnnConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signstreams.backbones.weights.cached_file", lambda _: None)
    monkeypatch.setattr("timm.create_model", lambda name, pretrained, **_: create_model(name, num_classes=0))
    tree = corpus.model_dump() | {"backbone": "timm::test_vit.r160_in1k"}
    with pytest.raises(UserError, match="not in the local cache; add --model-download"):
        evaluate_knn(KnnConfig.model_validate(tree))
    report = evaluate_knn(KnnConfig.model_validate(tree | {"download": True}))
    assert set(report["accuracy"]) == {"pretrained", "raw_pixels"}
    with pytest.raises(ValueError, match="download has no effect"):
        KnnConfig.model_validate(corpus.model_dump() | {"download": True})


def test_what_is_missing_is_named(corpus: KnnConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no hand stream; add --stream"):
        evaluate_knn(corpus.model_copy(update={"crops": tmp_path / "processed"}))
    with pytest.raises(UserError, match="extract the corpus first"):
        evaluate_knn(corpus.model_copy(update={"crops": tmp_path / "absent", "stream": "hand_l"}))
    with pytest.raises(UserError, match=r"train\.csv: .*run scripts/split_corpus"):
        evaluate_knn(corpus.model_copy(update={"index": tmp_path}))
    (tmp_path / "index" / "train.csv").write_text("v0\nv1\nv2\nv3\n")
    with pytest.raises(UserError, match="4 videos of the train split and 0 others"):
        evaluate_knn(corpus)
    (tmp_path / "ground_truth" / "v2.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"v2\.npz: no ground truth"):
        evaluate_knn(corpus)
