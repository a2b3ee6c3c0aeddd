"""Memory that this process may still take: of its GPU, of the machine, of what a container or Slurm allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

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
