"""Runtimes of the workflow's jobs, from benchmark files."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.publish.figures import read_runtimes


def test_jobs_of_videos_are_one_kind_and_others_stand_alone(finished: object) -> None:
    logs: Path = finished.logs  # type: ignore[attr-defined]
    runtimes = read_runtimes(logs)
    assert [runtime.name for runtime in runtimes] == ["pretrain face", "extract", "train", "evaluate"]
    extract = runtimes[1]
    assert (extract.num_jobs, extract.total_s, extract.median_s, extract.longest_s) == (2, 40, 20, 30)
    assert (extract.cpu_s, extract.memory_mb) == (20, 300)


def test_what_was_not_measured_counts_as_nothing(finished: object) -> None:
    evaluate = read_runtimes(finished.logs)[-1]  # type: ignore[attr-defined]
    assert (evaluate.total_s, evaluate.memory_mb) == (pytest.approx(0.4), 0)


def test_a_folder_without_logs_gives_nothing(tmp_path: Path) -> None:
    assert read_runtimes(tmp_path) == []
