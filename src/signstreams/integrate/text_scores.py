"""Scores of translations and glosses against unchanged references: of a corpus, of one clip, and of two systems.

No torch here: pages and comparisons of finished runs count as the evaluation did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from signstreams.array_types import Floats
from signstreams.integrate.protocols import clean_glosses
from signstreams.integrate.scoring_settings import ScoringConfig

DEFAULT_SCORING = ScoringConfig()

# -- Of a corpus

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
        metric = _bleu(scoring, max_ngram_order=order)
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


def gloss_errors(hypothesis: Sequence[str], reference: Sequence[str], scoring: ScoringConfig) -> WordErrors:
    """Word errors of glosses, both cleaned as ``scoring`` says."""
    cleaned = (clean_glosses(glosses, scoring.gloss_cleanup) for glosses in (hypothesis, reference))
    return word_errors(*cleaned)


def _bleu(scoring: ScoringConfig, **options: Any) -> BLEU:
    return BLEU(
        tokenize=scoring.bleu_tokenize,
        lowercase=scoring.bleu_lowercase,
        force=scoring.bleu_tokenize == "none",  # no advice about tokenised texts: that they are is known
        **options,
    )


# -- Of one clip


@cache
def _sentence_bleu(scoring: ScoringConfig) -> BLEU:
    return _bleu(scoring, effective_order=True)


def clip_scores(hypothesis: str, reference: str, scoring: ScoringConfig = DEFAULT_SCORING) -> dict[str, float]:
    """BLEU-4 and chrF of one clip, 0..100; BLEU over the orders that the clip has (sacrebleu's sentence BLEU).

    For finding clips, not for reporting: BLEU of a corpus is no mean of these.
    """
    bleu = _sentence_bleu(scoring).sentence_score(hypothesis, [reference]).score
    return {"bleu_4": bleu, "chrf": CHRF().sentence_score(hypothesis, [reference]).score}


# -- Of two systems on the same clips

NUM_RESAMPLES = 1000
SEED = 12345
"""Both as of sacrebleu's paired bootstrap: the clips drawn are the same."""
Metric = Literal["bleu_4", "chrf", "wer"]


@dataclass(frozen=True)
class Difference:
    """What a second system has over a first one on the same clips."""

    first: float  # score of the first system
    second: float  # score of the second
    low: float  # 95 % interval of ``second - first``
    high: float
    p: float  # two-sided

    @property
    def value(self) -> float:
        return self.second - self.first


def paired_bootstrap(
    metric: Metric,
    first: Sequence[Any],
    second: Sequence[Any],
    references: Sequence[Any],
    scoring: ScoringConfig = DEFAULT_SCORING,
) -> Difference:
    """The difference of two systems, resampled over clips (Koehn 2004).

    Hypotheses and references are texts, or sequences of glosses of the metric ``wer``. The p-value is twice the share
    of resamples on the far side of zero, so that it is below 0.05 where the interval leaves zero out. That of sacrebleu
    centres absolute differences, and may be small beside an interval that has zero in it.
    """
    scores, differences = resampled_differences(metric, first, second, references, scoring)
    low, high = np.percentile(differences, (2.5, 97.5))
    beyond = min(np.sum(differences <= 0), np.sum(differences >= 0))
    p = min(1.0, 2 * float(beyond + 1) / (NUM_RESAMPLES + 1))
    return Difference(*scores, float(low), float(high), p)


def resampled_differences(
    metric: Metric, first: Sequence[Any], second: Sequence[Any], references: Sequence[Any], scoring: ScoringConfig
) -> tuple[tuple[float, float], Floats]:
    """Scores of both systems, and the second's less the first's in each of `NUM_RESAMPLES` draws of the clips."""
    stats_of, score = _resampled(metric, references, scoring)
    stats = [stats_of(hypotheses) for hypotheses in (first, second)]  # two of (clips, values)
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(len(references), size=(NUM_RESAMPLES, len(references)), replace=True)
    counts = np.stack([np.bincount(rows, minlength=len(references)) for rows in drawn])  # (resamples, clips)
    sums = [counts @ values for values in stats]  # two of (resamples, values)
    ours, theirs = (score(values.sum(axis=0)) for values in stats)
    return (ours, theirs), np.array([score(b) - score(a) for a, b in zip(*sums, strict=True)])


def is_clearly_better(
    metric: Metric,
    ours: Sequence[Any],
    theirs: Sequence[Any],
    references: Sequence[Any],
    scoring: ScoringConfig = DEFAULT_SCORING,
) -> bool:
    """Whether ``ours`` scores better by more than one standard error of the paired difference; WER: lower is better."""
    (own, other), differences = resampled_differences(metric, ours, theirs, references, scoring)
    gain = other - own if metric == "wer" else own - other
    return gain > float(differences.std())


def _resampled(
    metric: Metric, references: Sequence[Any], scoring: ScoringConfig
) -> tuple[Callable[[Sequence[Any]], Floats], Callable[[Floats], float]]:
    """What gives the counts of each clip, (clips, values), and the score that sums of them have."""
    if metric == "wer":

        def errors(hypotheses: Sequence[Any]) -> Floats:
            pairs = zip(hypotheses, references, strict=True)
            return np.array([astuple(gloss_errors(h, r, scoring)) for h, r in pairs], np.float64)

        return errors, lambda sums: 100 * float(sums[:3].sum()) / max(1.0, float(sums[3]))
    counter: Any = _bleu(scoring) if metric == "bleu_4" else CHRF()

    def counted(hypotheses: Sequence[Any]) -> Floats:
        return np.array(counter._extract_corpus_statistics(list(hypotheses), [list(references)]), np.float64)

    return counted, lambda sums: float(counter._compute_score_from_stats(sums.tolist()).score)
