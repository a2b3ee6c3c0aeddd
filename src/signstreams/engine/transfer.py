"""From the CPU to the device that computes."""

from __future__ import annotations

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device; a GPU takes it from page-locked memory, and the CPU does not wait for that."""
    if device.type != "cuda":
        return tensor
    # a tensor with gaps, such as some of a table's columns, torch would gather in common memory first
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
