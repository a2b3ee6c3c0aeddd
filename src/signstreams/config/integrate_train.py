"""Settings of multistream v9: optimiser, length and rhythm of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count, NotNegative, Positive, Prob, Share


class OptimConfig(Section):
    """AdamW, linear warm-up and cosine by step."""

    lr: Positive = 5e-4
    """Peak learning rate of everything without one of its own."""
    lr_encoder: Annotated[Positive | None, Flag("--lr-encoder")] = None
    """Of projections and fusion encoder. None: lr."""
    lr_mska: Annotated[Positive | None, Flag("--lr-mska")] = None
    """Of the MSKA branch. None: lr."""
    lr_decoder: Annotated[Positive | None, Flag("--lr-decoder")] = None
    """Of the text decoder. None: lr."""
    lr_backbone: Annotated[Positive | None, Flag("--lr-backbone")] = None
    """Of backbones that are trained. None: a tenth of lr."""
    final_lr_ratio: Prob = 0.01
    """Learning rate at the end, as a share of the peak."""
    warmup_ratio: Share = 0.05
    """Share of the run with linear warm-up."""
    weight_decay: NotNegative = 0.01
    """Of weight matrices; norms, biases, embeddings, alpha and global matrices of MSKA have none."""
    clip_grad_norm: Positive | None = 1.0
    """Greatest norm of the gradients of each part (backbone, mska, encoder, decoder); None: no clipping."""
    label_smoothing: Share = 0.1
    """Of the translation loss."""
    accumulate_steps: Count = 1
    """Forward and backward passes before a step; so many times data.batch_size clips count as one batch."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast in bfloat16; losses and weights stay float32."""
    checkpoint_activations: bool = False
    """Compute activations of MSKA and of trained backbones again in the backward pass: less memory, more time."""


class TrainConfig(Section):
    """Length and rhythm of the run."""

    epochs: Annotated[Count, Flag("--epochs")] = 40
    """Passes over the train split."""
    max_train_steps: Annotated[Count | None, Flag("--max-train-steps")] = None
    """End after so many steps, when that is earlier; the schedules end there too."""
    eval_every_epochs: Count = 1
    """Epochs between two evaluations on val; the last epoch always has one."""
    patience_evals: Count | None = None
    """End when so many evaluations in a row bring nothing better; None: go on to the end."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Evaluate and keep an average of the weights that forgets by this factor a step; None: the weights themselves."""
    init_checkpoint: Annotated[Path | None, Flag("--init-checkpoint")] = None
    """best.pt of another run to start from: weights that fit by name and shape are taken, the log names the others."""
    checkpoint_steps: Count = 500
    """Greatest number of steps between two writings of last.pt; each evaluation writes it too."""
    log_every_steps: Count = 10
    """Steps between two lines of training metrics."""
