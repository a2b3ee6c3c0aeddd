"""Evaluation of a model on a split: losses, translations, gloss sequences, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from torch import Tensor

from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import distributed
from signstreams.engine.device import autocast
from signstreams.engine.distributed import World
from signstreams.integrate.alignment import Pairs, Retrieval, alignment_loss, joined, retrieval
from signstreams.integrate.batches import ReadImages, batches_by_length, collate
from signstreams.integrate.clips import ClipEntry
from signstreams.integrate.ctc_decoding import ctc_decode
from signstreams.integrate.dataset import ClipDataset
from signstreams.integrate.losses import ALIGNMENT, CLIPS, compute_losses, divisors, loss_weights
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.protocols import clean_glosses
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.settings import DecodingConfig, IntegrateConfig
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.progress import Progress

Sums = dict[str, list[float]]  # name to sum and count of what was measured

DEFAULT_SCORING = ScoringConfig()

# -- Scores of translations and glosses, against unchanged references

ROUGE_BETA = 1.2
ROUGE_NAME = "signstreams ROUGE-L: longest common subsequence, F with beta 1.2 (as pycocoevalcap), 13a tokens, mixed case, mean over clips"  # fmt: skip # noqa: E501


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], scoring: ScoringConfig = DEFAULT_SCORING
) -> dict[str, Any]:
    """BLEU-1..4 and chrF of sacrebleu with their signatures, ROUGE-L, and the ratio of lengths in BLEU's tokens.

    Nothing is lower-cased or tokenised beforehand; what BLEU does is in its signature.
    """
    scores: dict[str, Any] = {}
    for order in range(1, 5):
        metric = BLEU(
            max_ngram_order=order,
            tokenize=scoring.bleu_tokenize,
            lowercase=scoring.bleu_lowercase,
            force=scoring.bleu_tokenize == "none",  # no advice about tokenised texts: that they are is known
        )
        result = metric.corpus_score(list(hypotheses), [list(references)])
        scores[f"bleu_{order}"] = result.score
    # sacrebleu's signature does not name the order; 4 is its default and the lower ones change nothing else
    scores["bleu_signature"] = str(metric.get_signature())
    scores["length_ratio"] = result.sys_len / max(1, result.ref_len)
    chrf = CHRF()
    scores["chrf"] = chrf.corpus_score(list(hypotheses), [list(references)]).score
    scores["chrf_signature"] = str(chrf.get_signature())
    pairs = zip(hypotheses, references, strict=True)
    scores["rouge_l"] = 100 * sum(rouge_l(h, r) for h, r in pairs) / max(1, len(references))
    scores["rouge_l_implementation"] = ROUGE_NAME
    return scores


def rouge_l(hypothesis: str, reference: str) -> float:
    """ROUGE-L (Lin 2004) of one clip, 0..1."""
    tokenize = Tokenizer13a()
    ours, theirs = tokenize(hypothesis).split(), tokenize(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    row = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for column, other in enumerate(theirs, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    common = row[-1]
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


@dataclass(frozen=True)
class WordErrors:
    """Edits that turn references of ``num_words`` words into hypotheses, in an alignment with the fewest of them."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    num_words: int = 0

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def rate(self) -> float:
        """Word error rate in percent; above 100 when there are many insertions."""
        return 100 * (self.substitutions + self.deletions + self.insertions) / max(1, self.num_words)


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> WordErrors:
    """Levenshtein alignment; of those with the fewest edits, the one with the fewest insertions and deletions."""
    # per column: (edits, insertions + deletions, substitutions, deletions, insertions)
    row = [(n, n, 0, n, 0) for n in range(len(reference) + 1)]
    for word in hypothesis:
        diagonal, row[0] = row[0], _step(row[0], 1, 0, 0, 1)
        for column, other in enumerate(reference, start=1):
            above = row[column]
            same = diagonal if word == other else _step(diagonal, 0, 1, 0, 0)
            row[column] = min(same, _step(above, 1, 0, 0, 1), _step(row[column - 1], 1, 0, 1, 0))
            diagonal = above
    _, _, substitutions, deletions, insertions = row[-1]
    return WordErrors(substitutions, deletions, insertions, len(reference))


def _step(
    cell: tuple[int, int, int, int, int], shifts: int, substitutions: int, deletions: int, insertions: int
) -> tuple[int, int, int, int, int]:
    return (cell[0] + 1, cell[1] + shifts, cell[2] + substitutions, cell[3] + deletions, cell[4] + insertions)


# -- Evaluation of a split


@dataclass
class Prediction:
    """Hypotheses for one clip."""

    entry: ClipEntry  # the clip
    text: str  # translation; empty where no text is learned
    glosses: dict[str, list[str]]  # head to gloss sequence; empty without glosses


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

    def best_head(self) -> str | None:
        """Head with the lowest word error rate; of equal ones the first. None without glosses."""
        return min(self.word_errors, key=lambda head: self.word_errors[head].rate) if self.word_errors else None

    def best_wer(self) -> float:
        """Word error rate of that head, in percent; infinite without glosses."""
        head = self.best_head()
        return math.inf if head is None else self.word_errors[head].rate


@torch.no_grad()
def evaluate(
    model: MultistreamModel,
    clips: ClipDataset,
    config: IntegrateConfig,
    tokenizer: Tokenizer,
    vocabulary: GlossVocabulary | None,
    world: World,
    *,
    decoding: DecodingConfig | None = None,
    read_images: ReadImages | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Losses and hypotheses for a split, without augmentation and dropout. Processes share the batches.

    Texts are decoded by ``decoding`` (None: with the beams of evaluations during training), glosses by
    ``config.scoring``.
    """
    decoding = DecodingConfig(num_beams=config.scoring.num_beams) if decoding is None else decoding
    was_training = model.training
    model.eval()
    sums: Sums = {}
    found: list[tuple[int, str, dict[str, list[str]]]] = []
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
            found.append((row, tokenizer.decode(texts[place]), decoded))
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
    by_row = {row: (text, glosses) for found, *_ in shares for row, text, glosses in found}
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
            reference = clean_glosses(prediction.entry.gloss, scoring.gloss_cleanup)
            for head, glosses in prediction.glosses.items():
                edits = word_errors(clean_glosses(glosses, scoring.gloss_cleanup), reference)
                errors[head] = errors.get(head, WordErrors()) + edits
    return errors
