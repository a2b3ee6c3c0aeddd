"""Labels choose the best checkpoint and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.formats.crops import Crop
from signstreams.pretrain.knn import ProbeLabels, knn_accuracy, read_probe_labels
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

Make = Callable[..., PretrainConfig]
CROPS = [Crop(f"v{video}", frame, Path("a"), None, 1, None) for video in range(3) for frame in range(6)]


def test_frames_of_a_table_go_before_the_whole_video(tmp_path: Path) -> None:
    (tmp_path / "a ñ.csv").write_text("label,frame,video_id\nA,,v0\nB,2,v0\nB,,v1\n", encoding="utf-8-sig")
    known = read_probe_labels(str(tmp_path / "a ñ.csv"), CROPS)
    assert known.labels.tolist() == [0, 0, 1, 0, 0, 0, *[1] * 6, *[-1] * 6]
    assert known.videos.tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_a_table_with_streams_tells_both_hands_of_a_frame_apart(tmp_path: Path) -> None:
    lines = ["video_id,frame,label,stream", "v0,,A,hand_l", "v0,,B,hand_r", "v0,2,C,hand_l", "v0,3,D,", "v1,,C,"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    hands = [
        Crop(f"v{video}", frame, tmp_path / stream / f"v{video}.zip", None, 1, None)
        for stream in ("hand_l", "hand_r")
        for video in range(2)
        for frame in range(4)
    ]
    labels = read_probe_labels(str(tmp_path / "a.csv"), hands).labels.tolist()
    assert ["ABCD"[label] for label in labels] == [*"AACD", *"CCCC", *"BBBD", *"CCCC"]


def test_plain_images_are_labelled_by_their_folder() -> None:
    crops = [Crop(f"{digit}/img{i}", 0, Path("a"), None, 1, None) for digit in "35" for i in range(4)]
    assert read_probe_labels("folders", crops).labels.tolist() == [0] * 4 + [1] * 4


def test_the_demo_corpus_knows_its_handshapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "processed" / "hand_l"
    (tmp_path / "ground_truth").mkdir()
    for video, frames in (("v0", [0, 0, -1, 1]), ("v1", [1, 1, 0, 0, 0])):
        np.savez(
            tmp_path / "ground_truth" / f"{video}.npz",
            hand_l_handshape=np.array(frames),
            handshape_names=np.array(["fist", "flat"]),
            clip_ids=np.array([video]),
            signer=np.array("s"),
        )
    crops = [Crop(f"v{i}", frame, folder / f"v{i}.zip", None, 1, None) for i in range(2) for frame in range(6)]
    assert read_probe_labels("handshapes", crops).labels.tolist() == [0, 0, -1, 1, -1, -1, 1, 1, 0, 0, 0, -1]
    with pytest.raises(UserError, match=r"v2\.npz: no ground truth of handshapes"):
        read_probe_labels("handshapes", [*crops, Crop("v2", 0, folder / "v2.zip", None, 1, None)])
    # from within the corpus, and by a link elsewhere
    folder.mkdir(parents=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "hand_l").symlink_to(folder)
    for here, given in ((folder.parent, "hand_l"), (tmp_path, "processed/hand_l"), (tmp_path, "links/hand_l")):
        monkeypatch.chdir(here)
        near = [replace(crop, path=Path(given) / crop.path.name) for crop in crops]
        assert read_probe_labels("handshapes", near).labels.tolist() == [0, 0, -1, 1, -1, -1, 1, 1, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video,label\nv0,A\n", "lacks the columns video_id, frame"),
        ("video_id,frame,label\nv0,x,A\n", "csv:2: frame is 'x'"),
        ("video_id,frame,label,stream\nv0,1,x,left\n", "csv:2: stream is 'left', expected face, hand_l, hand_r"),
        ("video_id,frame,label\nv0,,A\n", "found labels of 6 of the 18 held-out crops"),
        ("video_id,frame,label\nv0,,A\nv0,1,B\nv0,2,B\n", r"\(2 different, 1 videos\)"),
        (None, "cannot be read"),
    ],
)
def test_tables_that_do_not_serve_are_named(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=expected):
        read_probe_labels(str(tmp_path / "a.csv"), CROPS)


def test_neighbours_of_the_own_video_have_no_vote() -> None:
    """Two videos, each with its own label: only crops of the other one may answer, and they are always wrong."""
    features = torch.cat((torch.randn(6, 4) * 0.01 + torch.eye(4)[0], torch.randn(6, 4) * 0.01 + torch.eye(4)[1]))
    labels = torch.tensor([0] * 6 + [1] * 6)
    assert knn_accuracy(features, ProbeLabels(labels, labels)) == 0.0
    assert knn_accuracy(features, ProbeLabels(labels, torch.arange(12))) == 1.0
    unknown = torch.where(torch.arange(12) % 2 == 0, labels, -1)
    assert knn_accuracy(features, ProbeLabels(unknown, torch.arange(12))) == 1.0


def test_the_best_checkpoint_is_chosen_by_knn_and_training_stays_the_same(make: Make, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"video_{video},{frame},{'AB'[frame > 7]}" for video in range(3) for frame in range(16)]
    table.write_text("video_id,frame,label\n" + "\n".join(lines))
    blind = make(output_dir=str(tmp_path / "blind"), epochs=4, dataset={"batch_size": 4})
    seeing = make(
        output_dir=str(tmp_path / "seeing"),
        epochs=4,
        dataset={"batch_size": 4},
        monitor={"labels": str(table), "probe_crops": 16},
    )
    blind = blind.model_copy(update={"monitor": seeing.monitor.model_copy(update={"labels": None})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signstreams.pretrain.knn.MIN_LABELLED", 4)
        assert pretrain(seeing, "hand_r").read_bytes() == pretrain(blind, "hand_r").read_bytes()
    records = [line for line in read_metrics(seeing.output_dir / "metrics.jsonl") if "probe/knn" in line]
    best = checkpoint.load(seeing.output_dir / "checkpoint_best.pt")
    scores = {line["step"]: line["probe/knn"] for line in records}
    first_best = next(step for step, score in scores.items() if score == max(scores.values()))
    assert (best["trainer"]["step"], best["best"]["by"]) == (first_best, "probe/knn")
