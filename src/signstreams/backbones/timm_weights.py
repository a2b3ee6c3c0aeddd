"""Pretrained networks of timm: from the local cache; from the network only where a setting allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from signstreams.errors import UserError


def load_timm(name: str, *, download: bool, setting: str = "backbone", flag: str = "--model-download") -> Any:
    """A network of timm with its pretrained weights, without its classifier; has more than an nn.Module declares.

    Args:
        name: Timm's, such as ``vit_small_patch14_dinov2.lvd142m``.
        download: Whether weights that are not in the local cache may be fetched.
        setting: Which one names the network, for messages.
        flag: The one that allows the download, for messages.

    Raises:
        UserError: timm has no such weights, they are not in the cache, or cannot be fetched or read.
    """
    import timm

    named = f"{setting} 'timm::{name}'"
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        config = None
    if config is None or not config.has_weights:
        raise UserError(f"{named}: timm has no such model with weights; see timm.list_pretrained()")
    local = cached_file(config)
    if local is None and not download:
        raise UserError(f"{named}: is not in the local cache; add {flag} to fetch it, or give a file::")
    overlay = {} if local is None else {"file": str(local), "custom_load": False}
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub client raises many kinds when it is offline; none of them is our bug
        reason = " ".join(str(error).split())[:160]
        what = "fetched" if local is None else f"read from {local}"
        raise UserError(f"{named}: cannot be {what} ({type(error).__name__}: {reason}); give a file::") from None


def cached_file(config: Any) -> Path | None:
    """Weights of a timm model that lie in the cache of the hub client or of torch.hub; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
    if config.url and config.url.endswith((".pth", ".pt")):
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if path.is_file():
            return path
    return None
