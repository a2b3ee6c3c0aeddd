"""A run in a dozen lines: what each stage made, its two or three figures that matter, and where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signstreams.files import read_json
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import STREAMS


def summarize(root: Path, work_dir: Path) -> list[str]:
    """Lines for a person; a stage that has not run yet is said to be missing."""
    lines = _contract(CorpusLayout(root))
    for stream in STREAMS:
        lines += _pretraining(stream, work_dir / f"dino_{stream}")
    return lines + _translation(work_dir / "multistream_v9")


def _contract(layout: CorpusLayout) -> list[str]:
    if not layout.report.exists():
        return [f"contract   not there yet: {layout.report}"]
    summary = read_json(layout.report)["summary"]
    counts = ", ".join(
        f"{summary[key]} {key.removeprefix('num_')}" for key in ("num_videos", "num_clips", "num_frames")
    )
    return [f"contract   {counts}; look at {layout.report_page}"]


def _pretraining(stream: str, folder: Path) -> list[str]:
    name = f"{stream:<10}"
    if not (folder / "backbone.pt").exists():
        return [f"{name} not there yet: {folder / 'backbone.pt'}"]
    ln_k = read_json(folder / "params.json")["ln_num_prototypes"]
    last: dict[str, Any] = {}
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        last |= json.loads(line)
    lines = [
        f"{name} loss {last['train/loss_dino']:.2f} (ln K {ln_k:.2f}), teacher entropy"
        f" {last['teacher/entropy_sample']:.2f} a crop, {last['teacher/entropy_batch']:.2f} a batch;"
        f" {folder / 'backbone.pt'}, {folder / 'curves.png'}"
    ]
    if (folder / "knn.json").exists():
        lines += _knn(folder / "knn.json")
    return lines


def _knn(path: Path) -> list[str]:
    report = read_json(path)
    scores = ", ".join(f"{name} {100 * value:.1f} %" for name, value in report["accuracy"].items())
    return [f"           k-NN on handshape: {scores}; {path}"]


def _translation(folder: Path) -> list[str]:
    path = folder / "scores.json"
    if not path.exists():
        return [f"translation not there yet: {path}"]
    scores = read_json(path)
    shown = [f"BLEU-4 {scores['bleu_4']:.1f}", f"chrF {scores['chrf']:.1f}", f"ROUGE-L {scores['rouge_l']:.1f}"]
    if "gloss" in scores:
        shown.append(f"gloss WER {scores['gloss']['wer']:.1f}")
    clips = f"{scores['num_clips']} clips of {scores['split']}"
    return [f"translation {', '.join(shown)} on {clips}; {path}, {folder / 'predictions.csv'}"]
