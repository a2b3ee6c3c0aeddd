"""How far the difference of two sets of hypotheses for the same clips can be trusted: a paired bootstrap over clips.

Clips are drawn with replacement, the same ones for both sides, and both are scored on each draw (Koehn 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sacrebleu.metrics import CHRF

from signstreams.array_types import Floats
from signstreams.integrate.evaluate import DEFAULT_SCORING, WordErrors, bleu
from signstreams.integrate.scoring_settings import ScoringConfig

NUM_RESAMPLES = 1000
SEED = 0
INTERVAL = f"95 % of a paired bootstrap over clips, {NUM_RESAMPLES:,} samples"


def text_differences(
    ours: Sequence[str], theirs: Sequence[str], references: Sequence[str], scoring: ScoringConfig = DEFAULT_SCORING
) -> dict[str, dict[str, float]]:
    """``bleu_4`` and ``chrf`` of ``ours`` less those of ``theirs``: ``value``, and its interval ``low`` to ``high``."""
    found = {}
    for name, metric in (("bleu_4", bleu(4, scoring)), ("chrf", CHRF())):
        # counts of n-grams and lengths per clip (N, S), whose sums give the score: what sacrebleu's own test draws
        counts = [
            np.array(metric._extract_corpus_statistics(h, [list(references)])) for h in (list(ours), list(theirs))
        ]

        def score(sums: Floats, metric: Any = metric) -> float:
            return float(metric._compute_score_from_stats(sums.tolist()).score)

        found[name] = _difference(counts[0], counts[1], score)
    return found


def gloss_difference(ours: Sequence[WordErrors], theirs: Sequence[WordErrors]) -> dict[str, float]:
    """The same of the word error rate, from the errors of each clip: below 0 where ``ours`` is better."""
    counts = [np.array([list(asdict(errors).values()) for errors in side]) for side in (ours, theirs)]
    return _difference(counts[0], counts[1], lambda sums: WordErrors(*map(int, sums)).rate)


def _difference(ours: Floats, theirs: Floats, score: Callable[[Floats], float]) -> dict[str, float]:
    """``score`` of the summed counts (N, S) of one side less that of the other, with its interval."""
    rng = np.random.default_rng(SEED)
    num_clips = len(ours)
    draws = rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=NUM_RESAMPLES)  # (R, N)
    drawn = [score(a) - score(b) for a, b in zip(draws @ ours, draws @ theirs, strict=True)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": score(ours.sum(axis=0)) - score(theirs.sum(axis=0)), "low": float(low), "high": float(high)}
