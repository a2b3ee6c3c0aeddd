"""What a model does on a split: every loss term, translations, gloss sequences, and their scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from signstreams.config.integrate import IntegrateConfig
from signstreams.corpus import GlossVocabulary
from signstreams.integrate.batches import Batch, ReadImages, Sample, collate, in_order
from signstreams.integrate.losses import (
    BLANK_ID,
    Term,
    ctc_loss,
    ctc_usable,
    distillation_loss,
    translation_loss,
)
from signstreams.integrate.model import Encoded, MultistreamModel
from signstreams.integrate.scores import WordErrors, translation_scores, word_errors
from signstreams.integrate.text import TextTokenizer

TRANSLATION, CTC, DISTILLATION = "translation", "ctc", "distillation"


@dataclass(frozen=True)
class Losses:
    """Loss terms of a batch.

    Attributes:
        terms: ``translation``; with glosses ``ctc`` (summed over heads) and ``distillation``, and ``ctc_<head>``.
        num_ctc_skipped: Clips too short for their glosses.
    """

    terms: dict[str, Term]
    num_ctc_skipped: int


def loss_weights(config: IntegrateConfig, *, distils: bool) -> dict[str, float]:
    """Weight of each term in the total; ``distils`` says whether self-distillation has started."""
    return {
        TRANSLATION: config.mska.translation_weight,
        CTC: config.mska.ctc_weight,
        DISTILLATION: config.mska.distillation_weight if distils else 0.0,
    }


def compute_losses(model: MultistreamModel, batch: Batch, encoded: Encoded, *, label_smoothing: float) -> Losses:
    """Every term of a batch; the same in training and in validation."""
    logits = model.text_logits(encoded, batch.tokens)  # (B, L, vocabulary)
    terms = {TRANSLATION: translation_loss(logits, batch.tokens, label_smoothing=label_smoothing)}
    num_skipped = 0
    if encoded.gloss_logits:
        rows, num_skipped = ctc_usable(batch.gloss_ids, encoded.num_steps.tolist())
        heads = {
            name: ctc_loss(scores, encoded.num_steps, batch.gloss_ids, rows)
            for name, scores in encoded.gloss_logits.items()
        }
        terms[CTC] = Term(torch.stack([term.total for term in heads.values()]).sum(), len(rows))
        terms[DISTILLATION] = distillation_loss(encoded.gloss_logits, encoded.mask)
        terms |= {f"{CTC}_{name}": term for name, term in heads.items()}
    return Losses(terms, num_skipped)


def total_loss(losses: Losses, weights: dict[str, float]) -> Tensor:
    """Weighted sum of the means."""
    parts = [weight * losses.terms[name].mean for name, weight in weights.items() if name in losses.terms]
    return torch.stack(parts).sum()


def ctc_greedy(logits: Tensor, num_steps: Tensor) -> list[list[int]]:
    """Best label of each step, repeats merged, blanks dropped; only a clip's own steps count.

    Args:
        logits: (B, S, G).
        num_steps: (B,).
    """
    best = logits.argmax(dim=-1).tolist()  # (B, S)
    sequences = []
    for labels, length in zip(best, num_steps.tolist(), strict=True):
        own = labels[:length]
        sequences.append([a for a, b in zip(own, [BLANK_ID, *own], strict=False) if a not in (b, BLANK_ID)])
    return sequences


@dataclass
class Prediction:
    """One clip's hypotheses.

    Attributes:
        sample: The clip.
        text: Translation.
        glosses: Head to gloss sequence; empty without glosses.
    """

    sample: Sample
    text: str
    glosses: dict[str, list[str]]


@dataclass
class Evaluation:
    """Of one split.

    Attributes:
        predictions: In the order of the split.
        losses: Mean of each term, over tokens, clips or steps of the whole split; ``total`` with all weights.
        num_ctc_skipped: Clips too short for their glosses.
        word_errors: Head to gloss word errors over the clips that have glosses.
    """

    predictions: list[Prediction]
    losses: dict[str, float]
    num_ctc_skipped: int
    word_errors: dict[str, WordErrors] = field(default_factory=dict)

    def translation(self) -> dict[str, Any]:
        """`translation_scores` against the untouched texts."""
        return translation_scores(
            [prediction.text for prediction in self.predictions],
            [prediction.sample.text for prediction in self.predictions],
        )

    def best_head(self) -> str | None:
        """Head with the lowest word error rate; of equals the first. None without glosses."""
        return min(self.word_errors, key=lambda head: self.word_errors[head].rate) if self.word_errors else None


@torch.no_grad()
def evaluate(
    model: MultistreamModel,
    samples: list[Sample],
    config: IntegrateConfig,
    tokenizer: TextTokenizer,
    vocabulary: GlossVocabulary | None,
    device: torch.device,
    *,
    read_images: ReadImages | None = None,
) -> Evaluation:
    """Losses and greedy decodings of ``samples``; no augmentation, no dropout, always the same."""
    was_training = model.training
    model.eval()
    sums: dict[str, list[float]] = {}
    found: dict[int, Prediction] = {}
    num_skipped = 0
    for rows in in_order([sample.num_frames for sample in samples], config.data.batch_size):
        chosen = [samples[row] for row in rows]
        batch = collate(chosen, trained=list(model.backbones), read_images=read_images).to(device)
        encoded = model.encode(batch)
        losses = compute_losses(model, batch, encoded, label_smoothing=config.optim.label_smoothing)
        num_skipped += losses.num_ctc_skipped
        for name, term in losses.terms.items():
            total = sums.setdefault(name, [0.0, 0])
            total[0] += float(term.total)
            total[1] += term.count
        texts = model.translate(encoded)
        glosses = {head: ctc_greedy(scores, encoded.num_steps) for head, scores in encoded.gloss_logits.items()}
        for place, row in enumerate(rows):
            decoded = {head: vocabulary.decode(ids[place]) for head, ids in glosses.items()} if vocabulary else {}
            found[row] = Prediction(samples[row], tokenizer.decode(texts[place]), decoded)
    model.train(was_training)
    means = {name: total / max(1, count) for name, (total, count) in sums.items()}
    weights = loss_weights(config, distils=True)
    means["total"] = sum(weight * means[name] for name, weight in weights.items() if name in means)
    predictions = [found[row] for row in range(len(samples))]
    return Evaluation(predictions, means, num_skipped, _word_errors(predictions))


def _word_errors(predictions: list[Prediction]) -> dict[str, WordErrors]:
    errors: dict[str, WordErrors] = {}
    for prediction in predictions:
        if prediction.sample.gloss is not None:
            for head, glosses in prediction.glosses.items():
                edits = word_errors(glosses, prediction.sample.gloss)
                errors[head] = errors.get(head, WordErrors()) + edits
    return errors
