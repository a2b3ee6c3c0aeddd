"""Which run has failed and which is only slow: every symptom, its limit, its patience and its diagnosis."""

from __future__ import annotations

import math

import pytest
import torch

from signstreams.pretrain import health
from signstreams.pretrain.health import CollapseWatch, Meters, flat_end


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
    flat = {"patch/entropy_batch": math.log(16), "patch/entropy_sample": math.log(16)}
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000, has_patches=True)
    assert [watch.judge(healthy | one_wins, 300) for _ in range(2)] == [None] * 2
    assert "one prototype takes every masked patch" in (watch.judge(healthy | one_wins, 300) or "")
    watch = CollapseWatch(16, warmup_steps=200, total_steps=20_000, has_patches=True)
    assert [watch.judge(healthy | flat, 5_000) for _ in range(5)] == [None] * 5
    assert [watch.judge(healthy | flat, 10_000) for _ in range(2)] == [None] * 2
    assert "gives every masked patch the same flat answer" in (watch.judge(healthy | flat, 10_000) or "")


def _watch() -> CollapseWatch:
    return CollapseWatch(16, 200, 20_000)


def _line(**values: float) -> dict[str, float]:
    healthy = {"entropy_batch": 2.0, "entropy_sample": 1.0, "prototypes_used_ratio": 1.0}
    return {f"teacher/{key}": value for key, value in (healthy | values).items()}


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        (
            _line(entropy_batch=0.1, entropy_sample=0.1),
            {"MIN_BATCH_ENTROPY": 0.02},
            "one prototype takes every",
        ),
        (_line(prototypes_used_ratio=2 / 16), {"MIN_PROTOTYPES": 0.1}, "only 12.5% of the prototypes"),
        (_line(entropy_sample=2.7725), {"MAX_SAMPLE_ENTROPY": 1.0}, "same flat answer"),
        ({"probe/feature_std": 0.01}, {"MIN_FEATURE_STD": 0.005}, "held-out crops are alike"),
    ],
)
def test_each_collapse_has_its_limit_its_patience_and_its_diagnosis(
    line: dict[str, float], limits: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((name, tolerated),) = limits.items()
    if name == "MIN_PROTOTYPES":
        monkeypatch.setattr(health, name, 0.2)  # .01 of 16 is less than one
    watch = _watch()
    assert [watch.judge(line, 12_000) for _ in range(2)] == [None] * 2
    diagnosis = watch.judge(line, 12_000)
    assert diagnosis is not None
    assert expected in diagnosis
    assert any(knob in diagnosis for knob in ("dino.", "--koleo-weight", "--use-sinkhorn"))
    assert [_watch().judge(line, 150) for _ in range(5)] == [None] * 5
    with monkeypatch.context() as patch:
        patch.setattr(health, "PATIENCE", 1)
        assert _watch().judge(line, 12_000) == diagnosis
    monkeypatch.setattr(health, name, tolerated)
    tolerant = _watch()
    assert [tolerant.judge(line, 12_000) for _ in range(5)] == [None] * 5


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


def test_prototypes_without_a_winner_are_counted_of_the_rows_where_these_are_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 rows cannot win more than 64 of 1,024 prototypes: a tenth of them is 6.4."""
    monkeypatch.setattr(health, "MIN_PROTOTYPES", 0.1)
    monkeypatch.setattr(health, "PATIENCE", 1)
    one = torch.tensor(1.0)
    for used, sample, is_collapse in ((6, 1.0, True), (7, 1.0, False), (6, 0.6 * math.log(1024), False)):
        meters = Meters(1024, torch.device("cpu"))
        rows = torch.eye(1024)[torch.arange(64) % used][None]  # (1, 64, 1024)
        meters.add(loss=one, dino=one, koleo=one, targets=rows, grad_norm=one, is_bad=torch.tensor(False))
        ratio = meters.read()["teacher/prototypes_used_ratio"]
        watch = CollapseWatch(1024, 0, 20_000)
        diagnosis = watch.judge(_line(entropy_sample=sample, prototypes_used_ratio=ratio), 200)
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


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"teacher/entropy_sample": 2.77}, "the same flat answer: entropy 2.770, ln K = 2.773"),
        ({"patch/entropy_sample": 2.77}, "every masked patch the same flat answer"),
        ({"train/loss_dino": 2.9}, "predicts the teacher no better than chance"),
        ({"train/loss_patch": 2.9}, "predicts masked patches no better than chance"),
        ({}, None),
    ],
)
def test_a_run_that_ends_flat_is_told_so_however_short_it_was(last: dict[str, float], expected: str | None) -> None:
    healthy = {"teacher/entropy_sample": 1.0, "train/loss_dino": 1.5, "patch/entropy_sample": 1.0}
    flat = {"step": 2, "teacher/entropy_sample": math.log(16), "train/loss_dino": math.log(16)}  # as every run starts
    records = [flat, {"step": 10} | healthy | last, {"step": 12, "probe/rankme": 3.0}]
    found = flat_end(records, 16)
    if expected is None:
        assert found is None
    else:
        assert found is not None and expected in found and "by step 10" in found
    assert flat_end([], 16) is None
