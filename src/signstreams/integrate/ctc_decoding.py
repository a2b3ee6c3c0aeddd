"""Gloss sequences from CTC outputs: greedy, and prefix beam search.

Letters: B clips, S steps, G glosses with the blank first, W beams, L labels of the longest prefix.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.integrate.losses import BLANK_ID


def ctc_decode(logits: Tensor, num_steps: list[int], num_beams: int) -> list[list[int]]:
    """Labels of each clip in (B, S, G), of its own steps alone; greedy with one beam."""
    return ctc_greedy(logits, num_steps) if num_beams == 1 else ctc_beam_search(logits, num_steps, num_beams)


def ctc_greedy(logits: Tensor, num_steps: list[int]) -> list[list[int]]:
    """Best label of each step of (B, S, G), repeats merged, blanks dropped; only a clip's own steps count."""
    best = logits.argmax(dim=-1).tolist()  # (B, S)
    paths = [labels[:length] for labels, length in zip(best, num_steps, strict=True)]
    return [[b for a, b in pairwise([BLANK_ID, *path]) if b not in (a, BLANK_ID)] for path in paths]


def ctc_beam_search(logits: Tensor, num_steps: list[int], num_beams: int) -> list[list[int]]:
    """Most probable labels of each clip in (B, S, G), among the ``num_beams`` prefixes kept after each step.

    A prefix has the probability of all alignments that collapse to it (Graves 2012; Hannun et al. 2014,
    arXiv 1408.2873): with beams for every prefix the result is the exact optimum. All clips and beams advance together.
    """
    batch, size, num_labels = logits.shape
    device = logits.device
    log_probs = F.log_softmax(logits.double(), dim=-1)  # (B, S, G); sums of many alignments, hence float64
    width = num_beams
    prefixes = torch.full((batch, width, size + 1), BLANK_ID, device=device)  # (B, W, L), blank where they have ended
    lengths = torch.zeros(batch, width, dtype=torch.int64, device=device)  # (B, W)
    # log-probabilities of the alignments that end in blank, and of those that end in the prefix's last label
    in_blank = torch.full((batch, width), -torch.inf, dtype=torch.float64, device=device)
    in_label = in_blank.clone()
    in_blank[:, 0] = 0.0  # one empty prefix; the other beams do not exist yet
    clips = torch.arange(batch, device=device)[:, None]  # (B, 1)
    is_running = torch.arange(size, device=device) < torch.tensor(num_steps, device=device)[:, None]  # (B, S)
    for step in range(max(num_steps, default=0)):
        now = log_probs[:, step]  # (B, G)
        total = torch.logaddexp(in_blank, in_label)  # (B, W)
        last = prefixes.gather(2, (lengths - 1).clamp(min=0)[..., None])[..., 0]  # (B, W); blank of an empty prefix
        has_label = lengths > 0
        stay_blank = total + now[:, BLANK_ID, None]
        stay_label = torch.where(has_label, in_label + now.gather(1, last), -torch.inf)
        # a label after itself is a new one only after a blank
        grown = total[..., None] + now[:, None]  # (B, W, G)
        after_blank = (in_blank + now.gather(1, last))[..., None]
        grown = grown.scatter(2, last[..., None], torch.where(has_label[..., None], after_blank, -torch.inf))
        grown[..., BLANK_ID] = -torch.inf
        # beam j may be beam i and one more label: what grows into it belongs to it, and must not be there twice
        stem = prefixes.scatter(2, (lengths - 1).clamp(min=0)[..., None], BLANK_ID)
        is_parent = (prefixes[:, :, None] == stem[:, None]).all(dim=-1)  # (B, W of i, W of j)
        is_parent &= (lengths[:, :, None] + 1 == lengths[:, None]) & total.isfinite()[:, None]
        into = grown.gather(2, last[:, None].expand(-1, width, -1))  # (B, i, j): beam i and the last label of beam j
        stay_label = torch.logaddexp(stay_label, into.masked_fill(~is_parent, -torch.inf).logsumexp(dim=1))
        taken = torch.zeros_like(grown).scatter_add(2, last[:, None].expand(-1, width, -1), is_parent.double())
        grown = grown.masked_fill(taken > 0, -torch.inf)
        stay = torch.logaddexp(stay_blank, stay_label)
        chosen = torch.cat((stay, grown.flatten(1)), dim=1).topk(width, dim=1).indices  # (B, W)
        is_grown = chosen >= width
        beam = torch.where(is_grown, (chosen - width).div(num_labels, rounding_mode="floor"), chosen)
        label = torch.where(is_grown, (chosen - width) % num_labels, BLANK_ID)
        place = lengths.gather(1, beam)  # where a new label goes
        longer = prefixes[clips, beam].scatter(2, place[..., None], label[..., None])
        new_blank = torch.where(is_grown, -torch.inf, stay_blank.gather(1, beam))
        new_label = torch.where(is_grown, grown[clips, beam, label], stay_label.gather(1, beam))
        runs = is_running[:, step, None]  # of clips that have ended, nothing changes
        prefixes = torch.where(runs[..., None], longer, prefixes)
        lengths = torch.where(runs, place + is_grown, lengths)
        in_blank, in_label = torch.where(runs, new_blank, in_blank), torch.where(runs, new_label, in_label)
    best = torch.logaddexp(in_blank, in_label).argmax(dim=1)  # (B,)
    found = prefixes[clips[:, 0], best].tolist()
    return [[label for label in labels if label != BLANK_ID] for labels in found]
