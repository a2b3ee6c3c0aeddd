"""k-NN and linear probe on labelled features, the splits that they are asked on, and intervals of their accuracies.

Letters: N items, D width of a feature, C classes, M queries of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Flags, Floats, Ints
from signstreams.judge.labelled_sets import LabelledSet
from signstreams.pretrain.knn import cosines, vote

TEST_EVERY = 5
"""The plain split asks every 5th item of a class in the order of the set: the same for everybody, and no seed."""
QUERIES = 2048  # queries whose cosines are held at once

# -- Splits


@dataclass(frozen=True)
class Fold:
    """One division of the items."""

    bank: Ints  # items whose label is known
    queries: Ints  # items that are asked: those of the others whose class the bank knows


@dataclass(frozen=True)
class Split:
    """A way to divide a set."""

    title: str
    folds: list[Fold]
    num_left_out: int  # items that no fold can ask, since the bank has none of their class


def splits_of(found: LabelledSet) -> dict[str, Split]:
    """``split``, the plain one or the set's own; where signers are known, ``signer_out``: each one by all others."""
    if found.is_bank is not None:
        splits = {"split": _split("other videos", found.labels, [found.is_bank])}
    else:
        splits = {"split": _split("plain split", found.labels, [plain_bank(found.labels)])}
    if found.signers is not None:
        signers = np.array(found.signers)
        folds = [signers != signer for signer in dict.fromkeys(found.signers)]
        splits["signer_out"] = _split("unseen signers", found.labels, folds)
    return {name: split for name, split in splits.items() if split.folds}


def plain_bank(labels: Ints) -> Flags:
    """(N,) whether an item is labelled: all but every `TEST_EVERY`-th of each class, from the first on."""
    is_bank = np.ones(len(labels), bool)
    for label in np.unique(labels):
        is_bank[np.flatnonzero(labels == label)[::TEST_EVERY]] = False
    return is_bank


def _split(title: str, labels: Ints, banks: Sequence[Flags]) -> Split:
    folds, num_left_out = [], 0
    for is_bank in banks:
        is_known = np.isin(labels, labels[is_bank])
        queries = np.flatnonzero(~is_bank & is_known)
        num_left_out += int((~is_bank & ~is_known).sum())
        if len(queries):
            folds.append(Fold(np.flatnonzero(is_bank), queries))
    return Split(title, folds, num_left_out)


# -- Answers


def knn_answers(features: Tensor, labels: Tensor, fold: Fold, k: int) -> Tensor:
    """Labels (M,) that the weighted vote of the ``k`` nearest items of the bank gives; features (N, D)."""
    bank = torch.from_numpy(fold.bank)
    answers = [
        vote(cosines(features[queries], features[bank]), labels[bank], k=k)
        for queries in torch.from_numpy(fold.queries).split(QUERIES)
    ]
    return torch.cat(answers)


PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Weights of the squared norm, from strong to weak: each fit starts where the one before ended."""
MAX_ITERATIONS = 200
GRADIENT_TOLERANCE = 1e-5


def in_own_span(features: Tensor) -> Tensor:
    """Features (N, D) by coordinates (N, min(N, D)) with the same inner products: fits of wide ones cost less."""
    num_items, width = features.shape
    if width <= num_items:
        return features
    values, vectors = torch.linalg.eigh((features @ features.T).double())  # (N,), (N, N)
    found: Tensor = (vectors * values.clamp_min(0).sqrt()).float()
    return found


def fit_logistic(x: Tensor, labels: Tensor, num_classes: int, penalty: float, start: Tensor | None = None) -> Tensor:
    """Weights (D + 1, C), the bias last, of multinomial logistic regression, by torch's L-BFGS.

    The least of the mean cross-entropy of x (N, D) and ``penalty`` / 2 times the squared norm of the weights, the bias
    free; scikit-learn's ``LogisticRegression`` with C = 1 / (N ``penalty``) has the same one. ``start`` (D + 1, C) is a
    guess.
    """
    with_one = F.pad(x, (0, 1), value=1.0)  # (N, D + 1)
    weights = with_one.new_zeros(with_one.shape[1], num_classes) if start is None else start.clone()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=MAX_ITERATIONS,
        history_size=20,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(with_one @ weights, labels) + penalty / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


def probe_answers(features: Tensor, labels: Tensor, fold: Fold, signers: Ints | None) -> Tensor:
    """Labels (M,) by logistic regression on the bank; features (N, D), signers (N,) as numbers or None.

    Features are centred and scaled by two numbers of the bank. The penalty is the best of `PENALTIES` on a part of the
    bank that is held out in turn: one signer where there are several, else every `TEST_EVERY`-th item of a class.
    Where that part shares no class with the rest, the second strongest is taken.
    """
    x = features - features[fold.bank].mean(dim=0)
    x = x / x[fold.bank].square().sum(dim=1).mean().sqrt().clamp_min(1e-12)  # mean squared length 1
    num_classes = int(labels.max()) + 1
    inner = _held_out(labels.numpy()[fold.bank], None if signers is None else signers[fold.bank])
    bank, queries = fold.bank[inner], fold.bank[~inner]
    penalty, start = PENALTIES[1], None
    if np.isin(labels[queries], labels[bank]).any():
        best = -1.0
        weights: Tensor | None = None
        for one in PENALTIES:
            weights = fit_logistic(x[bank], labels[bank], num_classes, one, weights)
            score = float((_classified(x[queries], weights) == labels[queries]).double().mean())
            if score > best:
                best, penalty, start = score, one, weights
    weights = fit_logistic(x[fold.bank], labels[fold.bank], num_classes, penalty, start)
    return _classified(x[fold.queries], weights)


def _held_out(labels: Ints, signers: Ints | None) -> Flags:
    """(N,) False for the part of a bank on which penalties are compared."""
    if signers is not None and len(np.unique(signers)) > 1:
        found: Flags = signers != signers[0]
        return found
    return plain_bank(labels)


def _classified(x: Tensor, weights: Tensor) -> Tensor:
    return (F.pad(x, (0, 1), value=1.0) @ weights).argmax(dim=1)


# -- Accuracies and their intervals

NUM_RESAMPLES = 2000
MIN_UNITS = 5
"""Fewer signers or videos than this say nothing about their spread: items are drawn instead."""


@dataclass(frozen=True)
class Accuracy:
    """Mean over the folds of the share of right answers, with the 95 % interval of a bootstrap."""

    value: float
    low: float
    high: float


def drawn_unit(found: LabelledSet) -> tuple[str, Ints]:
    """What a bootstrap draws, with the unit's number (N,) of each item: signers, else videos, else single items."""
    for name, values in (("signers", found.signers), ("videos", found.videos)):
        if values is not None and len(set(values)) >= MIN_UNITS:
            return name, numbered(values)
    return "clips" if found.has_clips else "images", np.arange(len(found.names))


def numbered(values: Sequence[str]) -> Ints:
    """(N,) a number for each different value, in the order of the first ones."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values])


def accuracy(is_right: Sequence[Flags | Floats], folds: Sequence[Fold], units: Ints, seed: int) -> Accuracy:
    """Accuracy of the answers of each fold (M,), and the interval that comes of drawing whole units again.

    Of differences -1, 0, 1 between two sources it is the difference of their accuracies, on the same draws for both.
    Where each fold asks one unit, as in leaving one signer out, folds are drawn; else the units within each fold.
    """
    rng = np.random.default_rng(seed)
    value = float(np.mean([right.mean() for right in is_right]))
    if len(folds) > 1 and all(len(np.unique(units[fold.queries])) == 1 for fold in folds):
        shares = np.array([right.mean() for right in is_right])
        means = shares[rng.integers(len(shares), size=(NUM_RESAMPLES, len(shares)))].mean(axis=1)
    else:
        means = np.mean([_resampled(r, units[f.queries], rng) for r, f in zip(is_right, folds, strict=True)], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Accuracy(value, float(low), float(high))


def _resampled(right: Flags | Floats, units: Ints, rng: np.random.Generator) -> Floats:
    """(`NUM_RESAMPLES`,) shares of right answers when the units of a fold (M,) are drawn with replacement."""
    _, place = np.unique(units, return_inverse=True)
    asked, hits = np.bincount(place), np.bincount(place, weights=right)  # (U,)
    draws = rng.multinomial(len(asked), np.full(len(asked), 1 / len(asked)), size=NUM_RESAMPLES)  # (R, U)
    found: Floats = (draws @ hits) / (draws @ asked)
    return found
