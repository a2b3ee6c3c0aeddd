"""The figures of each stage, read from what the stages wrote; None where one has not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signstreams.engine.metrics import read_metrics
from signstreams.files import read_json, sha256_file
from signstreams.formats.layout import CorpusLayout

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
