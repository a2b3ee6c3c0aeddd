"""From the CPU to the device that computes."""

from __future__ import annotations

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on the device; a GPU takes it from page-locked memory, and the CPU does not wait for that."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
