"""Share of a GPU's matrix rate that a step of pretraining reaches, its wait for data, and its memory."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from signstreams.backbones.archs import ViTArch
from signstreams.pretrain.data import ViewLoader, find_crops
from signstreams.pretrain.derived_settings import DerivedSettings, derive_settings
from signstreams.pretrain.run import architecture
from signstreams.pretrain.sampler import BatchPlan, CropGroups
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

if TYPE_CHECKING:
    from signstreams.engine.distributed import World

WARMUP_STEPS, STEPS = 8, 20
MATRIX, PRODUCTS = 8192, 20


def step_flops(arch: ViTArch, config: PretrainConfig, derived: DerivedSettings, *, batch: int) -> float:
    """Operations of a step of DINO, 2 for a multiplication with its addition, without norms and the like.

    An image of N tokens, P patches, width D, through L blocks: P 3 px^2 D + L (12 N D^2 + 2 N^2 D) multiplications, of
    which the last block saves 9 (N - 1) D^2 (output and MLP of the class token alone). A row of the head: D h + h^2 +
    h b + b K. The student counts three times (forward once, backward twice, except for the patches, which get no
    gradient), the teacher once. Equal to what torch's FlopCounterMode counts of a step on the CPU.
    """
    views, width = config.augmentation, arch.embed_dim
    hidden_dim, bottleneck = derived.hidden_dim, derived.bottleneck_dim

    def image(side: int, passes: int) -> float:
        patches = (side // arch.patch_px) ** 2
        tokens = 1 + arch.num_registers + patches
        blocks = arch.depth * (12 * tokens * width**2 + 2 * tokens**2 * width) - 9 * (tokens - 1) * width**2
        embedding = patches * 3 * arch.patch_px**2 * width
        return passes * blocks + (1 if passes == 1 else 2) * embedding

    row = width * hidden_dim + hidden_dim**2 + hidden_dim * bottleneck + bottleneck * derived.num_prototypes
    student = 2 * image(views.global_px, 3) + views.num_local * image(views.local_px, 3)
    heads = (3 * (2 + views.num_local) + 2) * row
    return 2 * batch * (student + 2 * image(views.global_px, 1) + heads)


def matrix_rate(device: torch.device, size: int = MATRIX) -> float:
    """Operations per second of a bf16 product of square matrices, the best of several runs."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best_s = float("inf")
    for _ in range(4):
        _wait(device)
        started_s = time.perf_counter()
        for _ in range(PRODUCTS):
            a @ b
        _wait(device)
        best_s = min(best_s, (time.perf_counter() - started_s) / PRODUCTS)
    return 2 * size**3 / best_s


def report_batch(config: PretrainConfig, crops_dir: Path, world: World, rate: float) -> None:
    """Print share of the matrix rate, wait for data and peak memory of a config."""
    device, batch = world.device, config.dataset.batch_size
    crops = find_crops([crops_dir], max_crops=None, probe_crops=8).train
    derived = derive_settings(config, num_crops=len(crops), global_batch=batch)
    arch = architecture(config)
    plan = BatchPlan(CropGroups.of(crops.video, crops.frame), batch_size=batch, world_size=1, seed=0)
    loader = ViewLoader(config, crops, plan, world)
    trainer = Trainer(config, derived, arch, world)
    views = next(iter(loader.steps(0, 1)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(WARMUP_STEPS + STEPS):
        started_s = time.perf_counter()
        trainer.train_step(*views)
        _wait(device)
        times.append(time.perf_counter() - started_s)
    step_s = statistics.median(times[WARMUP_STEPS:])
    flops = step_flops(arch, config, derived, batch=batch)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
    waited_s, batches = 0.0, iter(loader.steps(0, WARMUP_STEPS + STEPS))
    for step in range(WARMUP_STEPS + STEPS):
        if step == WARMUP_STEPS:
            _wait(device)
            waited_s, started_s = 0.0, time.perf_counter()
        asked_s = time.perf_counter()
        both = next(batches)
        waited_s += time.perf_counter() - asked_s
        trainer.train_step(*both)
    _wait(device)
    total_s = time.perf_counter() - started_s
    print(
        f"gpu: {arch.name}, batch {batch}{', checkpointed' if config.optim.checkpoint_activations else ''}:"
        f" {batch / step_s:.0f} crops/s, {flops / step_s / 1e12:.1f} of {rate / 1e12:.1f} TFLOP/s"
        f" ({flops / step_s / rate:.1%}; target 45 %), peak {peak:.1f} GiB; with the loader ({loader.num_workers}"
        f" processes) {batch * STEPS / total_s:.0f} crops/s, {waited_s / total_s:.1%} of it waiting"
        " for data (target 3 %)",
        flush=True,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
