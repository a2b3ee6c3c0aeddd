"""Values that change over a run, as pure functions of the optimiser step. ``step`` counts from 0."""

from __future__ import annotations

import math


def cosine(step: int, start: float, end: float, total_steps: int) -> float:
    """Half a cosine from ``start`` at step 0 to ``end`` at ``total_steps`` and after."""
    share = min(1.0, step / total_steps) if total_steps > 0 else 1.0
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * share))


def linear(step: int, start: float, end: float, total_steps: int) -> float:
    """Straight from ``start`` at step 0 to ``end`` at ``total_steps`` and after."""
    share = min(1.0, step / total_steps) if total_steps > 0 else 1.0
    return start + (end - start) * share


def warmup_cosine(step: int, *, peak: float, final: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0, reaching ``peak`` after ``warmup_steps``, then half a cosine to ``final``.

    The first step already moves: at step 0 the value is one warm-up step above 0.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return cosine(step - warmup_steps, peak, final, total_steps - warmup_steps)


def warmup_constant_decay(
    step: int, *, peak: float, final: float, warmup_steps: int, decay_steps: int, total_steps: int
) -> float:
    """Linear warm-up as in `warmup_cosine`, then ``peak``, then over the last ``decay_steps`` down to ``final``.

    The decay is 1 - sqrt, the best of those in Hägele et al. 2024 (arXiv 2405.18392).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = step - (total_steps - decay_steps)
    if done <= 0:
        return peak
    return final + (peak - final) * (1.0 - math.sqrt(min(1.0, done / decay_steps)))
