"""How far the difference of two systems on the same clips can be trusted: a paired bootstrap over clips.

Clips are drawn with replacement, the same ones for both systems, and both are scored on each draw (Koehn 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from signstreams.array_types import Floats
from signstreams.integrate.evaluate import DEFAULT_SCORING, WordErrors, word_errors
from signstreams.integrate.protocols import clean_glosses
from signstreams.integrate.scoring_settings import ScoringConfig

NUM_RESAMPLES = 1000
SEED = 12345
"""Both as of sacrebleu's paired bootstrap."""
Metric = Literal["bleu_4", "chrf", "wer"]


@dataclass(frozen=True)
class Difference:
    """What a second system has over a first one on the same clips."""

    first: float  # score of the first system
    second: float  # score of the second
    low: float  # 95 % interval of ``second - first``
    high: float

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
    """The difference of two systems, resampled over clips.

    Hypotheses and references are texts, or sequences of glosses of the metric ``wer``.
    """
    counted, score = _resampled(metric, references, scoring)
    stats = [counted(hypotheses) for hypotheses in (first, second)]  # two of (clips, values)
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(len(references), size=(NUM_RESAMPLES, len(references)), replace=True)
    times = np.stack([np.bincount(rows, minlength=len(references)) for rows in drawn])  # (resamples, clips)
    sums = [times @ values for values in stats]  # two of (resamples, values)
    low, high = np.percentile([score(b) - score(a) for a, b in zip(*sums, strict=True)], (2.5, 97.5))
    return Difference(*(score(values.sum(axis=0)) for values in stats), float(low), float(high))


def _resampled(
    metric: Metric, references: Sequence[Any], scoring: ScoringConfig
) -> tuple[Callable[[Sequence[Any]], Floats], Callable[[Floats], float]]:
    """What gives the counts of each clip, (clips, values), and the score that sums of them have."""
    if metric == "wer":

        def errors(hypotheses: Sequence[Any]) -> Floats:
            cleaned = [
                [clean_glosses(glosses, scoring.gloss_cleanup) for glosses in pair]
                for pair in zip(hypotheses, references, strict=True)
            ]
            return np.array([astuple(word_errors(*pair)) for pair in cleaned], np.float64)

        return errors, lambda sums: WordErrors(*map(int, sums)).rate
    is_split = scoring.bleu_tokenize == "none"
    bleu = BLEU(tokenize=scoring.bleu_tokenize, lowercase=scoring.bleu_lowercase, force=is_split)
    counter: Any = bleu if metric == "bleu_4" else CHRF()

    def counted(hypotheses: Sequence[Any]) -> Floats:
        # counts of n-grams and lengths per clip, whose sums give the score: what sacrebleu's own test draws
        return np.array(counter._extract_corpus_statistics(list(hypotheses), [list(references)]), np.float64)

    return counted, lambda sums: float(counter._compute_score_from_stats(sums.tolist()).score)
