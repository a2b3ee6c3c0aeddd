"""A tensor on its way to the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from signstreams.engine.device import sent


def test_it_stays_on_a_cpu_and_a_gpu_is_not_waited_for(pretend_cuda: Callable[[], AbstractContextManager[Any]]) -> None:
    numbers = torch.arange(3)
    assert sent(numbers, torch.device("cpu")) is numbers
    with pretend_cuda() as gpu:
        there = sent(numbers, torch.device("cuda"))
        assert there.device.type == "cuda" and dict(gpu.waits) == {}
        assert there.tolist() == [0, 1, 2]


def test_what_has_gaps_goes_to_a_gpu_by_itself_as_well(pretend_cuda: Callable[[], AbstractContextManager[Any]]) -> None:
    columns = torch.arange(6).view(2, 3)[:, :2]
    with pretend_cuda() as gpu:
        there = sent(columns, torch.device("cuda"))
        assert dict(gpu.waits) == {}
        assert there.tolist() == [[0, 1], [3, 4]]


def test_a_copy_from_common_memory_would_have_been_seen(
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
) -> None:
    numbers = torch.arange(6).view(2, 3)
    with pretend_cuda() as gpu:
        numbers.to("cuda", non_blocking=True)
        numbers[:, :2].pin_memory().to("cuda", non_blocking=True)
        numbers.pin_memory().to("cuda")
        torch.zeros(2, 3, dtype=torch.long, device="cuda").copy_(numbers, non_blocking=True)
        assert dict(gpu.waits) == {"elsewhere to": 3, "elsewhere copy_": 1}
