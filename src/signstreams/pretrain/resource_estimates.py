"""Disk, memory and shared memory of a run: checks before the start, estimates, advice when one runs out."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from signstreams.backbones.archs import ViTArch
from signstreams.engine.device import free_memory
from signstreams.errors import UserError
from signstreams.pretrain.derived_settings import DerivedSettings
from signstreams.pretrain.settings import PretrainConfig, auto_workers
from signstreams.pretrain.views import NUM_GLOBAL, PARAMS
from signstreams.processes import available_cores, number_of_environment

log = logging.getLogger(__name__)

MB, GB, GIB = 10**6, 10**9, 2**30
DEFAULT_FREE_BYTES = 5 * GB
COPIES_ON_DISK = 4  # last, the one before it, best, and the one being written
TOKEN_FLOATS = 16  # kept for the backward pass per block and width: norms 4, q k v 3, attention 1, MLP 8
SCORE_COPIES = 4  # scores, log-softmax, targets' product, gradient
HEAD_FLOATS = 5  # per hidden unit and row
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "alloc_failed",  # as cuBLAS says it
)


@dataclass(frozen=True)
class Memory:
    """Estimated bytes of one process."""

    weights: int  # student, its gradients, AdamW's moments, teacher
    activations: int  # activations of the student's blocks, kept for the backward pass
    scores: int  # scores of the heads over the prototypes

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.scores


def estimate_memory(config: PretrainConfig, derived: DerivedSettings, arch: ViTArch, student: nn.Module) -> Memory:
    """Memory of one process at the peak of a step, within a few ten percent; without interpreter and loader."""
    views, batch = config.augmentation, config.dataset.batch_size / config.optim.accumulate
    tokens = sum(
        count * (1 + arch.num_registers + (side // arch.patch_px) ** 2)
        for count, side in ((NUM_GLOBAL, views.global_px), (views.num_local, views.local_px))
    )  # of all views of a crop
    float_bytes = 2.5 if config.optim.precision == "bf16" else 4  # norms and residuals stay in float32
    rows = (NUM_GLOBAL + views.num_local) * batch
    if config.algorithm == "ibot":
        patches = (views.global_px // arch.patch_px) ** 2
        rows += NUM_GLOBAL * batch * config.ibot.masked_views_ratio * sum(config.ibot.mask_ratio) / 2 * patches
    kept = TOKEN_FLOATS * arch.depth * float_bytes  # bytes per token and width
    if config.optim.checkpoint_activations:
        kept = 4 * arch.depth + TOKEN_FLOATS * float_bytes  # each block's input, and the block at hand
    score_floats = rows * (SCORE_COPIES * derived.num_prototypes + HEAD_FLOATS * derived.hidden_dim)
    return Memory(
        weights=20 * sum(parameter.numel() for parameter in student.parameters()),
        activations=round(batch * tokens * arch.embed_dim * kept),
        scores=round(4 * score_floats),
    )


def log_memory_estimate(memory: Memory, device: torch.device) -> None:
    """Log the estimate, as a warning if it exceeds the free memory."""
    free = free_memory(device)
    text = (
        f"memory of a process: about {memory.total / GIB:.2f} GiB (weights and optimiser {memory.weights / GIB:.2f},"
        f" activations {memory.activations / GIB:.2f}, scores {memory.scores / GIB:.2f})"
    )
    if free is not None and memory.total > free:
        log.warning("%s; only %.2f GiB free on %s: raise --accumulate or lower --batch-size", text, free / GIB, device)
    else:
        log.info("%s%s", text, "" if free is None else f"; {free / GIB:.1f} GiB free on {device}")


def check_disk(config: PretrainConfig, folder: Path, checkpoint_bytes: int) -> None:
    """Refuse to start a run that would fill the disk; what the folder's ``state`` already holds is not counted again.

    Raises:
        UserError: Names free and required space, and the setting.
    """
    asked = config.checkpointing.min_free_gb
    copies = COPIES_ON_DISK + (config.optim.schedule != "cosine")  # the state before the decay stays
    if asked is not None:
        needed = round(asked * GB)
    else:
        files = copies * checkpoint_bytes
        held = sum(path.stat().st_size for path in (folder / "state").iterdir() if path.is_file())
        # 5 GB, as the requirement says; less for a small run, more for a large one
        needed = max(round(1.5 * files), min(DEFAULT_FREE_BYTES, 10 * files)) - held
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / GB:.2f} GB are free on its disk, the run needs {needed / GB:.2f} GB"
            f" ({copies} checkpoints of {checkpoint_bytes / GB:.2f} GB); free some space, give another"
            " --output-dir, or set checkpointing.min_free_gb"
        )


# -- Shared memory, through which loader processes hand over their batches

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches that each loader process makes ahead, PyTorch's default
IN_USE = 2  # batches that the training holds: that of its step, and the next one as it arrives


class Loading(NamedTuple):
    """How batches are made."""

    num_workers: int  # loader processes; 0: the training makes its batches itself
    prefetched: int  # batches that each one makes ahead


def plan_loading(config: PretrainConfig) -> Loading:
    """As the config says, or as many loader processes as the cores are worth; fewer batches where they lack room.

    Raises:
        UserError: The config asks for loader processes, and there is no room for one of them.
    """
    asked = config.dataset.num_workers
    num_workers = auto_workers(available_cores()) if asked is None else asked
    free = free_shared_memory()
    if not num_workers or free is None:
        return Loading(num_workers, PREFETCHED)
    size = batch_bytes(config)
    ahead = free // size - IN_USE  # batches that fit beside those in use
    if ahead >= num_workers * PREFETCHED:
        return Loading(num_workers, PREFETCHED)
    found = (
        f"{SHARED_MEMORY}: {free / MB:,.0f} MB are free for this process,"
        f" {num_workers} loader processes need {(num_workers * PREFETCHED + IN_USE) * size / MB:,.0f} MB"
    )
    remedy = "enlarge it (docker run --shm-size=2g)"
    if ahead < 1 and asked is not None:
        raise UserError(
            f"{found}, a single one {(1 + IN_USE) * size / MB:,.0f} MB; set --dataset-num-workers 0, lower"
            f" --batch-size, or {remedy}"
        )
    plan = Loading(max(0, min(num_workers, ahead)), 1)
    if number_of_environment("LOCAL_RANK", 0) == 0:
        one_ahead = f"there are {plan.num_workers}, one batch ahead each"
        how = one_ahead if plan.num_workers else "there are none"
        log.warning("%s: %s; to load faster, %s", found, how, remedy)
    return plan


def free_shared_memory() -> int | None:
    """Bytes of shared memory for each of the processes on this machine; None where the system has no such place."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize // max(1, number_of_environment("LOCAL_WORLD_SIZE", 1))


