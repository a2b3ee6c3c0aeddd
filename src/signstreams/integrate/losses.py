"""Translation, CTC and self-distillation losses; each as a sum with its count, so that any batching gives one mean.

Letters: B clips, S steps, G glosses with the blank, L text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.engine import distributed
from signstreams.integrate.batches import NO_TOKEN, Batch
from signstreams.integrate.mska import num_steps

BLANK_ID = 0
TRANSLATION, CTC, DISTILLATION = "translation", "ctc", "distillation"


@dataclass(frozen=True)
class Term:
    """One loss: ``total`` over ``count`` items (tokens, clips or steps)."""

    total: Tensor
    count: int

    @property
    def mean(self) -> Tensor:
        """Mean over the items; 0 when there are none."""
        return self.total / max(1, self.count)


def translation_loss(logits: Tensor, tokens: Tensor, *, label_smoothing: float) -> Term:
    """Cross-entropy of each token, padding left out.

    Args:
        logits: (B, L, vocabulary).
        tokens: (B, L), padded with `NO_TOKEN`.
        label_smoothing: Share of the target spread over the vocabulary.
    """
    total = F.cross_entropy(
        logits.float().flatten(0, 1),
        tokens.flatten(),
        ignore_index=NO_TOKEN,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return Term(total, int((tokens != NO_TOKEN).sum()))


def ctc_steps_needed(labels: list[int]) -> int:
    """Shortest input that CTC can align with ``labels``: one step each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def ctc_usable(glosses: list[list[int] | None], num_steps: list[int]) -> tuple[list[int], int]:
    """Rows that have glosses and steps enough for them, and how many are too short; inputs are never stretched."""
    labelled = [row for row, labels in enumerate(glosses) if labels is not None]
    rows = [row for row in labelled if num_steps[row] >= max(1, ctc_steps_needed(glosses[row] or []))]
    return rows, len(labelled) - len(rows)


def ctc_loss(logits: Tensor, num_steps: Tensor, glosses: list[list[int] | None], rows: list[int]) -> Term:
    """CTC (Graves et al. 2006), blank 0, of the clips in ``rows``: negative log-likelihood summed over time.

    Args:
        logits: (B, S, G).
        num_steps: (B,) each clip's own steps: the input length, whatever the padding.
        glosses: Label ids of each clip; None without annotation.
        rows: From `ctc_usable`.
    """
    if not rows:
        return Term(logits.sum() * 0.0, 0)
    targets = [glosses[row] or [] for row in rows]
    losses = F.ctc_loss(
        F.log_softmax(logits[rows].float(), dim=-1).transpose(0, 1),  # (S, B', G)
        torch.tensor([label for labels in targets for label in labels], device=logits.device),
        num_steps[rows],
        torch.tensor([len(labels) for labels in targets], device=logits.device),
        blank=BLANK_ID,
        reduction="none",
        zero_infinity=True,
    )
    return Term(losses.sum(), len(rows))


def distillation_loss(logits: dict[str, Tensor], mask: Tensor) -> Term:
    """KL divergence of each head from the mean of all heads' probabilities, per step, summed over heads.

    The mean is the teacher and gets no gradient (MSKA, section 3.4); padding does not count.

    Args:
        logits: Head to (B, S, G).
        mask: (B, S) bool, True on a clip's own steps.
    """
    log_probs = torch.stack([F.log_softmax(scores[mask].float(), dim=-1) for scores in logits.values()])  # (H, N, G)
    teacher = log_probs.detach().exp().mean(dim=0)  # (N, G)
    log_teacher = teacher.clamp_min(1e-12).log()
    total = (teacher * (log_teacher - log_probs)).sum()
    return Term(total, int(mask.sum()))


def joint_counts(batches: list[Batch], device: torch.device) -> dict[str, int]:
    """By how many items each term of a joint batch is divided: tokens, clips with usable glosses, steps.

    Args:
        batches: This process's parts of the joint batch.
        device: Where processes exchange numbers.
    """
    counts = torch.zeros(3, dtype=torch.int64)
    for batch in batches:
        steps = num_steps(batch.lengths)
        usable, _ = ctc_usable(batch.gloss_ids, steps.tolist())
        counts += torch.tensor([int((batch.tokens != NO_TOKEN).sum()), len(usable), int(steps.sum())])
    joint = distributed.all_reduce_sum(counts.to(device)).tolist()
    return dict(zip((TRANSLATION, CTC, DISTILLATION), joint, strict=True))


def total_loss(terms: dict[str, Term], weights: dict[str, float], counts: dict[str, int]) -> Tensor:
    """Weighted sum of the terms' totals, each over the count of the joint batch."""
    parts = [weight * terms[name].total / max(1, counts[name]) for name, weight in weights.items() if name in terms]
    return torch.stack(parts).sum()
