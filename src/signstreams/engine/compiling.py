"""How a device multiplies float32 matrices, and whether torch.compile has what it needs there."""

from __future__ import annotations

import logging

import torch

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
