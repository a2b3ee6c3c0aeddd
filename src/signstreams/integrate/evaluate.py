"""Evaluation of a model on a split: losses, translations, gloss sequences, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from signstreams.array_types import Floats
from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.engine.distributed import World
from signstreams.formats.subtitles import Cue
from signstreams.integrate.alignment import Pairs, Retrieval, alignment_loss, joined, retrieval
from signstreams.integrate.batches import ReadImages, batches_by_length, collate
from signstreams.integrate.clips import ClipEntry
from signstreams.integrate.ctc_decoding import ctc_decode
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.gloss_times import gloss_cues
from signstreams.integrate.losses import ALIGNMENT, CLIPS, compute_losses, divisors, loss_weights
from signstreams.integrate.mska import FUSE
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.settings import DecodingConfig, IntegrateConfig
from signstreams.integrate.text_model import TextModel
from signstreams.integrate.text_scores import (
    DEFAULT_SCORING,
    WordErrors,
    gloss_errors,
    is_clearly_better,
    translation_scores,
)
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.progress import Progress

Sums = dict[str, list[float]]  # name to sum and count of what was measured


@dataclass
class Prediction:
    """Hypotheses for one clip."""

    entry: ClipEntry  # the clip
    text: str  # translation; empty where no text is learned
    glosses: dict[str, list[str]]  # head to gloss sequence; empty without glosses
    gloss_cues: list[Cue] | None = None
    """Glosses of the head that times were asked of, by the video's times; None where none was."""


@dataclass
class Evaluation:
    """Results on one split."""

    predictions: list[Prediction]  # in the order of the split
    losses: dict[str, float]
    """Mean of each term, over tokens, clips or steps of the whole split; ``total`` with all weights."""
    num_ctc_skipped: int  # clips too short for their glosses
    word_errors: dict[str, WordErrors] = field(default_factory=dict)
    """Head to gloss word errors over the clips that have glosses, cleaned as ``scoring`` says."""
    scoring: ScoringConfig = DEFAULT_SCORING
    retrieval: Retrieval | None = None  # among all clips of the split; None in other stages than vlp

    def translation(self) -> dict[str, Any]:
        """`translation_scores` against the unchanged texts."""
        return translation_scores(
            [prediction.text for prediction in self.predictions],
            [prediction.entry.text for prediction in self.predictions],
            self.scoring,
        )

    @cached_property
    def best_head(self) -> str | None:
        """Head to read glosses from, None where none are learned: the fuse head, which sees all streams, unless others
        have a lower word error rate by more than a standard error (of the paired difference); of these the lowest.
        """
        if not self.word_errors:  # the split has no glosses; the model may have learned some
            return FUSE if any(prediction.glosses for prediction in self.predictions) else None
        lowest_first = sorted(self.word_errors, key=lambda head: self.word_errors[head].rate)
        return next(head for head in lowest_first if head == FUSE or self._is_clearly_below_fuse(head))

    def _is_clearly_below_fuse(self, head: str) -> bool:
        known = [prediction for prediction in self.predictions if prediction.entry.gloss is not None]
        ours, fused = ([prediction.glosses[name] for prediction in known] for name in (head, FUSE))
        signed = [prediction.entry.gloss for prediction in known]
        return is_clearly_better("wer", ours, fused, signed, self.scoring)

    @property
    def best_wer(self) -> float:
        """Word error rate of `best_head`, in percent; infinite where the split has no glosses."""
        found = self.word_errors.get(self.best_head) if self.best_head is not None else None
        return math.inf if found is None else found.rate


