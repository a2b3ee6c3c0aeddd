"""A run of the workflow as its files show it: small, and with texts that a page must escape."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.files import sha256_file
from signstreams.formats.crops import CropWriter
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import STREAMS

PLACE = ("video_id", "first_frame", "last_frame")
EVIL = "<script>alert('Ñandú')</script>"


@dataclass(frozen=True)
class Run:
    """Folders of a run."""

    root: Path
    work_dir: Path
    logs: Path


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def picture(path: Path, width_px: int = 2000) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, width_px, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def write_backbone(folder: Path, stream: str) -> None:
    write(folder / "backbone.pt", f"weights of {stream}")
    write(folder / "backbone.safetensors", "the same")
    write(folder / "README.md", "card")
    params = {
        "architecture": "vit_tiny",
        "ln_num_prototypes": 5.545,
        "data": {"train_crops": 3162},
        "config": {},
        "host": "gpu7",
    }
    write(folder / "params.json", params)
    records = [
        {
            "step": step,
            "train/loss_dino": 6 - step / 1000,
            "teacher/entropy_sample": 3.1,
            "teacher/entropy_batch": 5.5,
            **({"probe/rankme": step / 10} if step % 500 == 0 else {}),
        }
        for step in range(10, 2001, 10)
    ]
    write(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    picture(folder / "curves.png")
    picture(folder / "neighbours.png")
    picture(folder / "patches_pca.png")
    if stream != "face":
        write(folder / "judge.json", judge_report(folder / "backbone.pt"))
        write(folder / "judge.csv", "name\n")
        picture(folder / "judge.png")


def judge_report(backbone: Path) -> dict[str, Any]:
    """As `signstreams evaluate-backbone` writes it, of four sources on two splits."""
    sources = (("dino/backbone.pt", "backbone", 0.92), ("first weights of it", "first weights", 0.88))
    sources += (("HOG", "free", 0.61), ("grey pixels", "free", 0.5))
    splits = {name: {"title": title} for name, title in (("split", "other videos"), ("signer_out", "unseen signers"))}
    rows = []

    def by_split(value: float, spread: float) -> dict[str, Any]:
        score = {"value": value, "low": value - spread, "high": value + spread}
        return {split: dict.fromkeys(("nearest", "knn", "probe"), score) for split in splits}

    for name, kind, value in sources:
        row = {"name": name, "kind": kind, "features": "", "scores": by_split(value, 0.1)}
        if kind == "backbone":
            row["sha256"] = sha256_file(backbone)
            row["differences"] = {"first weights of it": by_split(0.04, 0.06), "grey pixels": by_split(0.42, 0.1)}
        rows.append(row)
    return {"data": "data/hands.zip", "k": 20, "splits": splits, "rows": rows}


def change_judge(run: Run, stream: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Changes the rows of a stream's judge.json in place."""
    path = run.work_dir / f"dino_{stream}" / "judge.json"
    report = json.loads(path.read_text())
    change(report["rows"])
    write(path, report)


def put_another_first(rows: list[dict[str, Any]]) -> None:
    """Of two backbones that were judged at once the first is another one, with first weights of its own."""
    own, first = rows[:2]
    score = {"value": 0.11, "low": 0.1, "high": 0.12}
    scores = {split: dict.fromkeys(probes, score) for split, probes in own["scores"].items()}
    differences = {"first weights of the other": own["differences"]["first weights of it"]}
    other = own | {"name": "other/backbone.pt", "sha256": "of another", "scores": scores, "differences": differences}
    rows[:2] = [other, own, first | {"name": "first weights of the other", "scores": scores}, first]


def as_of_before(rows: list[dict[str, Any]]) -> None:
    """Earlier versions did not record digests."""
    for row in rows:
        row.pop("sha256", None)


