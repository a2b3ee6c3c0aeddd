"""The device that computes: precision, copies to it, matrix units, torch.compile, free memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

# In which precision a network computes; its weights and losses stay in float32.


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """For a `with` block: bfloat16 where ``precision`` is ``bf16``, otherwise nothing changes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


# From the CPU to the device that computes.


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device; a GPU takes it from page-locked memory, and the CPU does not wait for that."""
    if device.type != "cuda":
        return tensor
    # a tensor with gaps, such as some of a table's columns, torch would gather in common memory first
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


# How a device multiplies float32 matrices, and whether torch.compile has what it needs there.

log = logging.getLogger(__name__)


def use_tensor_cores(device: torch.device) -> None:
    """Let products of float32 matrices round their inputs to TF32 on CUDA; sums stay in float32.

    Losses, softmax, Sinkhorn-Knopp and centre hold no matrix product, so they stay exact; features of frozen backbones
    are kept in float16, which has as many bits.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works for this device, found out on a sum of two numbers; if not, a line says why."""
    try:
        torch.compile(_probe, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a driver too old: each has its own class of error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        log.warning("torch.compile does not work here (%s); going on without it", reason.strip()[:160])
        return False
    return True


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x + 1


# Memory that this process may still take: of its GPU, of the machine, of what a container or Slurm allows it.

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Limit, use, and what of it the kernel gives back first: pages of files that nobody reads at the moment.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process may still take on the device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([*_of_the_machine(), *_of_control_groups()], default=None)


def _of_the_machine() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])


def _of_control_groups() -> Iterator[int]:
    """Of each group with a limit that holds this process; Slurm's job and step are groups inside one another."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = CGROUPS, _VERSION_2
        elif "memory" in controllers.split(","):
            top, names = CGROUPS / "memory", _VERSION_1
        else:
            continue
        group = top / path.strip("/")  # inside a container it may not be there by this name, but the top is
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _of_one(folder, *names)


def _of_one(folder: Path, limit: str, used: str, idle: str) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # absent, or "max" without a limit
        free = int((folder / limit).read_text()) - int((folder / used).read_text())
        counts = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield free + sum(int(count) for name, count in counts if name == idle)
