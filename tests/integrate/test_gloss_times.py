"""When glosses are signed: spikes of CTC, and the cut between two where the evidence changes sides."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from signstreams.integrate.ctc_decoding import ctc_greedy
from signstreams.integrate.gloss_times import ctc_alignment, gloss_cues, gloss_spans


@pytest.mark.parametrize("seed", range(30))
def test_the_glosses_are_those_of_greedy_decoding_in_order_and_apart(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(20, 4))
    logits[:, 0] += 1.5  # blank
    spans = gloss_spans(logits, 3)
    (expected,) = ctc_greedy(torch.from_numpy(logits)[None], [20])
    assert [gloss for gloss, _, _ in spans] == expected
    assert all(start < end for _, start, end in spans)
    edges = [edge for _, start, end in spans for edge in (start, end)]
    assert edges == sorted(edges) and (not edges or (edges[0] >= 0 and edges[-1] <= 20))
    spikes = logits.argmax(axis=1)
    for gloss, start, end in spans:
        assert gloss in spikes[start:end]


def test_steps_of_blank_go_to_the_gloss_with_more_evidence() -> None:
    logits = np.zeros((12, 3))
    logits[:, 0] = 5.0  # blank
    logits[2, 1] = logits[9, 2] = 9.0
    logits[3:7, 1] = 2.0
    logits[7:9, 2] = 2.0
    assert gloss_spans(logits, 10) == [(1, 0, 7), (2, 7, 12)]
    assert gloss_spans(logits, 2) == [(1, 0, 5), (2, 7, 12)]
    assert gloss_spans(logits[:2], 2) == []


def test_a_step_covers_the_frames_around_its_own() -> None:
    times_s = np.arange(100) / 25
    logits = np.zeros((5, 2))
    logits[:, 0] = 1.0
    logits[2, 1] = 3.0
    frames = range(10, 50, 2)  # twenty of the clip: step 2 is centred on its frame 8, frame 26 of the video
    (cue,) = gloss_cues(logits, frames, times_s, ["<blank>", "CASA"])
    assert cue.text == "CASA"
    assert cue.start_s <= times_s[22] and cue.end_s >= times_s[30]
    assert times_s[10] <= cue.start_s and cue.end_s <= times_s[48] + 2 / 25 + 1e-9


def paths_to(ids: list[int], num_steps: int, num_labels: int) -> list[tuple[int, ...]]:
    """All labels of the steps that collapse to the glosses."""
    return [
        path
        for path in product(range(num_labels), repeat=num_steps)
        if [b for a, b in pairwise((0, *path)) if b not in (a, 0)] == ids
    ]


@pytest.mark.parametrize("ids", [[], [1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2]])
def test_the_alignment_is_the_best_of_all_paths(ids: list[int]) -> None:
    rng = np.random.default_rng(len(ids))
    for _ in range(5):
        logits = rng.normal(size=(5, 3))
        path = ctc_alignment(logits, ids)
        best = max(logits[range(5), list(other)].sum() for other in paths_to(ids, 5, 3))
        assert logits[range(5), path].sum() == pytest.approx(best)
        assert [gloss for gloss, _, _ in gloss_spans(logits, 2, ids)] == ids


def test_glosses_that_no_path_has_room_for_have_no_times() -> None:
    assert ctc_alignment(np.zeros((2, 3)), [1, 1]).tolist() == [0, 0] and gloss_spans(np.zeros((2, 3)), 1, [1, 1]) == []


@pytest.mark.parametrize("seed", range(5))
def test_what_was_decoded_greedily_is_aligned_as_it_was_decoded(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(20, 4))
    (ids,) = ctc_greedy(torch.from_numpy(logits)[None], [20])
    assert gloss_spans(logits, 3, ids) == gloss_spans(logits, 3)
