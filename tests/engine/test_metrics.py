"""The metrics log, its cut on resume, and schedules."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from signstreams.engine.metrics import MetricsLog, read_metrics
from signstreams.engine.schedules import cosine, linear, warmup_cosine


def _write(path: Path, steps: list[int]) -> None:
    with MetricsLog(path) as log:
        for step in steps:
            log.log({"train/loss": 10.0 - step}, step)


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _write(path, [2, 4, 6, 8])
    with MetricsLog(path, after_step=5) as log:
        log.log({"train/loss": 0.0}, 6)
    assert [record["step"] for record in read_metrics(path)] == [2, 4, 6]
    assert read_metrics(path)[-1]["train/loss"] == 0.0


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _write(path, [2, 4])
    with path.open("ab") as file:
        file.write(b'{"step": 6, "train')
    assert [record["step"] for record in read_metrics(path)] == [2, 4]
    with MetricsLog(path, after_step=8) as log:
        log.log({}, 8)
    assert [record["step"] for record in read_metrics(path)] == [2, 4, 8]


def test_a_fresh_log_starts_empty_and_a_hard_link_follows(tmp_path: Path) -> None:
    path, link = tmp_path / "metrics.jsonl", tmp_path / "link.jsonl"
    _write(path, [2, 4])
    os.link(path, link)
    _write(path, [1])
    assert link.read_bytes() == path.read_bytes()
    assert [record["step"] for record in read_metrics(link)] == [1]


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.log({"a": float("nan"), "b": float("inf"), "c": 1}, 1)
    assert read_metrics(tmp_path / "m.jsonl") == [{"step": 1, "a": None, "b": None, "c": 1}]


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
