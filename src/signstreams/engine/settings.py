"""Settings that stages share: notes about a run, where its metrics go, what the cards of its weights say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

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


class CardConfig(Section):
    """What only you can say of weights that are given away. Nothing is assumed: the cards say what is absent."""

    weights_license: Annotated[str, Field(min_length=1)] | None = None
    """Licence of the weights: an identifier of the Hugging Face hub such as cc-by-nc-4.0, or another name, with its
    https:// address where there is one. None: the cards say that others have no licence to use them."""
    footage_license: Annotated[str, Field(min_length=1)] | None = None
    """Licence or terms of the footage that they were trained on, in your words."""
    consent_note: Annotated[str, Field(min_length=1)] | None = None
    """What the people in the footage agreed to, in your words."""
    languages: list[Annotated[str, Field(pattern="^[a-z]{2,3}$")]] = []
    """ISO 639 codes of the sign language and of the texts, such as aed (LSA) and es."""
    datasets: list[Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")]] = []
    """Names of the data sets on the hub, such as owner/name."""
