"""``curves.png``: the metrics of a run at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signstreams.files import replacing

COLUMNS = 3


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


def plot_curves(records: list[dict[str, Any]], path: Path, panels: Sequence[Panel], *, title: str) -> None:
    """Draw metrics over steps; panels of which nothing was measured are left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = {key: _points(records, key) for panel in panels for key in panel.keys}
    panels = [panel for panel in panels if any(lines[key] for key in panel.keys)]
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(11, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    places = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, panel in zip(places, panels, strict=False):
        for key in panel.keys:
            if lines[key]:
                axes.plot(*zip(*lines[key], strict=True), label=key, marker="." if len(lines[key]) < 20 else None)
        if panel.level is not None:
            axes.axhline(panel.level[0], linestyle="--", color="0.6", label=panel.level[1])
        if len(axes.get_lines()) > 1:
            axes.legend(fontsize="x-small")
        axes.set_title(panel.title, fontsize="medium")
        axes.set_xlabel("step")
    for axes in list(figure.axes)[len(panels) :]:
        axes.remove()
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _points(records: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]
