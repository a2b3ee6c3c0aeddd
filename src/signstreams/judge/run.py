"""The judge: every source of features by every probe on every split of a labelled set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Ints
from signstreams.engine import distributed
from signstreams.judge.features import HOG, PIXELS, item_features, sources
from signstreams.judge.labelled_sets import LabelledSet, read_set
from signstreams.judge.probes import (
    Split,
    accuracy,
    drawn_unit,
    in_own_span,
    knn_answers,
    numbered,
    probe_answers,
    splits_of,
)
from signstreams.judge.report import KINDS, NEAREST, PROBE, VOTE, write_report
from signstreams.judge.settings import EvaluateBackboneConfig

Right = dict[str, dict[str, list[Any]]]  # split to probe to whether each answer of a fold (M,) is right

log = logging.getLogger(__name__)


def evaluate_backbones(config: EvaluateBackboneConfig, *, kinds: Collection[str] = KINDS) -> dict[str, Any]:
    """Judge the backbones of a config; writes judge.json, judge.csv and judge.png, and returns what is in the first.

    ``kinds`` and errors are those of `judged`.
    """
    report = judged(config, kinds=kinds)
    write_report(config.output, report)
    return report


def judged(config: EvaluateBackboneConfig, *, kinds: Collection[str] = KINDS) -> dict[str, Any]:
    """The report on the backbones of a config; nothing is written.

    Args:
        config: Backbones, set and probes.
        kinds: Kinds of sources to judge, so that many runs need not pay again for what is the same for all.

    Raises:
        UserError: All problems of the set or of the backbones.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    found = read_set(config)
    device = distributed.start(device=config.device).device
    offered = sources(config.backbone, found, seed=config.seed, download=config.download, device=device)
    judged = [source for source in offered if source.kind in kinds]
    splits = splits_of(found)
    unit, units = drawn_unit(found)
    by = "" if found.signers is None else f" by {len(set(found.signers))} signers"
    log.info("%s: %d items of %d classes%s", config.data, len(found.names), len(found.classes), by)
    report: dict[str, Any] = {
        "data": str(config.data),
        "labels": found.labels_from,
        "streams": [part.stream for part in found.parts if part.stream],
        "num_items": len(found.names),
        "items": "clips" if found.has_clips else "images",
        "classes": found.classes,
        "num_signers": None if found.signers is None else len(set(found.signers)),
        "k": config.k,
        "interval": f"95 % of a bootstrap over {unit}",
        "splits": {name: _about(split, found) for name, split in splits.items()},
        "rows": [],
    }
    right: dict[tuple[str, str], Right] = {}  # of each source and variant, in the order of the rows
    for source in judged:
        for variant, features in item_features(source, found).items():
            right[source.name, variant] = _right(features, found, splits, config)
            report["rows"].append(
                {
                    "name": source.name,
                    "kind": source.kind,
                    "about": source.about,
                    **({} if source.sha256 is None else {"sha256": source.sha256}),
                    "features": variant,
                    "width": features.shape[1],
                    "scores": _scores(right[source.name, variant], splits, units, config.seed),
                }
            )
            log.info("%s, %s: done", source.name, variant or source.about)
    for (name, variant), row in zip(right, report["rows"], strict=True):
        first = next(source.first for source in judged if source.name == name)
        if first is not None:
            others = {key: right[key] for key in ((first, variant), (PIXELS, ""), (HOG, "")) if key in right}
            row["differences"] = {
                other: _scores(_less(right[name, variant], theirs), splits, units, config.seed)
                for (other, _), theirs in others.items()
            }
    return report


def _right(features: Tensor, found: LabelledSet, splits: dict[str, Split], config: EvaluateBackboneConfig) -> Right:
    """Which answers are right."""
    labels = torch.from_numpy(found.labels)
    signers = None if found.signers is None else numbered(found.signers)
    narrow = in_own_span(F.normalize(features, dim=1)) if config.probe else features
    right: Right = {}
    for name, split in splits.items():
        answers = {
            NEAREST: [knn_answers(features, labels, fold, 1) for fold in split.folds],
            VOTE: [knn_answers(features, labels, fold, config.k) for fold in split.folds],
        }
        if config.probe:
            answers[PROBE] = [probe_answers(narrow, labels, fold, signers) for fold in split.folds]
        right[name] = {
            by: [(a == labels[fold.queries]).numpy() for a, fold in zip(of, split.folds, strict=True)]
            for by, of in answers.items()
        }
    return right


def _less(ours: Right, theirs: Right) -> Right:
    """1 where only ``ours`` is right, -1 where only ``theirs`` is: the mean is the difference of the accuracies."""
    return {
        split: {
            by: [a.astype(float) - b for a, b in zip(folds, theirs[split][by], strict=True)] for by, folds in of.items()
        }
        for split, of in ours.items()
    }


def _scores(right: Right, splits: dict[str, Split], units: Ints, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Split to probe to accuracy with its interval."""
    return {
        name: {by: dataclasses.asdict(accuracy(of, splits[name].folds, units, seed)) for by, of in probes.items()}
        for name, probes in right.items()
    }


def _about(split: Split, found: LabelledSet) -> dict[str, Any]:
    guesses = [
        float((found.labels[fold.queries] == np.bincount(found.labels[fold.bank]).argmax()).mean())
        for fold in split.folds
    ]
    return {
        "title": split.title,
        "num_folds": len(split.folds),
        "num_asked": sum(len(fold.queries) for fold in split.folds),
        "num_left_out": split.num_left_out,
        "most_frequent": float(np.mean(guesses)),
    }
