"""Settings that both trainings share: notes about a run, and where its metrics go."""

from __future__ import annotations

from typing import Annotated

from signstreams.config.section import Flag, Section

# What both trainings note about a run for the people who read it later.


class ExperimentConfig(Section):
    """What people want to remember about the run; no effect on the result."""

    name: str = ""
    """Short name."""
    tags: Annotated[list[str], Flag("--experiment-tag")] = []
    """Labels."""
    notes: str = ""
    """Free text."""


# Where both trainings send their metrics, besides metrics.jsonl.


class TrackingConfig(Section):
    """Further places for the metrics; no effect on the result, and what fails there never ends a run."""

    tensorboard: Annotated[bool, Flag("--tensorboard")] = False
    """Write event files into <output_dir>/tensorboard too: tensorboard --logdir work_dirs."""
    wandb: Annotated[str | None, Flag("--wandb")] = None
    """Project of Weights & Biases. Login, server and mode are its own: wandb login, WANDB_MODE=offline."""
    mlflow: Annotated[str | None, Flag("--mlflow")] = None
    """Experiment of MLflow. Its server is named by MLFLOW_TRACKING_URI."""
