"""Losses of translation, CTC, self-distillation, alignment and restoration.

Each is a sum with its count, so that any batching gives the same mean.

What depends on lengths only is computed on the CPU, from `Batch.num_frames`: nothing here waits for a GPU.

Letters: B clips, S steps, G glosses with the blank, L text tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.corpus.gloss import ctc_steps_needed
from signstreams.engine import distributed
from signstreams.engine.device import to_device
from signstreams.integrate.alignment import Pairs
from signstreams.integrate.batches import NO_TOKEN, Batch
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.text_model import Encoded, TextModel

BLANK_ID = 0
TRANSLATION, CTC, DISTILLATION = "translation", "ctc", "distillation"
ALIGNMENT, RESTORATION = "alignment", "restoration"  # of stage vlp
TERMS = (TRANSLATION, CTC, DISTILLATION, ALIGNMENT, RESTORATION)
CLIPS = "clips"  # count of all clips


@dataclass(frozen=True)
class LossTerm:
    """One loss: ``total`` over ``count`` items (tokens, clips or steps)."""

    total: Tensor
    count: int


def translation_loss(logits: Tensor, tokens: Tensor, *, label_smoothing: float) -> Tensor:
    """Cross-entropy of ``logits`` (B, L, vocabulary), summed over ``tokens`` (B, L) without padding (`NO_TOKEN`)."""
    return F.cross_entropy(
        logits.float().flatten(0, 1),
        tokens.flatten(),
        ignore_index=NO_TOKEN,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def ctc_usable(glosses: list[list[int] | None], num_steps: list[int]) -> tuple[list[int], int]:
    """Rows that have glosses and steps enough for them, and how many are too short; inputs are never stretched."""
    labelled = [row for row, labels in enumerate(glosses) if labels is not None]
    rows = [row for row in labelled if num_steps[row] >= max(1, ctc_steps_needed(glosses[row] or []))]
    return rows, len(labelled) - len(rows)


def ctc_loss(logits: Tensor, num_steps: list[int], glosses: list[list[int] | None], rows: list[int]) -> Tensor:
    """CTC (Graves et al. 2006), blank 0: negative log-likelihood, summed over time and over the clips in ``rows``.

    Of ``logits`` (B, S, G) each clip's own steps are its input; ``rows`` come from `ctc_usable`.
    """
    if not rows:
        return logits.sum() * 0.0
    targets = [glosses[row] or [] for row in rows]
    chosen = logits if len(rows) == len(logits) else logits.index_select(0, on_device(rows, logits.device))
    losses = torch.ctc_loss(  # F.ctc_loss takes the lengths as tensors, and would copy those of a GPU back
        F.log_softmax(chosen.float(), dim=-1).transpose(0, 1),  # (S, B', G)
        on_device([label for labels in targets for label in labels], logits.device),
        [num_steps[row] for row in rows],
        [len(labels) for labels in targets],
        blank=BLANK_ID,
        reduction=0,  # none
        zero_infinity=True,
    )
    return losses.sum()


def distillation_loss(logits: dict[str, Tensor], num_steps: list[int]) -> Tensor:
    """KL divergence of each head from the mean of all heads' probabilities, summed over the clips' own steps and heads.

    The mean is the teacher and gets no gradient (MSKA, section 3.4). The logits of each head are (B, S, G).
    """
    first = next(iter(logits.values()))
    own = [row * first.shape[1] + step for row, count in enumerate(num_steps) for step in range(count)]
    rows = on_device(own, first.device)  # (N,)
    own_logits = [scores.flatten(0, 1).index_select(0, rows).float() for scores in logits.values()]  # each (N, G)
    log_probs = torch.stack([F.log_softmax(scores, dim=-1) for scores in own_logits])  # (H, N, G)
    teacher = log_probs.detach().exp().mean(dim=0)  # (N, G)
    log_teacher = teacher.clamp_min(1e-12).log()
    return (teacher * (log_teacher - log_probs)).sum()


def term_counts(batch: Batch) -> dict[str, int]:
    """Items of each term: text tokens, clips with usable glosses, steps, clips. Beside them the number of clips."""
    steps = batch.num_steps
    usable, _ = ctc_usable(batch.gloss_ids, steps)
    num_clips, num_tokens = len(batch.clip_ids), batch.num_tokens
    counts = {TRANSLATION: num_tokens, CTC: len(usable), DISTILLATION: sum(steps)}
    return {**counts, ALIGNMENT: num_clips, RESTORATION: num_tokens, CLIPS: num_clips}


def divisors(counts: Mapping[str, float], config: IntegrateConfig) -> dict[str, float]:
    """By what the total of each term is divided in the loss: its own items, or the clips."""
    found = {name: counts.get(name, 0) for name in TERMS}
    if config.optim.translation_loss == "sentence":
        found[TRANSLATION] = counts[CLIPS]
    if config.mska.distillation == "batch":
        found[DISTILLATION] = counts[CLIPS]
    return found


def joint_counts(batches: list[Batch], device: torch.device) -> dict[str, int]:
    """`term_counts` of a joint batch, from this process's parts of it."""
    own = Counter(dict.fromkeys((*TERMS, CLIPS), 0))
    for batch in batches:
        own.update(term_counts(batch))
    if not distributed.is_distributed():
        return dict(own)
    joint = distributed.all_reduce_sum(torch.tensor(list(own.values()), device=device)).tolist()
    return dict(zip(own, joint, strict=True))


