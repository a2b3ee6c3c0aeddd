"""Which run has failed and which is only slow: every symptom, its limit, its patience and its diagnosis."""

from __future__ import annotations

import math
from typing import Any

import pytest

from signstreams.pretrain.health import CollapseWatch
from signstreams.pretrain.settings import PretrainConfig


def test_collapse_is_diagnosed_after_patience_and_a_slow_start_is_not() -> None:
    healthy = {"teacher/entropy_batch": 2.0, "teacher/entropy_sample": 1.0}
    one_wins = {"teacher/entropy_batch": 0.01, "teacher/entropy_sample": 0.01}
    flat = {"teacher/entropy_batch": math.log(16), "teacher/entropy_sample": math.log(16)}
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000)
    assert [watch.judge(one_wins, 100)] * 5 == [None] * 5
    assert [watch.judge(record, 300) for record in (one_wins, one_wins, healthy, one_wins, one_wins)] == [None] * 5
    assert "one prototype" in (watch.judge(one_wins, 300) or "")
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000)
    assert [watch.judge(flat, 5_000) for _ in range(5)] == [None] * 5
    assert [watch.judge(flat, 10_000) for _ in range(2)] == [None] * 2
    assert "no progress" in (watch.judge(flat, 10_000) or "")


def test_a_collapse_of_the_patches_is_diagnosed() -> None:
    healthy = {"teacher/entropy_batch": 2.0, "teacher/entropy_sample": 1.0}
    one_wins = {"patch/entropy_batch": 0.01, "patch/entropy_sample": 0.01}
    flat = {"patch/entropy_batch": math.log(24), "patch/entropy_sample": math.log(24)}
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000, num_patch_prototypes=24)
    assert [watch.judge(healthy | one_wins, 300) for _ in range(2)] == [None] * 2
    assert "one prototype takes every masked patch" in (watch.judge(healthy | one_wins, 300) or "")
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000, num_patch_prototypes=24)
    assert [watch.judge(healthy | flat, 5_000) for _ in range(5)] == [None] * 5
    assert [watch.judge(healthy | flat, 10_000) for _ in range(2)] == [None] * 2
    assert "lower ibot.teacher_temp" in (watch.judge(healthy | flat, 10_000) or "")


def _watch(**limits: Any) -> CollapseWatch:
    config = PretrainConfig.model_validate({"train_dir": ["a"], "output_dir": "b", "monitor": limits})
    return CollapseWatch(16, 200, 20_000, monitor=config.monitor, rows=640)


def _line(**values: float) -> dict[str, float]:
    healthy = {"entropy_batch": 2.0, "entropy_sample": 1.0, "prototypes_used_ratio": 1.0}
    return {f"teacher/{key}": value for key, value in (healthy | values).items()}


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        (
            _line(entropy_batch=0.1, entropy_sample=0.1),
            {"collapse_min_batch_entropy": 0.02},
            "one prototype takes every",
        ),
        (_line(prototypes_used_ratio=2 / 16), {"collapse_min_prototypes": 0.1}, "only 2 of 16 prototypes"),
        (_line(entropy_sample=2.7725), {"collapse_max_sample_entropy": 1.0}, "same flat answer"),
        ({"probe/feature_std": 0.01}, {"collapse_min_feature_std": 0.005}, "held-out crops are alike"),
    ],
)
def test_each_collapse_has_its_limit_its_patience_and_its_diagnosis(
    line: dict[str, float], limits: dict[str, float], expected: str
) -> None:
    (name,) = limits
    looser = {"collapse_min_prototypes": 0.2}.get(name)
    watch = _watch(**({} if looser is None else {name: looser}))
    assert [watch.judge(line, 12_000) for _ in range(2)] == [None] * 2
    diagnosis = watch.judge(line, 12_000)
    assert diagnosis is not None
    assert expected in diagnosis
    assert any(knob in diagnosis for knob in ("dino.", "--koleo-weight", "--use-sinkhorn"))
    tolerant = _watch(**limits)
    assert [tolerant.judge(line, 12_000) for _ in range(5)] == [None] * 5
    quick = _watch(collapse_patience=1, **({} if looser is None else {name: looser}))
    assert quick.judge(line, 12_000) == diagnosis
    early = _watch(**({} if looser is None else {name: looser}))
    assert [early.judge(line, 150) for _ in range(5)] == [None] * 5