def write_model(folder: Path) -> None:
    scores = {"num_clips": 7, "bleu_1": 30.6, "bleu_4": 5.9, "chrf": 23.7, "rouge_l": 20.0}
    gloss = {"gloss": {"wer": 56.5}}
    difference = {
        "bleu_4": {"value": 2.6, "low": -1.0, "high": 6.0},
        "chrf": {"value": 13.1, "low": 4.0, "high": 22.0},
        "wer": {"value": -26.1, "low": -40.0, "high": -12.0},
    }
    blank = {"num_clips": 7, "bleu_1": 20.1, "bleu_4": 3.3, "chrf": 10.6, "rouge_l": 20.0, "gloss": {"wer": 82.6}}
    blank["difference"] = difference
    write(folder / "best.pt", "model")
    model = {"checkpoint_sha256": sha256_file(folder / "best.pt")}
    write(folder / "scores.json", {"split": "test", **scores, **gloss, "baselines": {"blank_video": blank}, **model})
    digests = {stream: sha256_file(folder.parent / f"dino_{stream}" / "backbone.pt") for stream in STREAMS}
    write(folder / "config.json", {"note": EVIL, "backbone_sha256": digests})
    write(folder / "metrics.jsonl", '{"step": 1, "val/bleu_4": 5.9}\n')
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["clip_id", "split", "reference", "hypothesis", "gloss_reference", "gloss_hypothesis", *PLACE])
        rows.writerow(["one", "val", "de val", "", "", "", "video", 0, 9])
        said = [EVIL, "Mañana querré un libro.", "MAÑANA LIBRO", "MAÑANA"]
        rows.writerow(["two", "test", *said, "video", 10, 33])


def write_sequence(folder: Path) -> None:
    """As `signstreams sequence` leaves it: of two evaluations the first was the better one."""
    for name in ("best.pt", "clusters.npz"):
        write(folder / name, "weights")
    write(folder / "config.json", {"seed": 3})
    guesses = {"val/majority": 0.12, "val/repeat": 0.3}
    records: list[dict[str, float]] = [
        {"step": 10, "train/loss": 3.0},
        {"step": 20, "val/accuracy": 0.44, "val/loss": 2.5, **guesses, "val/is_best": 1},
        {"step": 40, "val/accuracy": 0.43, "val/loss": 2.6, **guesses, "val/is_best": 0},
    ]
    write(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    picture(folder / "curves.png")


@pytest.fixture
def with_sequence(finished: Run) -> Run:
    """A run with a sequence pretraining, from which its translation model starts."""
    write_sequence(finished.work_dir / "sequence")
    path = finished.work_dir / "multistream_v9" / "config.json"
    write(path, json.loads(path.read_text()) | {"train": {"sequence_checkpoint": "work/sequence/best.pt"}})
    return finished


def write_crops(layout: CorpusLayout, video_id: str) -> None:
    """Of each frame a face as bright as the frame's number is high, and no hands."""
    with CropWriter(layout.crops("face", video_id), video_id) as crops:
        for frame in range(40):
            image = np.full((16, 16, 3), 5 * frame, np.uint8)
            crops.add(frame, cv2.imencode(".jpg", image)[1].tobytes())


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    """A run whose every stage ended."""
    run = Run(tmp_path / "data" / "año", tmp_path / "work", tmp_path / "logs")
    summary = {"num_videos": 20, "num_clips": 47, "num_frames": 3425, "duration_s": 137.0}
    streams = {"face": {"coverage": 1.0}, "hand_l": {"coverage": 0.75}, "hand_r": {"coverage": 0.98}}
    videos = [{"video_id": "video", "signers": ["ana"]}, {"video_id": "absent", "signers": []}]
    report = {"verdict": "pass", "summary": summary, "streams": streams, "videos": videos}
    write(CorpusLayout(run.root).report, report)
    write(CorpusLayout(run.root).report_page, "page")
    for stream in STREAMS:
        write_backbone(run.work_dir / f"dino_{stream}", stream)
    write_model(run.work_dir / "multistream_v9")
    write_crops(CorpusLayout(run.root), "video")
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    for name, seconds in (("extract/a", 10), ("extract/b", 30), ("pretrain/face", 65), ("train", 5)):
        write(run.logs / f"{name}.benchmark.tsv", f"{head}{seconds}\t-\t{seconds * 10}\t{seconds / 2}\n")
    write(run.logs / "evaluate.benchmark.tsv", f"{head}0.4\t-\tNA\tNA\n")
    return run
