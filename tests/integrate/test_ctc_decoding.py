"""Gloss sequences from CTC outputs, against every alignment written out."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch

from signstreams.integrate.ctc_decoding import ctc_beam_search, ctc_decode, ctc_greedy


def probabilities(logits: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Each sequence of labels to the sum over all paths that collapse to it, of (S, G) logits."""
    probs = logits.double().softmax(-1).tolist()
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        labels = tuple(label for label, _ in itertools.groupby(path) if label != 0)
        found[labels] += math.prod(probs[step][label] for step, label in enumerate(path))
    return found


def slow_beam_search(logits: torch.Tensor, num_beams: int) -> list[int]:
    """The same search, prefix by prefix: kept are the most probable after each step."""
    probs = logits.double().softmax(-1).tolist()
    beams = {(): (1.0, 0.0)}  # prefix to the probability of ending in blank, and in its last label
    for row in probs:
        after: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (blank, label) in beams.items():
            after[prefix][0] += (blank + label) * row[0]
            if prefix:
                after[prefix][1] += label * row[prefix[-1]]
            for new in range(1, len(row)):
                total = blank if prefix and prefix[-1] == new else blank + label
                after[(*prefix, new)][1] += total * row[new]
        kept = sorted(after, key=lambda prefix: -sum(after[prefix]))[:num_beams]
        beams = {prefix: (after[prefix][0], after[prefix][1]) for prefix in kept}
    return list(max(beams, key=lambda prefix: sum(beams[prefix])))


@pytest.mark.parametrize(("steps", "labels"), [(1, 3), (4, 3), (6, 3), (5, 4)])
def test_with_beams_for_all_the_result_is_the_most_probable_of_all_alignments(steps: int, labels: int) -> None:
    torch.manual_seed(steps * labels)
    logits = 2 * torch.randn(20, steps, labels)
    found = ctc_beam_search(logits, [steps] * 20, 400)
    expected = []
    for clip in logits:
        every = probabilities(clip)
        assert sum(every.values()) == pytest.approx(1)
        expected.append(list(max(every, key=lambda labels: every[labels])))
    assert found == expected
    if steps > 1:
        assert found != ctc_greedy(logits, [steps] * 20)  # the best path is not always that of the best labels


@pytest.mark.parametrize("num_beams", [2, 3, 5])
def test_with_few_beams_the_same_prefixes_are_kept_as_one_by_one(num_beams: int) -> None:
    torch.manual_seed(num_beams)
    logits = torch.randn(12, 15, 6)
    found = ctc_beam_search(logits, [15] * 12, num_beams)
    assert found == [slow_beam_search(clip, num_beams) for clip in logits]


def test_a_repeated_gloss_is_kept_where_a_blank_lies_between() -> None:
    labels = torch.tensor([[0, 2, 2, 0, 2, 1, 1, 3]])
    logits = 20 * torch.nn.functional.one_hot(labels, 4).float()
    assert ctc_beam_search(logits, [8], 4) == ctc_greedy(logits, [8]) == [[2, 2, 1, 3]]


def test_neither_padding_nor_other_clips_change_a_clip() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 9, 5)
    steps = [9, 1, 4, 6]
    alone = [ctc_beam_search(logits[row : row + 1, :count], [count], 3)[0] for row, count in enumerate(steps)]
    padded = torch.nn.functional.pad(logits, (0, 0, 0, 5), value=30.0)
    assert ctc_beam_search(padded, steps, 3) == alone
    assert ctc_beam_search(logits, [0, 0, 9, 1], 3)[:2] == [[], []]


def test_impossible_labels_are_never_said() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 6, 4)
    logits[:, :, 2] = -torch.inf
    found = ctc_beam_search(logits, [6] * 3, 50)
    assert found == [slow_beam_search(clip, 50) for clip in logits] and all(2 not in labels for labels in found)


def test_one_beam_is_greedy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 12, 4)
    assert ctc_decode(logits, [12] * 8, 1) == ctc_greedy(logits, [12] * 8)
    assert ctc_decode(logits, [12] * 8, 6) == ctc_beam_search(logits, [12] * 8, 6)
