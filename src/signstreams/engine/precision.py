"""In which precision a network computes; its weights and losses stay in float32."""

from __future__ import annotations

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """For a `with` block: bfloat16 where ``precision`` is ``bf16``, otherwise nothing changes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
