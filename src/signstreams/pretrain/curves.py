"""``curves.png``: the metrics of a run at a glance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from signstreams.files import replacing

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("train/loss_dino", "train/loss_patch", "train/kl", "train/kl_patch")),
    ("Teacher entropy (nats)", ("teacher/entropy_sample", "teacher/entropy_batch")),
    ("Prototypes used (share)", ("teacher/prototypes_used_ratio",)),
    ("Held-out crops: RankMe", ("probe/rankme",)),
    ("Gradient norm", ("train/grad_norm",)),
    ("Learning rate", ("schedule/lr",)),
)


def plot_curves(records: list[dict[str, Any]], path: Path, *, num_prototypes: int, title: str) -> None:
    """Draw metrics over steps; ln K, the loss of knowing nothing, is a dashed line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (name, keys) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for key in keys:
            points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 20 else None)
        if name.startswith(("Loss", "Teacher")):
            axes.axhline(math.log(num_prototypes), linestyle="--", color="0.6", label="ln K")
        if len(axes.get_lines()) > 1:
            axes.legend(fontsize="x-small")
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("step")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)
