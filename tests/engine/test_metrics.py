"""The metrics log, and its cut on resume."""

from __future__ import annotations

import os
from pathlib import Path

from signstreams.engine.metrics import MetricsLog, read_metrics


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
