"""The device: copies to it, and free memory as the least of what the machine and each control group leave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import device
from signstreams.engine.device import free_memory, to_device

CPU = torch.device("cpu")
KIB = 1024
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 KiB, without groups."""
    monkeypatch.setattr(device, "PROC", tmp_path / "proc")
    monkeypatch.setattr(device, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  900 kB\nMemFree: 1 kB\nMemAvailable:   100 kB\n")
    return tmp_path


def group(folder: Path, names: tuple[str, str, str], limit: object, used: int, idle: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {idle}\ninactive_anon 7\n")


def test_without_groups_the_machine_counts(system: Path) -> None:
    assert free_memory(CPU) == 100 * KIB
    (system / "proc" / "meminfo").write_text("MemTotal: 900 kB\n")
    assert free_memory(CPU) is None
    (system / "proc" / "meminfo").unlink()
    assert free_memory(CPU) is None


def test_in_a_container_pages_of_idle_files_are_free(system: Path) -> None:
    (system / "proc" / "self" / "cgroup").write_text("0::/\n")
    group(system / "cgroup", V2, 50 * KIB, 30 * KIB, idle=10 * KIB)
    assert free_memory(CPU) == 30 * KIB
    group(system / "cgroup", V2, "max", 30 * KIB)
    assert free_memory(CPU) == 100 * KIB
    group(system / "cgroup", V2, 500 * KIB, 30 * KIB)
    assert free_memory(CPU) == 100 * KIB  # a limit beyond what the machine has


@pytest.mark.parametrize(("line", "top", "names"), [("0::", "", V2), ("4:cpu,memory:", "memory", V1)])
def test_under_slurm_the_job_around_the_step_counts(
    system: Path, line: str, top: str, names: tuple[str, str, str]
) -> None:
    (system / "proc" / "self" / "cgroup").write_text(f"9:pids:/x\n{line}/slurm/job_7/step_0\n")
    step = system / "cgroup" / top / "slurm" / "job_7" / "step_0"
    group(step, names, "max" if names is V2 else 2**63 - 4096, 20 * KIB)
    group(step.parent, names, 40 * KIB, 25 * KIB)
    assert free_memory(CPU) == 15 * KIB
    group(step, names, 30 * KIB, 20 * KIB)
    assert free_memory(CPU) == 10 * KIB


def test_a_group_that_is_absent_under_its_name_is_read_at_the_top(system: Path) -> None:
    (system / "proc" / "self" / "cgroup").write_text("4:memory:/docker/abc\n")
    group(system / "cgroup" / "memory", V1, 40 * KIB, 10 * KIB)
    assert free_memory(CPU) == 30 * KIB


# -- Copies


def test_a_copy_to_a_gpu_does_not_wait_and_on_the_cpu_there_is_none(
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
) -> None:
    numbers = torch.arange(3)
    assert to_device(numbers, torch.device("cpu")) is numbers
    with pretend_cuda() as gpu:
        there = to_device(numbers, torch.device("cuda"))
        assert there.device.type == "cuda" and dict(gpu.waits) == {}
        assert there.tolist() == [0, 1, 2]


def test_a_tensor_with_gaps_is_copied_without_waiting_too(
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
) -> None:
    columns = torch.arange(6).view(2, 3)[:, :2]
    with pretend_cuda() as gpu:
        there = to_device(columns, torch.device("cuda"))
        assert dict(gpu.waits) == {}
        assert there.tolist() == [[0, 1], [3, 4]]


def test_a_copy_from_pageable_memory_would_be_noticed(
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
) -> None:
    numbers = torch.arange(6).view(2, 3)
    with pretend_cuda() as gpu:
        numbers.to("cuda", non_blocking=True)
        numbers[:, :2].pin_memory().to("cuda", non_blocking=True)
        numbers.pin_memory().to("cuda")
        torch.zeros(2, 3, dtype=torch.long, device="cuda").copy_(numbers, non_blocking=True)
        assert dict(gpu.waits) == {"elsewhere to": 3, "elsewhere copy_": 1}
