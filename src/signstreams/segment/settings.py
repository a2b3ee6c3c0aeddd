"""Settings of the boundary model. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from signstreams.config.section import Count, Flag
from signstreams.integrate.settings import TrainedModelSection


class BoundaryConfig(TrainedModelSection):
    """Train a small model that finds sentences in continuous signing, on the corpus's own clip times, for translation.

    It sees what the translation model of --checkpoint sees before its encoder: features of the frozen backbones, and
    points. F1 of its boundaries on held-out videos is in boundaries.json.
    """

    root: Path | None = None
    """Root folder of the corpus. None: that of the training."""
    features_dir: Annotated[Path | None, Flag("--features")] = None
    """Folder of features; missing ones are computed. None: as in training."""
    output_dir: Path = Path("work_dirs/boundaries")
    """Folder of boundary.pt and boundaries.json."""
    seed: int = 0
    """Seed of every random draw."""
    steps: Count = 1500
    """Length of the training, in optimiser steps of 16 stretches of 16 s each."""
