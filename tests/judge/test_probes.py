"""k-NN, probe and intervals against the same computed another way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from signstreams.judge.labelled_sets import LabelledSet
from signstreams.judge.probes import (
    Fold,
    accuracy,
    drawn_unit,
    fit_logistic,
    in_own_span,
    knn_answers,
    plain_bank,
    probe_answers,
    splits_of,
)

GENERATOR = torch.Generator().manual_seed(0)
CENTRES = torch.randn(4, 12, generator=GENERATOR)
LABELS = torch.arange(60) % 4
FEATURES = CENTRES[LABELS] + 1.2 * torch.randn(60, 12, generator=GENERATOR)
SIGNERS = [f"s{i // 4 % 3}" for i in range(60)]
SET = LabelledSet([str(i) for i in range(60)], LABELS.numpy(), list("abcd"), SIGNERS, None, None, [], False, "folders")


def test_the_vote_is_that_of_nested_loops() -> None:
    fold = splits_of(SET)["signer_out"].folds[1]
    expected = []
    for query in fold.queries:
        similar = [(float(F.cosine_similarity(FEATURES[query], FEATURES[i], dim=0)), int(i)) for i in fold.bank]
        votes = dict.fromkeys(range(4), 0.0)
        for cosine, i in sorted(similar, reverse=True)[:7]:
            votes[int(LABELS[i])] += float(np.exp(cosine / 0.07))
        expected.append(max(votes, key=lambda label: votes[label]))
    assert knn_answers(FEATURES, LABELS, fold, 7).tolist() == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_fit_is_where_newtons_method_ends(penalty: float) -> None:
    """The objective is convex: another method must end at the same probabilities, and the gradient there is zero."""
    weights = fit_logistic(FEATURES, LABELS, 4, penalty).double().numpy()
    x = np.pad(FEATURES.double().numpy(), ((0, 0), (0, 1)), constant_values=1)  # (60, 13)
    hot = np.eye(4)[LABELS.numpy()]
    shrunk = np.r_[np.full(12, penalty), 0]

    def probabilities(w: np.ndarray) -> np.ndarray:
        scores = np.exp(x @ w - (x @ w).max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    w = np.zeros((13, 4))
    for _ in range(50):
        p = probabilities(w)
        gradient = x.T @ (p - hot) / 60 + shrunk[:, None] * w
        hessian = np.zeros((13, 4, 13, 4))
        for a in range(4):
            for b in range(4):
                heavy = p[:, a] * ((a == b) - p[:, b]) / 60
                hessian[:, a, :, b] = x.T @ (heavy[:, None] * x) + (a == b) * np.diag(shrunk)
        w -= (np.linalg.pinv(hessian.reshape(52, 52)) @ gradient.ravel()).reshape(13, 4)
    np.testing.assert_allclose(probabilities(weights), probabilities(w), atol=2e-3)
    np.testing.assert_allclose(weights[:-1], w[:-1], atol=2e-2)


def test_wide_features_have_the_same_inner_products_in_fewer_coordinates() -> None:
    wide = torch.randn(20, 300, generator=torch.Generator().manual_seed(1))
    narrow = in_own_span(wide)
    assert narrow.shape == (20, 20)
    torch.testing.assert_close(narrow @ narrow.T, wide @ wide.T, atol=1e-3, rtol=1e-4)
    assert in_own_span(FEATURES) is FEATURES


def test_the_probe_learns_what_can_be_told_apart_and_sees_no_label_of_a_query() -> None:
    fold = splits_of(SET)["split"].folds[0]
    separate = 4 * CENTRES[LABELS] + 0.1 * torch.randn(60, 12, generator=torch.Generator().manual_seed(2))
    answers = probe_answers(separate, LABELS, fold, None)
    assert answers.tolist() == LABELS[fold.queries].tolist()
    hidden = LABELS.clone()
    hidden[fold.queries] = 0
    assert probe_answers(separate, hidden, fold, None).tolist() == answers.tolist()


def test_one_item_a_class_is_enough_for_the_probe() -> None:
    fold = Fold(np.arange(4), np.arange(4, 60))
    answers = probe_answers(4 * CENTRES[LABELS], LABELS, fold, None)
    assert answers.tolist() == LABELS[4:].tolist()


def test_each_signer_is_asked_once_by_all_others() -> None:
    splits = splits_of(SET)
    asked = [set(np.array(SIGNERS)[fold.queries]) for fold in splits["signer_out"].folds]
    assert asked == [{"s0"}, {"s1"}, {"s2"}]
    for fold in splits["signer_out"].folds:
        assert not set(np.array(SIGNERS)[fold.bank]) & set(np.array(SIGNERS)[fold.queries])
        assert len(fold.bank) + len(fold.queries) == 60
    assert splits["split"].folds[0].queries.tolist() == np.flatnonzero(~plain_bank(LABELS.numpy())).tolist()
    assert np.bincount(LABELS.numpy()[splits["split"].folds[0].queries]).tolist() == [3, 3, 3, 3]


def test_an_item_alone_in_its_class_is_not_asked_but_may_distract() -> None:
    labels = SET.labels.copy()
    labels[7] = 4
    alone = dataclasses.replace(SET, labels=labels, classes=list("abcde"))
    split = splits_of(alone)["signer_out"]
    assert split.num_left_out == 1
    assert not any(7 in fold.queries for fold in split.folds)
    assert sum(7 in fold.bank for fold in split.folds) == 2


def test_a_given_split_and_videos_count() -> None:
    is_bank = np.arange(60) < 40
    found = dataclasses.replace(SET, is_bank=is_bank, videos=[f"v{i // 6}" for i in range(60)])
    (fold,) = splits_of(found)["split"].folds
    assert (fold.bank.tolist(), fold.queries.tolist()) == (list(range(40)), list(range(40, 60)))
    assert drawn_unit(found)[0] == "videos"  # three signers are too few
    many = [f"s{i % 5}" for i in range(60)]
    name, units = drawn_unit(dataclasses.replace(found, signers=many))
    assert (name, units.tolist()) == ("signers", [i % 5 for i in range(60)])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """200 sets of 100 items with 70 % right: about 95 % of the intervals hold .7; whole signers give wider ones."""
    rng = np.random.default_rng(0)
    fold = Fold(np.arange(1), np.arange(100))
    hits = [accuracy([rng.random(100) < 0.7], [fold], np.arange(100), seed) for seed in range(200)]
    assert 0.89 <= np.mean([one.low <= 0.7 <= one.high for one in hits]) <= 0.99
    right = np.repeat(rng.random(10) < 0.7, 10)  # a signer is right in all or in nothing
    single = accuracy([right], [fold], np.arange(100), 0)
    whole = accuracy([right], [fold], np.arange(100) // 10, 0)
    assert single.value == whole.value == right.mean()
    assert whole.high - whole.low > 2 * (single.high - single.low)


def test_signers_left_out_count_equally_and_are_drawn_whole() -> None:
    folds = [Fold(np.arange(10, 13), np.arange(10)), Fold(np.arange(10), np.arange(10, 13))]
    right = [np.ones(10, bool), np.zeros(3, bool)]
    found = accuracy(right, folds, np.array([0] * 10 + [1] * 3), 0)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)
