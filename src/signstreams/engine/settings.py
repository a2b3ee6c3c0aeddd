"""Settings that both trainings share: notes about a run, and where its metrics go."""

from __future__ import annotations

from typing import Annotated

from signstreams.config.section import Fixed, Flag, Section


class ExperimentConfig(Section):
    """What people want to remember about the run; no effect on the result."""

    name: str = ""
    """Short name."""
    tags: Annotated[list[str], Flag("--experiment-tag")] = []
    """Labels."""
    notes: str = ""
    """Free text."""


class TrackingConfig(Section):
    """Where metrics go besides metrics.jsonl; no effect on the result, and a tracker that fails never ends a run."""

    tensorboard: Annotated[bool, Flag("--tensorboard")] = False
    """Also write event files to <output_dir>/tensorboard: tensorboard --logdir work_dirs."""
    wandb: Annotated[str | None, Flag("--wandb")] = None
    """Project of Weights & Biases. Login, server and mode are set its own way: wandb login, WANDB_MODE=offline."""
    mlflow: Annotated[str | None, Fixed()] = None
    """A tracker of earlier versions; recorded since best.pt holds the config."""
