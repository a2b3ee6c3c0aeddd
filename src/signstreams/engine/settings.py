"""Settings that both trainings share: notes about a run, and where its metrics go."""

from __future__ import annotations

from typing import Annotated

from signstreams.config.section import Fixed, Flag, Section


class ExperimentConfig(Section):
    """Notes on the run for people; no effect on the result."""

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
    """Project of Weights & Biases, which has its own ways to set login, server and mode: wandb login,
    WANDB_MODE=offline."""
    mlflow: Annotated[str | None, Fixed()] = None
    """No longer supported; kept because best.pt holds the config."""
