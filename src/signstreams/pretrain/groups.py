"""Groups of parameters for the optimiser, and their learning rates and weight decay at a step."""

from __future__ import annotations

from typing import Any

from torch import nn

_NO_DECAY_NAMES = ("cls_token", "pos_embed", "register_tokens", "mask_token")


def parameter_groups(
    network: nn.Module, *, depth: int, layer_decay: float = 1.0, patch_embed_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of equal treatment; norms, biases, LayerScale, prototype lengths and tokens have no weight decay.

    Args:
        network: Its backbone's parameters are named ``backbone.*``.
        depth: Blocks of the backbone.
        layer_decay: Rate of each block as a share of the next one's; the last norm and the heads have the full rate.
        patch_embed_factor: Further factor of the patch embedding.
    """
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_free = parameter.ndim <= 1 or name.endswith(("gamma", "weight_g")) or name.endswith(_NO_DECAY_NAMES)
        is_backbone = name.startswith("backbone.")
        factor = rate_factor(name, depth=depth, layer_decay=layer_decay, patch_embed_factor=patch_embed_factor)
        key = (is_backbone, not is_free, factor)
        if key not in groups:
            groups[key] = {"params": [], "is_backbone": is_backbone, "is_decayed": not is_free, "factor": factor}
        groups[key]["params"].append(parameter)
    return list(groups.values())


def rate_factor(name: str, *, depth: int, layer_decay: float, patch_embed_factor: float) -> float:
    """Learning rate of a parameter as a share of the heads': decay ** (depth + 1 - layer), embeddings being layer 0."""
    if not name.startswith("backbone.") or name.startswith("backbone.norm."):
        return 1.0
    parts = name.split(".")
    layer = int(parts[2]) + 1 if parts[1] == "blocks" else 0
    factor = layer_decay ** (depth + 1 - layer)
    return factor * patch_embed_factor if parts[1] == "patch_embed" else factor


def backbone_ramp(step: int, *, head_only_steps: int, warmup_steps: int) -> float:
    """Factor of the backbone's rate: 0 while the head learns alone, then its own warm-up; 1 without such a phase."""
    if not head_only_steps:
        return 1.0
    return min(1.0, max(0, step + 1 - head_only_steps) / max(1, warmup_steps))


def set_rates(groups: list[dict[str, Any]], now: dict[str, float]) -> None:
    """Write a step's ``lr``, ``lr_backbone`` and ``weight_decay`` into the optimiser's groups."""
    for group in groups:
        group["lr"] = now["lr_backbone" if group["is_backbone"] else "lr"] * group["factor"]
        group["weight_decay"] = now["weight_decay"] if group["is_decayed"] else 0.0
