"""``curves.png`` of a pretraining."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from signstreams.engine.curves import Panel, plot_curves


def draw(records: list[dict[str, Any]], path: Path, *, num_prototypes: int, title: str) -> None:
    """Draw metrics over steps; ln K, the loss of knowing nothing, is a dashed line."""
    level = (math.log(num_prototypes), "ln K")
    panels = (
        Panel("Loss", ("train/loss_dino", "train/loss_patch", "train/kl", "train/kl_patch"), level),
        Panel("Teacher entropy (nats)", ("teacher/entropy_sample", "teacher/entropy_batch"), level),
        Panel("Prototypes used (share)", ("teacher/prototypes_used_ratio",)),
        Panel("Held-out crops: RankMe", ("probe/rankme",)),
        Panel("Gradient norm", ("train/grad_norm",)),
        Panel("Learning rate", ("schedule/lr",)),
    )
    plot_curves(records, path, panels, title=title)
