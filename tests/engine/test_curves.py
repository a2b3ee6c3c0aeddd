"""curves.png: panels of what was measured, and the caption below."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from signstreams.engine.metrics import Panel, plot_curves

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
