"""The curves of several runs in one picture: a panel a metric, a line a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.engine.curves import COLORS
from signstreams.errors import UserError
from signstreams.files import replacing

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")
MANY_POINTS = 25
COLUMNS = 3
PANEL_IN = (3.9, 2.7)
LETTER_IN, LINE_IN = 0.085, 0.21
MAX_LABEL = 70


@dataclass(frozen=True)
class MetricPanel:
    """One metric of all runs that have it.

    Attributes:
        title: What it shows.
        aim: ``lower`` or ``higher`` where that is better, else empty.
        lines: Number of the run to places on the horizontal axis and values.
    """

    title: str
    aim: str
    lines: dict[int, tuple[list[float], list[float]]]


def plot_overlay(panels: Sequence[MetricPanel], labels: Sequence[str], path: Path, *, xlabel: str) -> None:
    """Draw the panels under one legend; a run looks the same in each.

    Args:
        panels: In the order of drawing.
        labels: Of all runs.
        path: PNG to write.
        xlabel: Of the horizontal axis, with its unit.

    Raises:
        UserError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import StrMethodFormatter

    labels = [_shortened(label) for label in labels]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width_in = max(columns, 2) * PANEL_IN[0]
    legend_columns = max(1, min(len(labels), int(width_in / (LETTER_IN * (max(map(len, labels)) + 7)))))
    legend_rows = -(-len(labels) // legend_columns)
    size_in = (width_in, rows * PANEL_IN[1] + legend_rows * LINE_IN + 0.2)
    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    looks = [_look(number, len(labels)) for number in range(len(labels))]
    farthest = max(x for panel in panels for xs, _ in panel.lines.values() for x in xs)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        for number, (xs, ys) in panel.lines.items():
            is_dense = len(xs) > MANY_POINTS
            axes.plot(xs, ys, **looks[number] | ({"marker": None} if is_dense else {}))
        axes.set_title(panel.title, loc="left", fontsize="medium", parse_math=False)
        if panel.aim:
            axes.set_title(f"{panel.aim} is better", loc="right", fontsize="x-small", color="0.45")
        axes.set_xlim(-0.02 * farthest, 1.02 * farthest or 1)  # the same in all panels
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize="small")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # no power of ten that meets the title
        if place + columns >= len(panels):  # nothing below it
            axes.set_xlabel(xlabel, fontsize="small")
    handles = [Line2D([], [], **look) for look in looks]
    names = ["run"] * len(labels)
    legend = figure.legend(
        handles, names, loc="outside upper left", ncols=legend_columns, fontsize="small", frameon=False
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)  # only now: a legend leaves out names that start with an underscore
    try:
        with replacing(path) as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a box in the picture; the table has the name
            figure.savefig(part, format="png", dpi=120)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another --output") from None


def _look(number: int, num_runs: int) -> dict[str, Any]:
    """Colour, dash, marker and width of a run's lines."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 2.2 - number / max(1, num_runs - 1),  # a line that lies under another one still shows
    }


def _shortened(label: str) -> str:
    half = MAX_LABEL // 2 - 2
    return label if len(label) <= MAX_LABEL else f"{label[:half]} ... {label[-half:]}"
