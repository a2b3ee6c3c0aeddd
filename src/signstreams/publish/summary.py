"""A run in a dozen lines: what each stage made, its two or three figures that matter, and where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from signstreams.formats.layout import CorpusLayout
from signstreams.publish.figures import (
    PRETRAINED,
    contract_figures,
    has_scores_of_another,
    pretraining_figures,
    rounded,
    translation_figures,
)
from signstreams.streams import STREAMS


def summarize(root: Path, work_dir: Path) -> list[str]:
    """Lines for a person; a stage that has not run yet is said to be missing."""
    lines = _contract(CorpusLayout(root))
    for stream in STREAMS:
        lines += _pretraining(stream, work_dir / f"dino_{stream}")
    lines += _translation(work_dir / "multistream_v9")
    if (page := work_dir / "overview.html").is_file():
        lines.append(f"all of it   {page}")
    return lines


def _contract(layout: CorpusLayout) -> list[str]:
    figures = contract_figures(layout)
    if figures is None:
        return [f"contract    not there yet: {layout.report}"]
    counts = ", ".join(
        f"{figures[key]} {key.removeprefix('num_')}" for key in ("num_videos", "num_clips", "num_frames")
    )
    return [f"contract    {counts}; look at {layout.report_page}"]


def _pretraining(stream: str, folder: Path) -> list[str]:
    name = f"{stream:<11}"
    figures = pretraining_figures(folder)
    if figures is None:
        absent = next(folder / file for file in PRETRAINED if not (folder / file).is_file())
        return [f"{name} not there yet: {absent}"]
    last = figures["last"]
    loss, of_crop, of_batch = (
        rounded(last.get(key)) for key in ("train/loss_dino", "teacher/entropy_sample", "teacher/entropy_batch")
    )
    lines = [
        f"{name} loss {loss} (ln K {figures['params']['ln_num_prototypes']:.2f}),"
        f" teacher entropy {of_crop} a crop, {of_batch} a batch;"
        f" {folder / 'backbone.pt'}, {folder / 'curves.png'}"
    ]
    if "knn" in figures:
        lines.append(f"{'':<11} k-NN on handshape: {_knn(figures['knn'])}; {folder / 'knn.json'}")
    return lines


def _knn(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in report["accuracy"].items())


def _translation(folder: Path) -> list[str]:
    path = folder / "scores.json"
    scores = translation_figures(folder)
    if scores is None:
        return [f"translation not there yet: {path}"]
    if has_scores_of_another(folder):
        return [f"translation not scored yet: {path} is of another best.pt; run scripts/evaluate_slt.py"]
    shown = [f"BLEU-4 {scores['bleu_4']:.1f}", f"chrF {scores['chrf']:.1f}", f"ROUGE-L {scores['rouge_l']:.1f}"]
    if "gloss" in scores:
        shown.append(f"gloss WER {scores['gloss']['wer']:.1f}")
    clips = f"{scores['num_clips']} clips of {scores['split']}"
    return [f"translation {', '.join(shown)} on {clips}; {path}, {folder / 'predictions.csv'}"]
