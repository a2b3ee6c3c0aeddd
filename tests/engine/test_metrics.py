"""The metrics log and its cut on resume; curves.png."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from signstreams.engine.metrics import MetricsLog, Panel, plot_curves, read_metrics


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


# -- Curves

PANELS = [Panel(f"panel {n}", (f"key/{n}",), (1.0, "level") if n == 0 else None) for n in range(4)]


def height_px(records: list[dict[str, float]], path: Path, caption: str = "Good: it falls.") -> int:
    plot_curves(records, path, PANELS, title="a run with a $ in its name", caption=caption)
    return int(cv2.imread(str(path)).shape[0])


def test_a_panel_of_which_nothing_was_measured_is_left_out(tmp_path: Path) -> None:
    three = [{"step": step, "key/0": 2.0, "key/1": 1.0, "key/2": step / 2} for step in range(30)]
    four = [record | {"key/3": 3.0} for record in three]
    one_row, two_rows = (height_px(records, tmp_path / "curves.png") for records in (three, four))
    assert two_rows > 1.5 * one_row


@pytest.mark.parametrize("records", [[], [{"step": 1, "key/0": 2.0}]])
def test_a_run_that_has_hardly_begun_has_a_picture(records: list[dict[str, float]], tmp_path: Path) -> None:
    assert height_px(records, tmp_path / "curves.png") > 100


def test_the_caption_is_drawn(tmp_path: Path) -> None:
    pictures = []
    for caption in ("Good: it falls. " * 30, "Bad: it rises. " * 30):
        height_px([{"step": 1, "key/0": 2.0}], tmp_path / "curves.png", caption)
        pictures.append((tmp_path / "curves.png").read_bytes())
    assert pictures[0] != pictures[1]
