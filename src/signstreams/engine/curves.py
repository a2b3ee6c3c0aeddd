"""``curves.png``: the metrics of a run at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.files import replacing

# Okabe and Ito's colours, told apart by colour-blind people, less yellow, which white paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
COLUMNS = 3
FEW_POINTS = 20


@dataclass(frozen=True)
class Panel:
    """One plot over steps.

    Attributes:
        title: What it shows, with its unit.
        keys: Metrics drawn; one that a run does not have is left out.
        level: A dashed line that means something, with its name.
    """

    title: str
    keys: tuple[str, ...]
    level: tuple[float, str] | None = None


def plot_curves(
    records: list[dict[str, Any]], path: Path, panels: Sequence[Panel], *, title: str, caption: str
) -> None:
    """Draw metrics over steps; panels of which nothing was measured are left out.

    Args:
        records: Lines of metrics.jsonl.
        path: PNG to write.
        panels: In the order of drawing.
        title: Above all.
        caption: Below all: what good and bad look like.
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
            axes.plot(*zip(*lines[key], strict=True), label=key, color=color, marker=_marker(lines[key]))
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


def _marker(points: list[tuple[int, float]]) -> str | None:
    return "." if len(points) < FEW_POINTS else None