def batch_bytes(config: PretrainConfig) -> int:
    """Bytes of one process's batch as a loader hands it over."""
    views = config.augmentation
    pixels = NUM_GLOBAL * views.global_px**2 + views.num_local * views.local_px**2
    return config.dataset.batch_size * (3 * pixels + 4 * PARAMS * (NUM_GLOBAL + views.num_local))


def no_shared_memory(error: RuntimeError | OSError) -> UserError | None:
    """A lock or a tensor (as PyTorch says it) that does not fit into shared memory, as a line; None for others."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno != errno.ENOSPC or error.filename:
            return None
        text = error.strerror or text
    elif "shared memory" not in text and "unable to resize file" not in text:
        return None
    reason = text.rpartition("> ")[2].strip(" :") or text
    room = "" if (free := free_shared_memory()) is None else f", {free / MB:,.1f} MB are free"
    return UserError(
        f"{SHARED_MEMORY}: the loader processes cannot put a batch there ({reason}{room}); lower --dataset-num-workers"
        " (0 needs none of it) or --batch-size, or enlarge it (docker run --shm-size=2g), and run again to go on"
    )


@contextlib.contextmanager
def exhaustion_as_user_error(config: PretrainConfig, memory: Memory | None = None) -> Iterator[None]:
    """Turn an out-of-memory error of GPU or CPU, and a full disk, into one line that names the settings to change.

    There is no estimate while the networks are built, which it depends on.

    Raises:
        UserError: Instead of those errors; all others pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{config.output_dir}: its disk is full ({error.strerror}); the last whole checkpoint is kept: free some"
            " space and run again to go on"
        ) from error
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error)
        is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_memory and not any(said in text.lower() for said in _OUT_OF_MEMORY):
            raise
        place = "the GPU" if isinstance(error, torch.OutOfMemoryError) or "CUDA" in text else "the CPU"
        if memory is None:
            raise UserError(
                f"{config.output_dir}: out of memory on {place} while the networks were built; take a smaller --arch"
                " or --depth, lower dino.num_prototypes or dino.hidden_dim, or stop other programs there"
            ) from error
        raise UserError(
            f"{config.output_dir}: out of memory on {place}, about {memory.total / GIB:.2f} GiB were estimated (weights"
            f" {memory.weights / GIB:.2f}, activations {memory.activations / GIB:.2f}, scores"
            f" {memory.scores / GIB:.2f}); {_settings_that_save_memory(config, memory)}, in a new --output-dir"
        ) from error


def _settings_that_save_memory(config: PretrainConfig, memory: Memory) -> str:
    """The settings that shrink the largest part first."""
    batch = f"raise --accumulate (now {config.optim.accumulate}), lower --batch-size (now {config.dataset.batch_size})"
    views = "augmentation.num_local or --image-size"
    precision = "" if config.optim.precision == "bf16" else ", or use --optim-precision bf16"
    prototypes = "lower dino.num_prototypes"
    if memory.weights > memory.activations + memory.scores:
        return f"take a smaller --arch or --depth, {prototypes}, or {batch}"
    if memory.scores > memory.activations:
        return f"{prototypes}, {batch}{precision}"
    again = "" if config.optim.checkpoint_activations else ", add --checkpoint-activations"
    return f"{batch}{again}, {views}{precision}"
