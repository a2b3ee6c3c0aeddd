"""The paired bootstrap: differences of the scores themselves, and intervals that hold 0 where nothing differs."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.integrate.evaluate import translation_scores
from signstreams.integrate.significance import Metric, paired_bootstrap

WORDS = ["uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"]
METRICS: tuple[Metric, ...] = ("bleu_4", "chrf")


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


@pytest.mark.parametrize("metric", METRICS)
def test_the_value_is_the_difference_of_the_scores_and_lies_in_its_interval(metric: Metric) -> None:
    references, guessed = sentences(40, 0), sentences(40, 1)
    better = [r if i % 2 else g for i, (r, g) in enumerate(zip(references, guessed, strict=True))]
    found = paired_bootstrap(metric, guessed, better, references)
    assert found.first == pytest.approx(translation_scores(guessed, references)[metric])
    assert found.second == pytest.approx(translation_scores(better, references)[metric])
    assert 0 < found.low < found.value < found.high
    assert found == paired_bootstrap(metric, guessed, better, references)  # the same draws each time
    assert paired_bootstrap(metric, better, guessed, references).high < 0


def test_equal_hypotheses_differ_by_nothing_and_two_guesses_cannot_be_told_apart() -> None:
    references, guessed = sentences(30, 0), sentences(30, 1)
    same = paired_bootstrap("bleu_4", guessed, guessed, references)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    other = paired_bootstrap("chrf", guessed, sentences(30, 2), references)
    assert other.low < 0 < other.high


def test_gloss_errors_are_summed_over_the_drawn_clips() -> None:
    references = [list("AB"), list("ABCD")] * 10
    found = paired_bootstrap("wer", [[]] * 20, [list("AB"), []] * 10, references)
    assert found.first == 100 and found.second == pytest.approx(100 * 40 / 60)
    assert found.low < found.value < found.high < 0
