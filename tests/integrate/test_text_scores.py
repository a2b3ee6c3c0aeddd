"""Scores against known and against slow ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from signstreams.integrate.text_scores import WordErrors, rouge_l, translation_scores, word_errors

TEXTS = ["El niño come pan, ¿no?", "Mañana llueve en la ciudad grande.", "¡Qué bonita es la casa azul!"]


def slow_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    @cache
    def cost(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        same = cost(i - 1, j - 1) + (hypothesis[i - 1] != reference[j - 1])
        return min(same, cost(i - 1, j) + 1, cost(i, j - 1) + 1)

    return cost(len(hypothesis), len(reference))


def slow_common(a: Sequence[str], b: Sequence[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + slow_common(a[:-1], b[:-1])
    return max(slow_common(a[:-1], b), slow_common(a, b[:-1]))


def test_a_reference_against_itself_scores_100() -> None:
    scores = translation_scores(TEXTS, TEXTS)
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "rouge_l"):
        assert scores[name] == pytest.approx(100), name
    assert scores["length_ratio"] == 1
    assert "case:mixed" in scores["bleu_signature"] and "tok:13a" in scores["bleu_signature"]
    assert scores["chrf_signature"] and "beta 1.2" in scores["rouge_l_implementation"]


def test_case_and_accents_count() -> None:
    plain = [text.replace("ñ", "n").lower() for text in TEXTS]
    assert translation_scores(plain, TEXTS)["bleu_1"] < 100
    assert translation_scores(plain, TEXTS)["rouge_l"] < 100


def test_empty_hypotheses_score_zero() -> None:
    scores = translation_scores(["", "", ""], TEXTS)
    assert scores["bleu_4"] == scores["rouge_l"] == scores["length_ratio"] == 0


def test_rouge_l_follows_the_longest_common_subsequence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        ours, theirs = (["abcd"[i] for i in rng.integers(0, 4, rng.integers(1, 8))] for _ in range(2))
        common = slow_common(ours, theirs)
        p, r = common / len(ours), common / len(theirs)
        expected = 0.0 if not common else (1 + 1.2**2) * p * r / (r + 1.2**2 * p)
        assert rouge_l(" ".join(ours), " ".join(theirs)) == pytest.approx(expected)


def test_word_errors_agree_with_the_slow_version_and_balance() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        ours, theirs = (["ABC"[i] for i in rng.integers(0, 3, rng.integers(0, 7))] for _ in range(2))
        errors = word_errors(ours, theirs)
        edits = errors.substitutions + errors.deletions + errors.insertions
        assert edits == slow_edits(tuple(ours), tuple(theirs))
        assert len(theirs) - errors.deletions + errors.insertions == len(ours)
        assert errors.num_words == len(theirs)


def test_each_kind_of_edit_is_named() -> None:
    assert word_errors(["A", "X", "C"], ["A", "B", "C"]) == WordErrors(1, 0, 0, 3)
    assert word_errors(["A"], ["A", "B"]) == WordErrors(0, 1, 0, 2)
    assert word_errors(["A", "B", "C"], ["A", "C"]) == WordErrors(0, 0, 1, 2)
    assert (WordErrors(1, 1, 0, 4) + WordErrors(0, 0, 2, 4)).rate == 50
