"""The paired bootstrap: differences of the scores themselves, and intervals that hold 0 where nothing differs."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.integrate.evaluate import WordErrors, translation_scores, word_errors
from signstreams.integrate.significance import gloss_difference, text_differences

WORDS = ["uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez"]


def sentences(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


def test_the_value_is_the_difference_of_the_scores_and_lies_in_its_interval() -> None:
    references, guessed = sentences(40, 0), sentences(40, 1)
    better = [r if i % 2 else g for i, (r, g) in enumerate(zip(references, guessed, strict=True))]
    found = text_differences(better, guessed, references)
    ours, theirs = translation_scores(better, references), translation_scores(guessed, references)
    for key in ("bleu_4", "chrf"):
        assert found[key]["value"] == pytest.approx(ours[key] - theirs[key])
        assert 0 < found[key]["low"] < found[key]["value"] < found[key]["high"]
    assert found == text_differences(better, guessed, references)  # the same draws each time
    assert text_differences(guessed, better, references)["chrf"]["high"] < 0


def test_equal_hypotheses_differ_by_nothing_and_two_guesses_cannot_be_told_apart() -> None:
    references, guessed = sentences(30, 0), sentences(30, 1)
    for found in text_differences(guessed, guessed, references).values():
        assert found == {"value": 0.0, "low": 0.0, "high": 0.0}
    found = text_differences(guessed, sentences(30, 2), references)["chrf"]
    assert found["low"] < 0 < found["high"]


def test_gloss_errors_are_summed_over_the_drawn_clips() -> None:
    ours = [word_errors(["A", "B"], ["A", "B"]), word_errors([], ["A", "B", "C", "D"])] * 10
    theirs = [WordErrors(deletions=n, num_words=n) for n in (2, 4)] * 10
    found = gloss_difference(ours, theirs)
    assert found["value"] == pytest.approx(100 * 40 / 60 - 100)
    assert found["low"] < found["value"] < found["high"] < 0
