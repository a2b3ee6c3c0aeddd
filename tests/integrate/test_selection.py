"""Which evaluation becomes best.pt, and from which head glosses are read."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest

from signstreams.integrate.evaluate import Evaluation, Prediction
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.selection import Candidate, Choice
from signstreams.integrate.text_scores import WordErrors, gloss_errors, translation_scores

SCORING = ScoringConfig()


def sentences(num: int) -> list[str]:
    return [" ".join(f"palabra{(i + k) % 25}" for k in range(8)) for i in range(num)]


REFERENCES = sentences(40)


def candidate(num_wrong: int, *, wer: float = math.inf, loss: float = 1.0, wrong_from: int = 0) -> Candidate:
    """An evaluation in which so many sentences are nothing but a wrong word."""
    texts = list(REFERENCES)
    for i in range(wrong_from, wrong_from + num_wrong):
        texts[i] = " ".join(["nada"] * 8)
    scores = translation_scores(texts, REFERENCES)
    return Candidate(loss, wer, scores["bleu_4"], scores["chrf"], texts)


def taken(*candidates: Candidate, choice: Choice | None = None) -> list[bool]:
    choice = Choice() if choice is None else choice
    return [choice.take(new, REFERENCES, SCORING) for new in candidates]


def test_a_clearly_higher_bleu_is_taken_whatever_the_glosses_are() -> None:
    assert taken(candidate(30, wer=10), candidate(2, wer=90)) == [True, True]
    assert taken(candidate(2, wer=90), candidate(30, wer=10)) == [True, False]


def test_of_evaluations_within_a_standard_error_the_one_with_fewer_gloss_errors_is_taken() -> None:
    lucky, later = candidate(10, wer=40), candidate(11, wer=20, wrong_from=20)
    assert later.bleu < lucky.bleu
    assert taken(lucky, later) == [True, True]
    assert taken(later, lucky) == [True, False]  # the order is no matter


def test_without_glosses_chrf_decides_and_last_the_loss() -> None:
    lucky, later = candidate(10), candidate(11, wrong_from=20)
    assert taken(lucky, later) == [True, False]
    told = [Candidate(c.loss, c.wer, c.bleu, chrf, c.texts) for c, chrf in ((lucky, 50.0), (later, 51.0))]
    assert taken(*told) == [True, True]
    equal = [candidate(10, loss=loss) for loss in (2.0, 1.9, 1.9, 2.1)]
    assert taken(*equal) == [True, True, False, False]


def test_many_small_steps_down_end_at_one_standard_error_below_the_highest() -> None:
    """Each is close to the one before it, but all are compared with the highest."""
    choice = Choice()
    steps = [candidate(5 + i, wer=90 - i, wrong_from=10) for i in range(25)]
    found = taken(*steps, choice=choice)
    last = max(i for i, is_taken in enumerate(found) if is_taken)
    assert 0 < last < 10 and not any(found[last + 1 :])
    assert choice.top_bleu == steps[0].bleu > choice.best_bleu == steps[last].bleu


def test_a_higher_top_that_leaves_the_best_behind_is_taken() -> None:
    choice = Choice()
    assert taken(candidate(20, wer=20), candidate(18, wer=30, wrong_from=20), choice=choice) == [True, False]
    assert choice.top_bleu > choice.best_bleu
    assert taken(candidate(1, wer=40), choice=choice) == [True]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_never_best(loss: float) -> None:
    choice = Choice()
    assert taken(candidate(0, loss=loss), choice=choice) == [False]
    assert not choice.has_best
    assert taken(candidate(30), candidate(0, loss=loss), candidate(29), choice=choice) == [True, False, True]
    assert taken(Candidate(loss, wer=0.0)) == [False]


def test_where_no_text_is_learned_the_lower_wer_is_taken_and_of_equal_ones_the_lower_loss() -> None:
    found = taken(*(Candidate(loss, wer) for loss, wer in ((9.0, 50.0), (9.5, 49.0), (1.0, 51.0), (9.4, 49.0))))
    assert found == [True, True, False, True]


def test_clips_and_sentences_are_aligned_by_recall_and_restored_by_the_loss() -> None:
    aligned = [Candidate(loss, retrieval=recall) for loss, recall in ((2.0, 10.0), (3.0, 11.0), (1.0, 10.0))]
    assert taken(*aligned) == [True, True, False]
    assert taken(*(Candidate(loss) for loss in (2.0, 1.5, 1.6))) == [True, True, False]


def test_a_run_begun_before_texts_were_kept_goes_on_by_the_highest_bleu() -> None:
    choice = Choice(best_bleu=40.0, best_loss=2.0, best_wer=50.0)
    near, higher = Candidate(1.0, 10.0, 39.9, 60.0, REFERENCES), Candidate(2.5, 90.0, 40.1, 10.0, REFERENCES)
    equal = Candidate(2.4, 90.0, 40.1, 10.0, REFERENCES)
    assert taken(near, higher, near, equal, choice=choice) == [False, True, False, True]


def test_a_choice_is_plain_values() -> None:
    choice = Choice()
    taken(candidate(10, wer=40), candidate(11, wer=20, wrong_from=20), choice=choice)
    again = Choice(**asdict(choice))
    assert again == choice and again.best.rank == choice.best.rank


def heard(**num_wrong: int) -> Evaluation:
    """40 clips of four glosses each; each head has another quarter of the clips wrong, so many of them."""
    signed = [[f"GLOSA{(i + k) % 9}" for k in range(4)] for i in range(40)]
    heads = list(num_wrong)

    def said(head: str, i: int) -> list[str]:
        first = 10 * heads.index(head)
        return ["NADA"] * 4 if first <= i < first + num_wrong[head] else signed[i]

    entries: list[Any] = [SimpleNamespace(gloss=glosses) for glosses in signed]
    entries[39].gloss = None  # a clip without glosses is no part of it
    predictions = [Prediction(entry, "", {head: said(head, i) for head in heads}) for i, entry in enumerate(entries)]
    errors = {}
    for head in heads:
        found = [
            gloss_errors(p.glosses[head], p.entry.gloss, SCORING) for p in predictions if p.entry.gloss is not None
        ]
        errors[head] = sum(found, WordErrors())
    return Evaluation(predictions, {}, 0, errors)


@pytest.mark.parametrize(
    ("num_wrong", "head"),
    [
        ({"fuse": 5, "left": 9, "right": 8}, "fuse"),
        ({"fuse": 8, "left": 9, "right": 7}, "fuse"),  # right is lower, but by chance
        ({"fuse": 9, "left": 8, "right": 1}, "right"),
        ({"fuse": 10, "left": 1, "right": 0}, "right"),
        ({"fuse": 8, "left": 7, "right": 7, "body": 1}, "body"),
    ],
)
def test_glosses_are_read_from_the_fuse_head_unless_another_is_clearly_better(
    num_wrong: dict[str, int], head: str
) -> None:
    found = heard(**num_wrong)
    assert found.best_head == head
    assert found.best_wer == found.word_errors[head].rate


def test_without_glosses_there_is_no_head() -> None:
    found = Evaluation([], {}, 0)
    assert found.best_head is None and found.best_wer == math.inf


def test_where_the_split_has_no_glosses_those_that_are_learned_are_the_fuse_heads() -> None:
    known = heard(fuse=5, left=1)
    predictions = [replace(one, entry=SimpleNamespace(gloss=None)) for one in known.predictions]
    found = Evaluation(predictions, {}, 0)
    assert found.best_head == "fuse" and found.best_wer == math.inf
