"""The figures of each stage, read from its files, and a summary of a run in a dozen lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signstreams.engine.metrics import read_metrics
from signstreams.files import read_json, sha256_file
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import STREAMS

# The figures of each stage, read from what the stages wrote; None where one has not run.

PRETRAINED = ("backbone.pt", "params.json", "metrics.jsonl")
"""What a pretraining leaves; its figures are read from these."""


def contract_figures(layout: CorpusLayout) -> dict[str, Any] | None:
    """Summary of the contract's report, with its verdict."""
    if not layout.report.is_file():
        return None
    report = read_json(layout.report)
    return {"verdict": report["verdict"], **report["summary"]}


def pretraining_figures(folder: Path) -> dict[str, Any] | None:
    """Last value of each metric, ``params`` of the run, and ``knn`` where the truth is known.

    None also where weights lie there alone, such as another's. A value is None where it was not finite.
    """
    if not all((folder / name).is_file() for name in PRETRAINED):
        return None
    last: dict[str, Any] = {}
    for record in read_metrics(folder / "metrics.jsonl"):
        last |= record
    found = {"params": read_json(folder / "params.json"), "last": last}
    if (folder / "knn.json").is_file():
        found["knn"] = read_json(folder / "knn.json")
    return found


def translation_figures(folder: Path) -> dict[str, Any] | None:
    """Content of scores.json."""
    return read_json(folder / "scores.json") if (folder / "scores.json").is_file() else None


def has_scores_of_another(folder: Path) -> bool:
    """Whether scores.json is of another best.pt than the one beside it; also no where it does not tell."""
    scores, model = folder / "scores.json", folder / "best.pt"
    if not (scores.is_file() and model.is_file()):
        return False
    expected = read_json(scores).get("checkpoint_sha256")  # an evaluation of before did not say
    return expected is not None and sha256_file(model) != expected


def rounded(value: float | None, digits: int = 2) -> str:
    """A figure as people read it; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def thinned(path: Path, most: int) -> list[str]:
    """Lines of a metrics log, spread evenly where there are more than ``most``; evaluations and probes all stay."""
    records = read_metrics(path)
    stride = max(1, -(-len(records) // most))
    kept = [
        record
        for place, record in enumerate(records)
        if place % stride == 0 or place == len(records) - 1 or any(key.startswith(("val/", "probe/")) for key in record)
    ]
    return [json.dumps(record, ensure_ascii=False) for record in kept]


def percent(value: float | None) -> str:
    """A share of 1 as people read it; a dash for None."""
    return "–" if value is None else f"{100 * value:.0f} %"


# A run in a dozen lines: what each stage made, its two or three figures that matter, and where to look.


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
