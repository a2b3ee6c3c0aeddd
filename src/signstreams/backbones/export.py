"""Weights on disk: ``{"model": state dict in hub layout, "metadata": plain values}``, equal runs giving equal bytes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from signstreams.backbones.archs import ViTArch
from signstreams.engine import checkpoint
from signstreams.files import write_bytes

FORMAT = "signstreams_backbone_v1"


def export_backbone(
    path: str | Path,
    arch: ViTArch,
    state: dict[str, Tensor],
    metadata: dict[str, Any],
    *,
    safetensors: str | Path | None = None,
) -> None:
    """Write a backbone that timm, torch.hub's DINOv2 and `load_dinov2_backbone` read.

    ``mask_token`` stays where a reader looks for it: in DINOv2's architectures (timm recognises them by it) and where
    there are registers (timm renames them then). Elsewhere the keys equal timm's own.

    Args:
        path: File to write.
        arch: Shape of the network.
        state: Its parameters by name.
        metadata: Plain values; no times and no paths, which would make equal runs differ.
        safetensors: A second file with the same tensors; the metadata is its entry ``signstreams``, as JSON.
    """
    keeps_mask_token = arch.is_dinov2 or arch.num_registers > 0
    model = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in state.items()
        if keeps_mask_token or name != "mask_token"
    }
    content = {"format": FORMAT, "architecture": arch.name, **dataclasses.asdict(arch), **metadata}
    del content["name"]
    checkpoint.save(path, {"model": model, "metadata": content})
    if safetensors is not None:
        from safetensors.torch import save

        described = {"format": "pt", "signstreams": json.dumps(content, ensure_ascii=False)}
        write_bytes(safetensors, _in_order(save(model, metadata=described)))


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library writes that in the order of a hash map."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