@torch.no_grad()
def evaluate(
    model: TextModel,
    clips: ClipDataset,
    config: IntegrateConfig,
    tokenizer: Tokenizer,
    vocabulary: GlossVocabulary | None,
    world: World,
    *,
    decoding: DecodingConfig | None = None,
    read_images: ReadImages | None = None,
    progress: Progress | None = None,
    timed_head: str | None = None,
) -> Evaluation:
    """Losses and hypotheses for a split, without augmentation and dropout. Processes share the batches.

    Texts are decoded by ``decoding`` (None: with the beams of evaluations during training), glosses by
    ``config.scoring``; those of ``timed_head`` are aligned in time.
    """
    decoding = DecodingConfig(num_beams=config.scoring.num_beams) if decoding is None else decoding
    was_training = model.training
    model.eval()
    sums: Sums = {}
    found: list[tuple[int, str, dict[str, list[str]], list[Cue] | None]] = []
    num_skipped = 0
    pairs: list[tuple[list[int], Pairs]] = []
    for rows in batches_by_length(clips.lengths, config.data.batch_size)[world.rank :: world.size]:
        chosen = [clips[row] for row in rows]
        batch = collate(chosen, trained=list(model.backbones), read_images=read_images).to(world.device)
        with autocast(config.optim.precision, world.device):  # as in training: another precision gives other texts
            encoded = model.encode(batch)
            losses = compute_losses(model, batch, encoded, label_smoothing=config.optim.label_smoothing)
            texts = model.translate(encoded, decoding)
        num_skipped += losses.num_ctc_skipped
        if losses.pairs is not None:
            pairs.append((rows, Pairs(*(tensor.cpu() for tensor in losses.pairs))))
        totals = torch.stack([term.total for term in losses.terms.values()]).tolist()
        for (name, term), value in zip(losses.terms.items(), totals, strict=True):
            add_sum(sums, name, value, term.count)
        add_sum(sums, CLIPS, 0.0, len(rows))
        beams = config.scoring.gloss_beams
        glosses = {head: ctc_decode(scores, batch.num_steps, beams) for head, scores in encoded.gloss_logits.items()}
        for place, row in enumerate(rows):
            decoded = {head: vocabulary.decode(ids[place]) for head, ids in glosses.items()} if vocabulary else {}
            cues: list[Cue] | None = None
            if vocabulary is not None and timed_head in glosses:
                entry = clips.entries[row]
                own: Floats = encoded.gloss_logits[timed_head][place, : batch.num_steps[place]].float().cpu().numpy()
                times_s = clips.reader.points.times_s[entry.video.video_id]
                cues = gloss_cues(own, entry.frames, times_s, vocabulary.names, glosses[timed_head][place])
            found.append((row, tokenizer.decode(texts[place]), decoded, cues))
        if progress is not None:
            progress.advance(len(rows))
    model.train(was_training)
    scale = None if model.alignment is None else model.alignment.scale.cpu()
    return _merged(distributed.gather((found, sums, num_skipped, pairs)), clips, config, scale)


def add_sum(sums: Sums, name: str, total: float, count: float) -> None:
    """Add what was measured to the sum of that name."""
    entry = sums.setdefault(name, [0.0, 0.0])
    entry[0] += total
    entry[1] += count


def joined_sums(shares: Iterable[Sums]) -> Sums:
    """The sums of all processes."""
    sums: Sums = {}
    for share in shares:
        for name, (total, count) in share.items():
            add_sum(sums, name, total, count)
    return sums


def _merged(shares: list[Any], clips: ClipDataset, config: IntegrateConfig, scale: Tensor | None) -> Evaluation:
    """The results of all processes, in the order of the split; ``scale`` is that of an alignment, None without."""
    by_row = {row: results for found, *_ in shares for row, *results in found}
    sums = joined_sums(share for _, share, *_ in shares)
    first_of_all = None
    if scale is not None:
        pairs = joined([part for *_, parts in shares for part in parts])
        add_sum(sums, ALIGNMENT, alignment_loss(pairs, scale).item(), len(clips))
        first_of_all = retrieval(pairs)
    over = divisors({name: count for name, (_, count) in sums.items()}, config)
    means = {name: total / max(1, count) for name, (total, count) in sums.items() if name != CLIPS}
    weights = loss_weights(config, distils=True)
    parts = [weight * (sums[name][0] / max(1, over[name])) for name, weight in weights.items() if name in sums]
    means["total"] = sum(parts)
    predictions = [Prediction(entry, *by_row[row]) for row, entry in enumerate(clips.entries)]
    num_skipped = sum(skipped for _, _, skipped, _ in shares)
    errors = _word_errors(predictions, config.scoring)
    return Evaluation(predictions, means, num_skipped, errors, config.scoring, first_of_all)


def _word_errors(predictions: list[Prediction], scoring: ScoringConfig) -> dict[str, WordErrors]:
    errors: dict[str, WordErrors] = {}
    for prediction in predictions:
        if prediction.entry.gloss is not None:
            for head, glosses in prediction.glosses.items():
                edits = gloss_errors(glosses, prediction.entry.gloss, scoring)
                errors[head] = errors.get(head, WordErrors()) + edits
    return errors
