"""The device that computes: precision, copies to it, matrix units, torch.compile, free memory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

log = logging.getLogger(__name__)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """For a `with` block: compute in bfloat16 where ``precision`` is ``bf16``; weights and losses stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to the device; to a GPU through page-locked memory, so that the CPU does not wait."""
    if device.type != "cuda":
        return tensor
    # torch would copy a tensor with gaps, such as some columns of a table, to pageable memory first
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def use_tensor_cores(device: torch.device) -> None:
    """Let products of float32 matrices round their inputs to TF32 on CUDA; sums stay in float32.

    Losses, softmax, Sinkhorn-Knopp and centre contain no matrix product, so they stay exact; features of frozen
    backbones are stored in float16, which has as many bits.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works on this device, by compiling a sum; if not, a warning gives the reason."""
    try:
        torch.compile(lambda x: x + 1, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # no C++ compiler, no Triton, a driver too old: each has its own class of error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        log.warning("torch.compile does not work here (%s); going on without it", reason.strip()[:160])
        return False
    return True


# -- Free memory

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Names of the limit, the usage, and the part of it that the kernel reclaims first: inactive file pages.
_CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_CGROUP_V2 = ("memory.max", "memory.current", "inactive_file")


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process may still take on the device; None where the system does not say.

    On the CPU, the least of what the machine and each control group (container, Slurm job and step) leave.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([*_free_of_machine(), *_free_of_cgroups()], default=None)


def _free_of_machine() -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])


def _free_of_cgroups() -> Iterator[int]:
    """Bytes left in each limited group that holds this process; groups of Slurm's job and step are nested."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = CGROUPS, _CGROUP_V2
        elif "memory" in controllers.split(","):
            top, names = CGROUPS / "memory", _CGROUP_V1
        else:
            continue
        group = top / path.strip("/")  # inside a container it may be absent under this name, but the top exists
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _free_of_cgroup(folder, *names)


def _free_of_cgroup(folder: Path, limit: str, used: str, idle: str) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # absent, or "max" without a limit
        free = int((folder / limit).read_text()) - int((folder / used).read_text())
        counts = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield free + sum(int(count) for name, count in counts if name == idle)