def test_features_that_never_were_apart_get_time_and_fallen_ones_do_not() -> None:
    alike, apart = {"probe/feature_std": 0.01}, {"probe/feature_std": 0.3}
    slow, fallen = _watch(), _watch()
    assert [slow.judge(alike, 1000) for _ in range(5)] == [None] * 5
    assert fallen.judge(apart, 500) is None
    resumed = _watch()
    resumed.load_state_dict(fallen.state_dict())
    for watch in (fallen, resumed):
        assert [watch.judge(alike, 1000) for _ in range(2)] == [None] * 2
        assert "alike" in (watch.judge(alike, 1000) or "")


def test_prototypes_without_a_winner_are_counted_of_the_rows_where_these_are_fewer() -> None:
    """64 rows cannot win more than 64 of 1,024 prototypes: a tenth of them is 6.4."""
    monitor = PretrainConfig.model_validate(
        {"train_dir": ["a"], "output_dir": "b", "monitor": {"collapse_min_prototypes": 0.1, "collapse_patience": 1}}
    ).monitor
    for used, sample, is_collapse in ((6, 1.0, True), (7, 1.0, False), (6, 0.6 * math.log(1024), False)):
        watch = CollapseWatch(1024, 0, 20_000, monitor=monitor, rows=64)
        diagnosis = watch.judge(_line(entropy_sample=sample, prototypes_used_ratio=used / 1024), 200)
        assert (diagnosis is not None) == is_collapse, (used, sample)


def test_symptoms_are_counted_apart_and_a_line_that_cannot_show_one_says_nothing_of_it() -> None:
    few, one = _line(prototypes_used_ratio=0.0), _line(entropy_batch=0.01)
    watch = _watch()
    assert [watch.judge(record, 300) for record in (few, one, few, one, few, one)] == [None] * 6
    apart, alike = {"probe/feature_std": 0.3}, {"probe/feature_std": 0.01}
    records = [apart, alike, _line(), alike, _line(), alike]  # the crops are looked at now and then
    assert [watch.judge(record, 300) for record in records[:-1]] == [None] * 5
    assert "alike" in (watch.judge(records[-1], 300) or "")


def test_a_resumed_run_counts_on() -> None:
    one = _line(entropy_batch=0.01)
    early, late = _watch(), _watch()
    assert [early.judge(one, 300) for _ in range(2)] == [None] * 2
    state = early.state_dict()
    early.judge(_line(), 300)  # what is kept is a copy
    late.load_state_dict(state)
    assert "one prototype" in (late.judge(one, 300) or "")


def test_features_that_are_not_finite_hide_no_fall() -> None:
    watch = _watch()
    watch.judge({"probe/feature_std": 0.3}, 300)
    watch.judge({"probe/feature_std": float("nan")}, 300)
    assert [watch.judge({"probe/feature_std": 0.01}, 300) for _ in range(2)] == [None] * 2
    assert watch.judge({"probe/feature_std": 0.01}, 300) is not None


@pytest.mark.parametrize(("warmup_steps", "first"), [(0, 100), (40, 100), (500, 500)])
def test_nothing_is_judged_before_the_warm_up_nor_in_the_first_steps(warmup_steps: int, first: int) -> None:
    one = _line(entropy_batch=0.01)
    watch = CollapseWatch(16, warmup_steps, 20_000)
    assert [watch.judge(one, first - 1) for _ in range(5)] == [None] * 5
    assert [watch.judge(one, first) for _ in range(2)] == [None] * 2
    assert watch.judge(one, first) is not None
