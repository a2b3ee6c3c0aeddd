"""When each gloss is signed, from the CTC outputs of a head: its spike, and the frames around it that are most its own.

CTC learns the order of glosses, not their length: a head says each in one or two steps and blank in between. The steps
between two spikes are divided where the probabilities of the two glosses, blank left aside, change sides. Letters: S
steps, G glosses with the blank first, L glosses of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from signstreams.array_types import Floats, Ints
from signstreams.formats.subtitles import Cue
from signstreams.integrate.corpus_rules import TIME_STRIDE
from signstreams.integrate.losses import BLANK_ID

REACH_S = 0.6  # farthest from its spike that a gloss may extend: few signs last longer than twice that


def gloss_spans(logits: Floats, reach_steps: int, ids: Sequence[int] | None = None) -> list[tuple[int, int, int]]:
    """Gloss id, first step and step after the last, of (S, G) logits; in order, apart, those of `ctc_greedy`.

    ``reach_steps`` is the largest number of steps before and after the spike; ``ids`` are the glosses where they were
    not decoded greedily: they are aligned first. None are found where there are too few steps for them.
    """
    best = logits.argmax(axis=1) if ids is None else ctc_alignment(logits, ids)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    spikes = [(int(best[a]), a, b) for a, b in pairwise(edges) if a < b and best[a] != BLANK_ID]
    if not spikes:
        return []
    scores = logits.astype(np.float64)
    scores[:, BLANK_ID] = -np.inf
    starts = [max(0, spikes[0][1] - reach_steps)]
    ends = []
    for (one, _, end), (other, start, _) in pairwise(spikes):
        # the cut after which the later gloss has more evidence than the earlier one
        gain = scores[end:start, one] - scores[end:start, other]
        cut = end + int(np.concatenate(([0.0], gain.cumsum())).argmax())
        ends.append(min(cut, end + reach_steps))
        starts.append(max(cut, start - reach_steps))
    ends.append(min(len(best), spikes[-1][2] + reach_steps))
    return [(gloss, start, end) for (gloss, _, _), start, end in zip(spikes, starts, ends, strict=True)]


def ctc_alignment(logits: Floats, ids: Sequence[int]) -> Ints:
    """Label of each step of (S, G) logits, on the most probable path that collapses to ``ids``; blank where none does.

    Viterbi over the glosses with blanks around them (Graves et al. 2006). Of those that were decoded greedily it is the
    path of the best label of each step.
    """
    states = [BLANK_ID]
    for gloss in ids:
        states += [gloss, BLANK_ID]  # (2 L + 1,)
    gains = logits.astype(np.float64)[:, states]  # (S, 2 L + 1); a step's softmax is the same for all of its labels
    may_skip = np.array([n % 2 == 1 and n > 1 and states[n] != states[n - 2] for n in range(len(states))])
    best = np.full(len(states), -np.inf)
    best[:2] = gains[0, :2]
    came_from = np.zeros(gains.shape, np.int64)  # how many states before its own each step's state follows
    for step in range(1, len(gains)):
        before = np.stack([best, np.roll(best, 1), np.where(may_skip, np.roll(best, 2), -np.inf)])  # (3, 2 L + 1)
        before[1, 0] = -np.inf
        came_from[step] = before.argmax(axis=0)
        best = before.max(axis=0) + gains[step]
    state = len(states) - 1 if len(states) == 1 or best[-1] > best[-2] else len(states) - 2
    path = np.full(len(gains), BLANK_ID)
    if not np.isfinite(best[state]):
        return path
    for step in range(len(gains) - 1, -1, -1):
        path[step] = states[state]
        state -= int(came_from[step, state])
    return path


def gloss_cues(
    logits: Floats, frames: range, times_s: Floats, names: Sequence[str], ids: Sequence[int] | None = None
) -> list[Cue]:
    """Glosses of a clip with their times; ``frames`` are the clip's among those of the video at ``times_s``.

    Step s is centred on frame 4 s of the clip, so that it covers the frames from 4 s - 2 on. ``ids`` as of
    `gloss_spans`.
    """
    step_s = TIME_STRIDE * _frame_s(frames, times_s)
    spans = gloss_spans(logits, max(1, round(REACH_S / step_s)), ids)

    def moment(step: int) -> float:
        place = TIME_STRIDE * step - TIME_STRIDE // 2
        if place >= len(frames):
            return float(times_s[frames[-1]]) + _frame_s(frames, times_s)
        return float(times_s[frames[max(0, place)]])

    return [Cue(moment(start), moment(end), names[gloss]) for gloss, start, end in spans]


def _frame_s(frames: range, times_s: Floats) -> float:
    """Mean time between two frames of a clip."""
    if len(frames) < 2:
        return float(np.diff(times_s[:2])[0]) if len(times_s) > 1 else 0.04
    return float(times_s[frames[-1]] - times_s[frames[0]]) / (len(frames) - 1)
