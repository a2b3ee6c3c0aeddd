"""``curves.png`` of a pretraining."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from signstreams.engine.curves import Panel, plot_curves

_CAPTION = (
    "Good: the loss falls below the dashed line (ln K: knowing nothing), the entropy of one crop's target lies below "
    "that of the batch, most prototypes are used, RankMe and k-NN rise. Bad: both entropies on the line (nothing "
    "learned) or both near 0 (one prototype takes all), a k-NN that falls, a gradient norm that climbs."
)


def draw(records: list[dict[str, Any]], path: Path, *, num_prototypes: int, title: str) -> None:
    """Draw metrics over steps; ln K, the loss of knowing nothing, is a dashed line."""
    level = (math.log(num_prototypes), "ln K")
    panels = (
        Panel("Loss", ("train/loss_dino", "train/loss_patch", "train/kl", "train/kl_patch"), level),
        Panel("Teacher entropy (nats)", ("teacher/entropy_sample", "teacher/entropy_batch"), level),
        Panel("Prototypes used (share)", ("teacher/prototypes_used_ratio",)),
        Panel("Held-out crops: k-NN (share right)", ("probe/knn",)),
        Panel("Held-out crops: RankMe", ("probe/rankme",)),
        Panel("Held-out crops: information (nats)", ("probe/assignment_information",)),
        Panel("Learning rate", ("schedule/lr",)),
        Panel("Gradient norm", ("train/grad_norm",)),
        Panel("Seconds a step", ("time/step_s", "time/data_s")),
    )
    plot_curves(records, path, panels, title=title, caption=_CAPTION)
