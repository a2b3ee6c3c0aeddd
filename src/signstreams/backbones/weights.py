"""Backbone weights: loaded from files or timm, checked against their architecture, and exported in the hub layout."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signstreams.backbones.archs import ARCHS, ViTArch, infer, mismatches, parse_spec
from signstreams.backbones.vit import VisionTransformer, resize_table
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import write_bytes

log = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FORMAT = "signstreams_backbone_v1"
_WRAPPERS = ("module.", "_orig_mod.", "backbone.")


class Backbone(nn.Module):
    """A network with its input specification.

    Features are ``embed_dim`` wide. It was trained on images of side ``image_px``, their R, G, B in 0..1 normalised
    by ``mean`` and ``std``.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        embed_dim: int,
        patch_size: int,
        image_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        metadata: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.metadata = model, metadata
        self.embed_dim, self.patch_size, self.image_px = embed_dim, patch_size, image_px
        self.mean, self.std = tuple(mean), tuple(std)
        # on the device of the weights and images: copying to a GPU at each call would wait for it
        self.register_buffer("_mean", torch.tensor(self.mean), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to class tokens (B, D)."""
        tokens: Tensor = self.model(images)
        return tokens

    @property
    def num_layers(self) -> int:
        """Blocks whose class tokens `layer_tokens` gives; 1 where only the last is available (timm)."""
        return len(self.model.blocks) if isinstance(self.model, VisionTransformer) else 1

    def layer_tokens(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the class token of every block, (B, L, D), the last one last."""
        if isinstance(self.model, VisionTransformer):
            return self.model.layer_tokens(images)
        tokens: Tensor = self.model(images)
        return tokens[:, None]

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to what `forward` takes, float32 (B, 3, H, W)."""
        return ((images.float() / 255 - self._mean) / self._std).permute(0, 3, 1, 2)


def load_dinov2_backbone(spec: str, *, download: bool = False) -> Backbone:
    """Backbone of ``file::path[:architecture]`` or ``timm::name``, in evaluation mode, on the CPU.

    A position table of another size is resized to the architecture's, which is logged. ``download`` lets ``timm::``
    fetch weights that are not in the local cache.

    Raises:
        UserError: File absent, not a checkpoint, or of another architecture than named; no such weights of timm here.
    """
    parsed = parse_spec(spec)
    if parsed.kind == "timm":
        return _from_timm(parsed.location, download=download)
    path = Path(parsed.location)
    state, metadata, found = read_file(path)
    arch = _agreed(path, found, parsed.arch)
    if arch.grid != found.grid:
        log.info("%s: position table resized from %dx%d to %dx%d", path, *[found.grid] * 2, *[arch.grid] * 2)
        state["pos_embed"] = resize_table(state["pos_embed"], arch.grid, arch.grid)
    model = VisionTransformer(arch)
    state.setdefault("mask_token", torch.zeros(1, arch.embed_dim))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: does not fit {arch.described()} ({reason}); export the backbone again, or name another file"
        ) from None
    return Backbone(
        model,
        embed_dim=arch.embed_dim,
        patch_size=arch.patch_px,
        image_px=int(metadata.get("image_px", 224)),
        mean=metadata.get("mean", IMAGENET_MEAN),
        std=metadata.get("std", IMAGENET_STD),
        metadata=metadata,
    ).eval()


def read_file(path: Path, named: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any], ViTArch]:
    """State dict in hub layout, metadata, and shape of the network in a ``.pt`` or ``.safetensors`` file.

    Raises:
        UserError: Absent, broken, without a vision transformer, or of another architecture than named.
    """
    try:
        content = read_safetensors(path) if path.suffix == ".safetensors" else checkpoint.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected exported weights; pretrain the stream first") from None
    except ValueError as error:
        raise UserError(f"{error}; export the backbone again") from None
    try:
        state, metadata = unwrap(content)
        state = to_hub_layout(state)
        found = infer({key: tuple(value.shape) for key, value in state.items()}, str(metadata.get("architecture", "")))
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; name a backbone.pt of a pretraining, or weights in DINOv2's layout"
        ) from None
    if named is not None:
        _agreed(path, found, named)
    return state, metadata, found


def read_safetensors(path: Path) -> dict[str, Any]:
    """``{"model": tensors, "metadata": ...}`` of a file of `export_backbone`, or the tensors of any other file.

    Raises:
        FileNotFoundError: It is absent.
        ValueError: It is broken; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get("signstreams", "{}")
            names = file.keys()  # the file itself cannot be iterated
            return {"model": {name: file.get_tensor(name) for name in names}, "metadata": json.loads(described)}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: is truncated or no safetensors file ({error})") from error


def to_hub_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert timm's names and tables to DINOv2's: ``reg_token``, and a table without an entry for the class token."""
    state = dict(state)
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
    table = state.get("pos_embed")
    if table is not None and table.ndim == 3 and round(table.shape[1] ** 0.5) ** 2 == table.shape[1] > 1:
        state["pos_embed"] = torch.cat((torch.zeros_like(table[:, :1]), table), dim=1)  # (1, 1 + P, D)
    return state


def unwrap(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict in hub layout and metadata of a checkpoint; prefixes of wrappers are removed.

    Raises:
        ValueError: It holds no state dict.
    """
    metadata: dict[str, Any] = {}
    if isinstance(content, dict):
        if isinstance(content.get("metadata"), dict):
            metadata = content["metadata"]
        for key in ("model", "state_dict", "teacher"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("holds no weights, expected {'model': state dict, 'metadata': ...}")
    state = {}
    for key, value in content.items():
        for prefix in _WRAPPERS:
            key = key.removeprefix(prefix)
        if isinstance(value, Tensor) and not key.startswith(("head.", "dino_head.", "ibot_head.")):
            state[key] = value
    return state, metadata


def _agreed(path: Path, found: ViTArch, named: str | None) -> ViTArch:
    """The architecture to build: the file's shape with the named one's position table; refused where they differ."""
    if named is None:
        return found
    expected = ARCHS[named]
    if expected.is_dinov2:
        differences = mismatches(found, expected)
        expected = dataclasses.replace(expected, layer_scale_init=found.layer_scale_init)
    else:  # vit_* names say the width; patch, depth and the rest are the file's
        differences = [text for text in mismatches(found, expected) if "wide" in text]
        expected = dataclasses.replace(found, name=named)
    if differences:
        raise UserError(
            f"{path}: holds {found.described()}, expected {named}: {', '.join(differences)};"
            f" name the architecture it has, or leave ':{named}' out"
        )
    return expected


def load_timm(name: str, *, download: bool, setting: str = "backbone", flag: str = "--model-download") -> Any:
    """A network of timm (``vit_small_patch14_dinov2.lvd142m``) with its pretrained weights, without its classifier.

    It has more than an nn.Module declares. ``download`` says whether weights that are not in the local cache may be
    fetched; messages name the setting that names the network, and the flag that allows the download.

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
    """Weights of a timm model in the cache of the hub client or of torch.hub, without network access; None: absent."""
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


def _from_timm(name: str, *, download: bool) -> Backbone:
    model = load_timm(name, download=download)
    config = model.pretrained_cfg
    patch_size = getattr(getattr(model, "patch_embed", None), "patch_size", (0,))[0]
    return Backbone(
        model,
        embed_dim=model.num_features,
        patch_size=patch_size,
        image_px=config["input_size"][-1],
        mean=config["mean"],
        std=config["std"],
        metadata={"architecture": name},
    ).eval()


def export_backbone(
    path: str | Path,
    arch: ViTArch,
    state: dict[str, Tensor],
    metadata: dict[str, Any],
    *,
    safetensors: str | Path | None = None,
) -> None:
    """Write a backbone that timm, torch.hub's DINOv2 and `load_dinov2_backbone` read; equal runs give equal bytes.

    The file holds ``{"model": state dict in hub layout, "metadata": plain values}``, without times and paths, which
    would make equal runs differ. ``mask_token`` is kept where a reader expects it: in DINOv2's architectures (timm
    recognises them by it) and where there are registers (timm renames them then). Elsewhere the keys equal timm's own.
    ``safetensors`` is a second file with the same tensors; the metadata is its entry ``signstreams``, as JSON.
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
        write_bytes(safetensors, _with_sorted_metadata(save(model, metadata=described)))


def _with_sorted_metadata(data: bytes) -> bytes:
    """The same safetensors file with sorted metadata, which the library writes in the order of a hash map."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
