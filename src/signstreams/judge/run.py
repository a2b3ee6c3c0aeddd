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
from signstreams.judge.features import item_features, sources
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
    log.info("%s: %d items of %d classes", config.data, len(found.names), len(found.classes))
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
    for source in judged:
        for variant, features in item_features(source, found).items():
            scores = _scores(features, found, splits, units, config)
            report["rows"].append(
                {
                    "name": source.name,
                    "kind": source.kind,
                    "about": source.about,
                    "features": variant,
                    "width": features.shape[1],
                    "scores": scores,
                }
            )
            log.info("%s, %s: done", source.name, variant or source.about)
    return report


def _scores(
    features: Tensor, found: LabelledSet, splits: dict[str, Split], units: Ints, config: EvaluateBackboneConfig
) -> dict[str, dict[str, dict[str, float]]]:
    """Split to probe to accuracy with its interval."""
    labels = torch.from_numpy(found.labels)
    signers = None if found.signers is None else numbered(found.signers)
    narrow = in_own_span(F.normalize(features, dim=1)) if config.probe else features
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, split in splits.items():
        answers = {
            NEAREST: [knn_answers(features, labels, fold, 1) for fold in split.folds],
            VOTE: [knn_answers(features, labels, fold, config.k) for fold in split.folds],
        }
        if config.probe:
            answers[PROBE] = [probe_answers(narrow, labels, fold, signers) for fold in split.folds]
        right = {
            by: [(a == labels[fold.queries]).numpy() for a, fold in zip(of, split.folds, strict=True)]
            for by, of in answers.items()
        }
        scores[name] = {
            by: dataclasses.asdict(accuracy(of, split.folds, units, config.seed)) for by, of in right.items()
        }
    return scores


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
