"""Settings that the config leaves open, derived from the number of crops and the length of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from signstreams.pretrain.settings import PretrainConfig

# Prototypes by number of crops: from 20k on after lightly-train's DINO, the first row from docs/experiments.md.
PROTOTYPES = ((5_000, 256), (20_000, 1024), (50_000, 2048), (100_000, 4096), (200_000, 16_384), (500_000, 32_768))
MAX_PROTOTYPES = 65_536
SMALL_CROPS = 20_000
"""Up to this many crops a run has too few steps to leave the flat phase by itself. Batch norm in a narrow head and
balanced, sharper targets help it out (docs/experiments.md)."""
SMALL_TEMP = 0.025
BASE_BATCH = 256
MAX_HEAD_ONLY_STEPS = 2_000  # a new head's first gradients would destroy what the backbone knows
LOW_TEMP, HIGH_TEMP = (20_000, 0.04), (1_280_000, 0.07)
"""(Number of crops, teacher temperature) between which the temperature rises with the logarithm of the data."""


@dataclass(frozen=True)
class DerivedSettings:
    """The numbers that a run uses."""

    total_steps: int
    epoch_steps: int
    peak_learning_rate: float  # after scaling by the batch
    num_prototypes: int
    hidden_dim: int  # of the head, as the next two
    bottleneck_dim: int
    batch_norm: bool
    use_sinkhorn: bool  # balanced targets instead of centred ones
    warmup_teacher_temp: float
    teacher_temp: float
    momentum: float  # of the teacher
    warmup_steps: int
    teacher_temp_warmup_steps: int
    freeze_prototypes_steps: int
    head_only_steps: int  # first steps in which only the head learns
    layer_decay: float  # factors of the learning rates in the backbone
    patch_embed_factor: float


def derive_settings(config: PretrainConfig, *, num_crops: int, global_batch: int) -> DerivedSettings:
    """Settings of a run over ``num_crops`` training crops with ``global_batch`` of them per step."""
    epoch_steps = config.dataset.epoch_steps or num_crops // global_batch
    total_steps = config.epochs * epoch_steps
    dino, optim = config.dino, config.optim
    share = global_batch / BASE_BATCH
    factor = {"linear": share, "sqrt": math.sqrt(share), "none": 1.0}[optim.learning_rate_scaling]
    is_small = num_crops <= SMALL_CROPS
    num_prototypes = dino.num_prototypes or prototypes_for(num_crops)
    teacher_temp = dino.teacher_temp or teacher_temp_for(num_crops)
    is_trained = config.init.weights is not None
    head_only_steps = config.init.head_only_steps
    if head_only_steps is None:
        head_only_steps = min(MAX_HEAD_ONLY_STEPS, math.ceil(total_steps / 20)) if is_trained else 0
    return DerivedSettings(
        total_steps=total_steps,
        epoch_steps=epoch_steps,
        peak_learning_rate=optim.learning_rate * factor,
        num_prototypes=num_prototypes,
        hidden_dim=dino.hidden_dim or (2048 if num_prototypes >= 4096 else 512),
        bottleneck_dim=dino.bottleneck_dim or (64 if is_small else 256),
        batch_norm=is_small if dino.batch_norm is None else dino.batch_norm,
        use_sinkhorn=is_small if config.sinkhorn.use is None else config.sinkhorn.use,
        warmup_teacher_temp=dino.warmup_teacher_temp or min(0.04, teacher_temp),
        teacher_temp=teacher_temp,
        momentum=dino.momentum or momentum_for(total_steps),
        warmup_steps=round(optim.warmup_ratio * total_steps),
        teacher_temp_warmup_steps=round(dino.teacher_temp_warmup_ratio * total_steps),
        freeze_prototypes_steps=math.ceil(dino.freeze_prototypes_ratio * total_steps),
        head_only_steps=min(head_only_steps, total_steps),
        layer_decay=optim.layer_decay or (0.9 if is_trained else 1.0),
        patch_embed_factor=0.2 if is_trained else 1.0,  # DINOv2's
    )


def prototypes_for(num_crops: int) -> int:
    """Number of prototypes K: few for few crops, so that each finds crops to represent."""
    return next((count for limit, count in PROTOTYPES if num_crops <= limit), MAX_PROTOTYPES)


def teacher_temp_for(num_crops: int) -> float:
    """Lower for fewer crops, between two measured ends; lower still for small corpora."""
    if num_crops <= SMALL_CROPS:
        return SMALL_TEMP
    (low_crops, low), (high_crops, high) = LOW_TEMP, HIGH_TEMP
    share = math.log(num_crops / low_crops) / math.log(high_crops / low_crops)
    return round(low + (high - low) * min(1.0, max(0.0, share)), 4)


def momentum_for(total_steps: int) -> float:
    """The teacher averages over a hundredth of the run: .996 for 25,000 steps; within .95 to .9995."""
    return round(min(0.9995, max(0.95, 1 - 100 / max(1, total_steps))), 5)
