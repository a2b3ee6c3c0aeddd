"""Scores against known and against slow ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.text_scores import (
    NUM_RESAMPLES,
    Metric,
    WordErrors,
    clip_scores,
    gloss_errors,
    paired_bootstrap,
    resampled_differences,
    rouge_l,
    translation_scores,
    word_errors,
)

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


def test_a_clip_is_scored_as_a_corpus_of_one_and_bleu_by_the_orders_that_it_has() -> None:
    for text in TEXTS:
        assert clip_scores(text, text) == {"bleu_4": pytest.approx(100), "chrf": pytest.approx(100)}
    assert clip_scores("Hola", "Hola")["bleu_4"] == pytest.approx(100)  # one word has no four of them
    assert clip_scores("HOLA", "hola", ScoringConfig(bleu_lowercase=True))["bleu_4"] == pytest.approx(100)
    assert clip_scores("", "Hola") == {"bleu_4": 0.0, "chrf": 0.0}


def test_glosses_are_compared_after_the_clean_up_of_both() -> None:
    ours, theirs = ["HAUS", "HAUS", "__OFF__"], ["HAUS"]
    assert gloss_errors(ours, theirs, ScoringConfig(gloss_cleanup="phoenix2014t")) == WordErrors(0, 0, 0, 1)
    assert gloss_errors(ours, theirs, ScoringConfig()) == WordErrors(0, 0, 2, 1)


@pytest.fixture(scope="module")
def two_systems() -> tuple[list[str], list[str], list[str]]:
    """References, and what a worse and a better system say."""
    rng = np.random.default_rng(0)
    words = ["casa", "perro", "niño", "agua", "pan", "llueve", "mañana", "grande"]
    references = [" ".join(rng.choice(words, 6)) for _ in range(40)]

    def said(share_right: float) -> list[str]:
        return [" ".join(w if rng.random() < share_right else "x" for w in text.split()) for text in references]

    return references, said(0.5), said(0.8)


@pytest.mark.parametrize("metric", ["bleu_4", "chrf"])
def test_clips_are_drawn_and_scored_as_sacrebleu_does(
    metric: Metric, two_systems: tuple[list[str], list[str], list[str]]
) -> None:
    """Its p-value follows from our differences; ours is another one of them."""
    references, worse, better = two_systems
    counted = {"bleu_4": BLEU(), "chrf": CHRF()}[metric]
    systems = [("worse", worse), ("better", better)]
    _, found = PairedTest(systems, {"score": counted}, [references], test_type="bs", n_samples=NUM_RESAMPLES)()
    (theirs,) = (results for name, results in found.items() if name != "System")
    scores, differences = resampled_differences(metric, worse, better, references, ScoringConfig())
    assert scores == pytest.approx([theirs[0].score, theirs[1].score])
    sizes = np.abs(differences)
    p = (np.sum(sizes - sizes.mean() > abs(scores[1] - scores[0])) + 1) / (NUM_RESAMPLES + 1)
    assert p == pytest.approx(theirs[1].p_value, abs=2 / NUM_RESAMPLES)  # theirs are sums of float32


def test_a_difference_has_an_interval_and_a_p_value_that_agree(
    two_systems: tuple[list[str], list[str], list[str]],
) -> None:
    references, worse, better = two_systems
    found = paired_bootstrap("chrf", worse, better, references)
    assert found.low < found.value < found.high and found.low > 0 and found.p < 0.01
    turned = paired_bootstrap("chrf", better, worse, references)
    assert (turned.value, turned.low, turned.p) == pytest.approx((-found.value, -found.high, found.p))
    same = paired_bootstrap("bleu_4", worse, worse, references)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    for count in range(5, 40, 5):
        some = paired_bootstrap("bleu_4", worse[:count], better[:count], references[:count])
        assert (some.p < 0.05) == (some.low > 0 or some.high < 0) or abs(some.p - 0.05) < 0.01


def test_glosses_of_two_systems_are_compared_by_their_word_errors() -> None:
    references = [["A", "B"], ["C"], ["A"]] * 20
    found = paired_bootstrap("wer", references, [["A", "X"], ["C"], ["A"]] * 20, references)
    assert (found.first, found.second) == (0, 25) and 0 < found.low < 25 < found.high and found.p < 0.01
