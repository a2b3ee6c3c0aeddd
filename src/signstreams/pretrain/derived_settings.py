"""Settings that the config leaves open, derived from the length of the run and the number of distinct crops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from signstreams.pretrain.settings import LINEAR_BATCH, PretrainConfig

# Prototypes by number of crops: from 20k on after lightly-train's DINO, the first row from docs/experiments.md.
PROTOTYPES = ((5_000, 256), (20_000, 1024), (50_000, 2048), (100_000, 4096), (200_000, 16_384), (500_000, 32_768))
MAX_PROTOTYPES = 65_536
TARGETS_PER_PROTOTYPE = 100
"""Targets of the whole run for each prototype, at least: a short run over many crops has fewer prototypes."""
MIN_PROTOTYPES = 256
LONG_STEPS = 20_000
"""From here on a run has the time to leave the flat phase by itself; below, batch norm in the head keeps the scores of
a batch apart (docs/experiments.md, up to 1,200 steps; DINO's own runs without it have 125,000)."""
LOW_TEMP = 0.025
HIGH_TEMP = 0.07  # above it training is unstable (DINO's README)
TEMP_CROPS, TEMP_STEPS = (20_000, 1_280_000), (2_500, 100_000)
"""Crops, and steps, between which the teacher's temperature rises with their logarithm from the low to the high one.
The lower of the two counts: few crops want sharper targets, and so does a run without the time to come to them."""
USUAL_EPOCHS, MAX_VIEWS = 100, 20_000_000
"""Length of a run that sets neither epochs nor a budget, whichever is less: 100 epochs of two million crops would be
200 million views, twenty times what SignMusketeers saw."""
BASE_BATCH = 256
DECAY_RATIO = 0.2
"""Share of the run over which the rate decays by ``constant_decay``: from a fifth on, runs of language models end as
well as by a cosine (Hägele et al. 2024)."""
MAX_HEAD_ONLY_STEPS = 2_000  # a new head's first gradients would destroy what the backbone knows

# Until the steps counted, 20,001 crops had none of what 20,000 had. A run begun by that rule ends by it.
EARLIER_SMALL_CROPS = 20_000
EARLIER_TEMPS = (20_000, 0.04), (1_280_000, 0.07)


@dataclass(frozen=True)
class DerivedSettings:
    """The numbers that a run uses."""

    total_steps: int
    decay_steps: int  # last steps in which the rate decays; 0: a cosine does it over the whole run
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


def derive_settings(
    config: PretrainConfig,
    *,
    num_crops: int,
    global_batch: int,
    num_distinct_crops: int | None = None,
    is_earlier: bool = False,
    begun_steps: int | None = None,
) -> DerivedSettings:
    """Settings of a run over ``num_crops`` training crops with ``global_batch`` of them per step.

    ``num_distinct_crops`` of them count for head, targets and temperature; None: all. ``is_earlier``: by the rule of
    earlier versions, for a run that was begun by one. ``begun_steps``: the length that a run was first started with,
    which decides all but its end where it has been made longer since.
    """
    epoch_steps = config.dataset.epoch_steps or num_crops // global_batch
    end_step = _total_steps(config, epoch_steps, global_batch, is_earlier=is_earlier)
    total_steps = begun_steps or end_step
    num_distinct = num_crops if num_distinct_crops is None else num_distinct_crops
    dino, optim = config.dino, config.optim
    share = global_batch / BASE_BATCH
    auto = min(share, LINEAR_BATCH / BASE_BATCH) * math.sqrt(max(1.0, global_batch / LINEAR_BATCH))
    factor = {"auto": auto, "linear": share, "sqrt": math.sqrt(share), "none": 1.0}[optim.learning_rate_scaling]
    if is_earlier:
        is_small = num_crops <= EARLIER_SMALL_CROPS
        num_prototypes = dino.num_prototypes or prototypes_for(num_crops)
        teacher_temp = dino.teacher_temp or (LOW_TEMP if is_small else _earlier_temp(num_crops))
        batch_norm, use_sinkhorn, bottleneck_dim = is_small, is_small, 64 if is_small else 256
    else:
        num_targets = 2 * global_batch * total_steps  # one of each global view
        num_prototypes = dino.num_prototypes or prototypes_for(num_distinct, num_targets)
        teacher_temp = dino.teacher_temp or teacher_temp_for(num_distinct, total_steps)
        batch_norm, use_sinkhorn, bottleneck_dim = total_steps < LONG_STEPS, True, 64 if num_prototypes <= 1024 else 256
    is_trained = config.init.weights is not None
    head_only_steps = config.init.head_only_steps
    if head_only_steps is None:
        head_only_steps = min(MAX_HEAD_ONLY_STEPS, math.ceil(total_steps / 20)) if is_trained else 0
    return DerivedSettings(
        total_steps=end_step,
        decay_steps=0 if optim.schedule == "cosine" else decay_steps_of(end_step),
        epoch_steps=epoch_steps,
        peak_learning_rate=optim.learning_rate * factor,
        num_prototypes=num_prototypes,
        hidden_dim=dino.hidden_dim or (2048 if num_prototypes >= 4096 else 512),
        bottleneck_dim=dino.bottleneck_dim or bottleneck_dim,
        batch_norm=batch_norm if dino.batch_norm is None else dino.batch_norm,
        use_sinkhorn=use_sinkhorn if config.sinkhorn.use is None else config.sinkhorn.use,
        warmup_teacher_temp=dino.warmup_teacher_temp or min(0.04, teacher_temp),
        teacher_temp=teacher_temp,
        momentum=dino.momentum or momentum_for(total_steps),
        warmup_steps=round(optim.warmup_ratio * total_steps),
        teacher_temp_warmup_steps=round(dino.teacher_temp_warmup_ratio * total_steps),
        freeze_prototypes_steps=math.ceil(dino.freeze_prototypes_ratio * total_steps),
        head_only_steps=min(head_only_steps, end_step),
        layer_decay=optim.layer_decay or (0.9 if is_trained else 1.0),
        patch_embed_factor=0.2 if is_trained else 1.0,  # DINOv2's
    )


def decay_steps_of(total_steps: int) -> int:
    """Last steps of a run by ``constant_decay`` in which its rate decays."""
    return math.ceil(DECAY_RATIO * total_steps)


def _total_steps(config: PretrainConfig, epoch_steps: int, global_batch: int, *, is_earlier: bool) -> int:
    if config.epochs is not None:
        return config.epochs * epoch_steps
    if config.budget.views is not None:
        return max(1, config.budget.views // global_batch)
    usual = USUAL_EPOCHS * epoch_steps
    return usual if is_earlier else max(1, min(usual, MAX_VIEWS // global_batch))


def prototypes_for(num_crops: int, num_targets: int | None = None) -> int:
    """Number of prototypes K: few for few crops, so that each finds crops to represent, and for few targets."""
    count = next((count for limit, count in PROTOTYPES if num_crops <= limit), MAX_PROTOTYPES)
    while num_targets is not None and count > MIN_PROTOTYPES and count * TARGETS_PER_PROTOTYPE > num_targets:
        count //= 2
    return count


def teacher_temp_for(num_crops: int, total_steps: int) -> float:
    """Lower for fewer crops and for fewer steps."""
    crops, steps = (
        min(1.0, max(0.0, math.log(max(1, count) / low) / math.log(high / low)))
        for count, (low, high) in ((num_crops, TEMP_CROPS), (total_steps, TEMP_STEPS))
    )
    return round(LOW_TEMP + (HIGH_TEMP - LOW_TEMP) * min(crops, steps), 4)


def _earlier_temp(num_crops: int) -> float:
    (low_crops, low), (high_crops, high) = EARLIER_TEMPS
    share = math.log(num_crops / low_crops) / math.log(high_crops / low_crops)
    return round(low + (high - low) * min(1.0, max(0.0, share)), 4)


def momentum_for(total_steps: int) -> float:
    """The teacher averages over a hundredth of the run: .996 for 25,000 steps; within .95 to .9995."""
    return round(min(0.9995, max(0.95, 1 - 100 / max(1, total_steps))), 5)
