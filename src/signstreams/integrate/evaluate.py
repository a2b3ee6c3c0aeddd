"""What a model does on a split: every loss term, translations, gloss sequences, and their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from signstreams.config.decoder import DecodingConfig
from signstreams.config.integrate import IntegrateConfig
from signstreams.corpus import GlossVocabulary
from signstreams.engine import distributed
from signstreams.engine.distributed import World
from signstreams.engine.precision import autocast
from signstreams.integrate.batches import Batch, ReadImages, collate, in_order
from signstreams.integrate.clips import Clips
from signstreams.integrate.data import ClipEntry
from signstreams.integrate.losses import (
    BLANK_ID,
    CTC,
    DISTILLATION,
    TRANSLATION,
    Term,
    ctc_loss,
    ctc_usable,
    distillation_loss,
    term_counts,
    translation_loss,
)
from signstreams.integrate.model import Encoded, MultistreamModel
from signstreams.integrate.scores import WordErrors, translation_scores, word_errors
from signstreams.integrate.text import TextTokenizer
from signstreams.progress import Progress

GREEDY = DecodingConfig(num_beams=1)
"""Of evaluations during training."""


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
    counts = term_counts(batch)
    sums = {TRANSLATION: translation_loss(logits, batch.tokens, label_smoothing=label_smoothing)}
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
    return Losses({name: Term(total, counts[name]) for name, total in sums.items()}, num_skipped)


def ctc_greedy(logits: Tensor, num_steps: list[int]) -> list[list[int]]:
    """Best label of each step, repeats merged, blanks dropped; only a clip's own steps count.

    Args:
        logits: (B, S, G).
        num_steps: Of each clip.
    """
    best = logits.argmax(dim=-1).tolist()  # (B, S)
    sequences = []
    for labels, length in zip(best, num_steps, strict=True):
        own = labels[:length]
        sequences.append([a for a, b in zip(own, [BLANK_ID, *own], strict=False) if a not in (b, BLANK_ID)])
    return sequences


@dataclass
class Prediction:
    """One clip's hypotheses.

    Attributes:
        entry: The clip.
        text: Translation.
        glosses: Head to gloss sequence; empty without glosses.
    """

    entry: ClipEntry
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
            [prediction.entry.text for prediction in self.predictions],
        )

    def best_head(self) -> str | None:
        """Head with the lowest word error rate; of equals the first. None without glosses."""
        return min(self.word_errors, key=lambda head: self.word_errors[head].rate) if self.word_errors else None

    def best_wer(self) -> float:
        """Word error rate of that head, in percent; infinite without glosses."""
        head = self.best_head()
        return math.inf if head is None else self.word_errors[head].rate


@torch.no_grad()
def evaluate(
    model: MultistreamModel,
    clips: Clips,
    config: IntegrateConfig,
    tokenizer: TextTokenizer,
    vocabulary: GlossVocabulary | None,
    world: World,
    *,
    decoding: DecodingConfig = GREEDY,
    read_images: ReadImages | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Losses and decodings of clips; no augmentation, no dropout, always the same. Processes share the batches."""
    was_training = model.training
    model.eval()
    sums: dict[str, list[float]] = {}
    found: list[tuple[int, str, dict[str, list[str]]]] = []
    num_skipped = 0
    for rows in in_order(clips.lengths, config.data.batch_size)[world.rank :: world.size]:
        chosen = [clips[row] for row in rows]
        batch = collate(chosen, trained=list(model.backbones), read_images=read_images).to(world.device)
        with autocast(config.optim.precision, world.device):  # in another than it is trained in it says other texts
            encoded = model.encode(batch)
            losses = compute_losses(model, batch, encoded, label_smoothing=config.optim.label_smoothing)
            texts = model.translate(encoded, decoding)
        num_skipped += losses.num_ctc_skipped
        totals = torch.stack([term.total for term in losses.terms.values()]).tolist()
        for (name, term), value in zip(losses.terms.items(), totals, strict=True):
            total = sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += term.count
        glosses = {head: ctc_greedy(scores, batch.num_steps) for head, scores in encoded.gloss_logits.items()}
        for place, row in enumerate(rows):
            decoded = {head: vocabulary.decode(ids[place]) for head, ids in glosses.items()} if vocabulary else {}
            found.append((row, tokenizer.decode(texts[place]), decoded))
        if progress is not None:
            progress.advance(len(rows))
    model.train(was_training)
    return _joined(distributed.gather((found, sums, num_skipped)), clips, config)


def _joined(shares: list[Any], clips: Clips, config: IntegrateConfig) -> Evaluation:
    """What all processes found, in the order of the split."""
    by_row = {row: (text, glosses) for found, _, _ in shares for row, text, glosses in found}
    sums: dict[str, list[float]] = {}
    for _, other, _ in shares:
        for name, (total, count) in other.items():
            entry = sums.setdefault(name, [0.0, 0])
            entry[0] += total
            entry[1] += count
    means = {name: total / max(1, count) for name, (total, count) in sums.items()}
    weights = loss_weights(config, distils=True)
    means["total"] = sum(weight * means[name] for name, weight in weights.items() if name in means)
    predictions = [Prediction(entry, *by_row[row]) for row, entry in enumerate(clips.entries)]
    return Evaluation(predictions, means, sum(skipped for _, _, skipped in shares), _word_errors(predictions))


def _word_errors(predictions: list[Prediction]) -> dict[str, WordErrors]:
    errors: dict[str, WordErrors] = {}
    for prediction in predictions:
        if prediction.entry.gloss is not None:
            for head, glosses in prediction.glosses.items():
                edits = word_errors(glosses, prediction.entry.gloss)
                errors[head] = errors.get(head, WordErrors()) + edits
    return errors
