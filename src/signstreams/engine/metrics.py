"""Metrics of a run: one JSON object per line, such as ``{"step": 200, "train/loss": 6.41}``; and their curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from signstreams.files import replacing


class MetricsLog:
    """Append-only log, steps increasing; a resumed run drops what was logged after its checkpoint, ``after_step``.

    The file is made when absent, and never replaced (it may be a hard link). ``after_step`` None starts an empty log.
    """

    def __init__(self, path: str | Path, *, after_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self._file.truncate(0 if after_step is None else _bytes_until(self.path, after_step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def log(self, record: Mapping[str, float | int | str | None], step: int) -> None:
        """Write one line immediately; a number that is not finite becomes null, since JSON has none."""
        bad = {name: None for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)}
        line = {"step": step, **record, **bad}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Records of a log in order; a last line that was cut short by a kill is left out."""
    records = []
    for line in Path(path).read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _bytes_until(path: Path, after_step: int) -> int:
    """Bytes of the whole lines up to ``after_step``, up to the first broken line."""
    keep = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            is_kept = line.endswith(b"\n") and json.loads(line)["step"] <= after_step
        except (ValueError, KeyError, TypeError):
            break
        if not is_kept:
            break
        keep += len(line)
    return keep


# -- Curves

# Okabe and Ito's colours, which colour-blind people can tell apart, without yellow, which is invisible on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
COLUMNS = 3
FEW_POINTS = 20


@dataclass(frozen=True)
class Panel:
    """One plot over steps."""

    title: str  # what it shows, with its unit
    keys: tuple[str, ...]  # metrics drawn; those that a run does not have are left out
    level: tuple[float, str] | None = None  # value and name of a dashed reference line


def plot_curves(
    records: list[dict[str, Any]], path: Path, panels: Sequence[Panel], *, title: str, caption: str
) -> None:
    """Draw the lines of a metrics.jsonl over steps, as PNG; panels without any measurement are left out.

    The ``title`` is above the panels, and the ``caption``, which says what good and bad look like, below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = {key: _points(records, key) for panel in panels for key in panel.keys}
    panels = [panel for panel in panels if any(lines[key] for key in panel.keys)]
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(11, 2.8 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", fontweight="bold", parse_math=False)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize="small", wrap=True, parse_math=False)
    places = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for number, (axes, panel) in enumerate(zip(places, panels, strict=False)):
        drawn = [key for key in panel.keys if lines[key]]
        for key, color in zip(drawn, COLORS, strict=False):
            marker = "." if len(lines[key]) < FEW_POINTS else None
            axes.plot(*zip(*lines[key], strict=True), label=key, color=color, marker=marker)
        if panel.level is not None:
            axes.axhline(panel.level[0], linestyle="--", color="0.5", linewidth=1, label=panel.level[1])
        if len(axes.get_lines()) > 1:
            axes.legend(fontsize="x-small", framealpha=0.6)
        axes.set_title(panel.title, loc="left", fontsize="medium")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small")
        if number + COLUMNS >= len(panels):  # nothing below it
            axes.set_xlabel("step", fontsize="small")
    for axes in list(figure.axes)[len(panels) :]:
        axes.remove()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _points(records: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]
