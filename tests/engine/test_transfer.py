"""A tensor on its way to the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from signstreams.engine.transfer import sent


def test_it_stays_on_a_cpu_and_a_gpu_is_not_waited_for(pretend_cuda: Callable[[], AbstractContextManager[Any]]) -> None:
    numbers = torch.arange(3)
    assert sent(numbers, torch.device("cpu")) is numbers
    with pretend_cuda() as gpu:
        there = sent(numbers, torch.device("cuda"))
        assert there.device.type == "cuda" and dict(gpu.waits) == {}
        assert there.tolist() == [0, 1, 2]
