"""Schedules: where they begin, where they end, and what lies between."""

from __future__ import annotations

import itertools
import math

import pytest

from signstreams.engine.schedules import cosine, linear, warmup_cosine


def test_warm_up_meets_the_cosine_at_the_peak() -> None:
    values = [warmup_cosine(step, peak=1.0, final=0.1, warmup_steps=10, total_steps=110) for step in range(111)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == 1.0
    assert values[60] == pytest.approx(0.55)
    assert values[110] == pytest.approx(0.1)
    assert all(a < b for a, b in itertools.pairwise(values[:10]))
    assert all(a > b for a, b in itertools.pairwise(values[10:]))


def test_schedules_stay_at_their_ends() -> None:
    assert cosine(0, 0.9, 1.0, 50) == pytest.approx(0.9)
    assert cosine(99, 0.9, 1.0, 50) == 1.0
    assert linear(5, 0.0, 1.0, 10) == 0.5
    assert linear(3, 0.04, 0.07, 0) == 0.07


@pytest.mark.parametrize(("start", "end"), [(0.04, 0.4), (1e-3, 1e-6), (0.996, 1.0)])
def test_the_cosine_is_half_a_wave(start: float, end: float) -> None:
    """As DINO writes it down: final + (base - final) (1 + cos(pi i / n)) / 2."""
    for i in range(41):
        assert cosine(i, start, end, 40) == pytest.approx(end + (start - end) * (1 + math.cos(math.pi * i / 40)) / 2)
        # what it has gone after i steps it has still to go i steps before its end
        assert cosine(i, start, end, 40) - end == pytest.approx(start - cosine(40 - i, start, end, 40), abs=1e-12)


def test_a_line_has_equal_steps() -> None:
    values = [linear(step, 0.04, 0.07, 6) for step in range(9)]
    assert [b - a for a, b in itertools.pairwise(values)] == pytest.approx([0.005] * 6 + [0.0] * 2)


def test_warm_up_begins_above_its_start_and_without_one_the_peak_comes_first() -> None:
    values = [warmup_cosine(i, peak=1.0, final=0.0, warmup_steps=4, total_steps=8) for i in range(5)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert warmup_cosine(0, peak=1.0, final=0.0, warmup_steps=0, total_steps=8) == 1.0
    # a run that is all warm-up ends at its peak, and nothing after it divides by zero
    assert warmup_cosine(7, peak=1.0, final=0.1, warmup_steps=8, total_steps=8) == 1.0
    assert warmup_cosine(8, peak=1.0, final=0.1, warmup_steps=8, total_steps=8) == 0.1