def on_device(numbers: list[int], device: torch.device) -> Tensor:
    """int64 (N,) on a device, copied without waiting for it."""
    return to_device(torch.tensor(numbers, dtype=torch.int64), device)


def total_loss(terms: dict[str, LossTerm], weights: dict[str, float], over: Mapping[str, float]) -> Tensor:
    """Weighted sum of the terms' totals, each over the `divisors` of the joint batch."""
    parts = [weight * terms[name].total / max(1, over[name]) for name, weight in weights.items() if name in terms]
    return torch.stack(parts).sum()


@dataclass(frozen=True)
class Losses:
    """Loss terms of a batch."""

    terms: dict[str, LossTerm]
    """``translation``, unless no text is learned; with glosses also ``ctc`` (summed over heads), ``ctc_<head>`` and
    ``distillation``. In stages vlp and text ``restoration`` in place of ``translation``."""
    num_ctc_skipped: int  # clips too short for their glosses
    pairs: Pairs | None = None
    """In stage vlp, what ``alignment`` is computed from: among the joint batch, or all clips of a split."""


def loss_weights(config: IntegrateConfig, *, distils: bool) -> dict[str, float]:
    """Weight of each term in the total; ``distils`` says whether self-distillation has started."""
    return {
        TRANSLATION: config.mska.translation_weight,
        CTC: config.mska.ctc_weight,
        DISTILLATION: config.mska.distillation_weight if distils else 0.0,
        ALIGNMENT: 1.0,
        RESTORATION: 1.0,  # train_vlp_v2.py:159, loss-lambda
    }


def compute_losses(model: TextModel, batch: Batch, encoded: Encoded, *, label_smoothing: float) -> Losses:
    """All terms of a batch but ``alignment``; the same in training and in validation."""
    counts = term_counts(batch)
    sums: dict[str, Tensor] = {}
    pairs = None
    if model.alignment is not None:
        assert encoded.memory is not None and model.decoder is not None
        pairs = model.alignment.pairs(model.decoder, encoded.memory, encoded.mask, batch.tokens)
        logits = model.alignment.restored(model.decoder, batch.tokens, batch.mask_shares)  # (B, L, vocabulary)
        sums[RESTORATION] = translation_loss(logits, batch.tokens, label_smoothing=label_smoothing)
    elif encoded.memory is not None:
        logits = model.text_logits(encoded, batch.tokens)  # (B, L, vocabulary)
        name = RESTORATION if model.restores_text else TRANSLATION
        sums[name] = translation_loss(logits, batch.tokens, label_smoothing=label_smoothing)
    num_skipped = 0
    if encoded.gloss_logits:
        steps = batch.num_steps
        rows, num_skipped = ctc_usable(batch.gloss_ids, steps)
        heads = {
            f"{CTC}_{name}": ctc_loss(scores, steps, batch.gloss_ids, rows)
            for name, scores in encoded.gloss_logits.items()
        }
        sums[CTC] = torch.stack(list(heads.values())).sum()
        sums[DISTILLATION] = distillation_loss(encoded.gloss_logits, steps)
        sums |= heads
        counts |= dict.fromkeys(heads, len(rows))
    return Losses({name: LossTerm(total, counts[name]) for name, total in sums.items()}, num_skipped, pairs)
