"""Vision transformer architectures, by name or from a checkpoint's tensors, and backbone specs. Imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from signstreams.errors import UserError

HEAD_DIM = 64  # of every architecture here
TABLE_CLASS_TOKENS = 1


@dataclass(frozen=True)
class ViTArch:
    """Shape of one vision transformer."""

    name: str  # its name, such as ``vit_tiny``
    embed_dim: int  # width D of a token
    depth: int  # number of blocks
    num_heads: int  # attention heads
    patch_px: int = 16  # side of a patch
    table_px: int = 224  # image side whose patch grid the position table covers; other sizes are interpolated from it
    num_registers: int = 0  # register tokens (Darcet et al. 2024).
    layer_scale_init: float | None = None  # first value of LayerScale; None: no LayerScale

    def __post_init__(self) -> None:
        if self.table_px % self.patch_px:
            raise ValueError(f"{self.table_px} px do not divide into patches of {self.patch_px} px")

    @property
    def grid(self) -> int:
        """Side of the position table, in patches."""
        return self.table_px // self.patch_px

    @property
    def is_dinov2(self) -> bool:
        return self.name.startswith("dinov2_")

    def described(self) -> str:
        """``vit_tiny (192 wide, 12 blocks, patch 16)``."""
        registers = f", {self.num_registers} registers" if self.num_registers else ""
        return f"{self.name} ({self.embed_dim} wide, {self.depth} blocks, patch {self.patch_px}{registers})"


def _dinov2(name: str, embed_dim: int, num_registers: int) -> ViTArch:
    # DINOv2's released tables cover 518 px = 37 x 37 patches; with the class token 1370 entries
    return ViTArch(name, embed_dim, 12, embed_dim // HEAD_DIM, 14, 518, num_registers, 1e-5)


ARCHS: dict[str, ViTArch] = {
    arch.name: arch
    for arch in (
        ViTArch("vit_tiny", 192, 12, 3),
        ViTArch("vit_small", 384, 12, 6),
        ViTArch("vit_base", 768, 12, 12),
        _dinov2("dinov2_vits14", 384, 0),
        _dinov2("dinov2_vits14_reg", 384, 4),
        _dinov2("dinov2_vitb14", 768, 0),
        _dinov2("dinov2_vitb14_reg", 768, 4),
    )
}


def resolve(name: str, *, image_px: int, **given: float | None) -> ViTArch:
    """The architecture of this name with the user's changes; its position table covers ``image_px``, except DINOv2's.

    These are patch_px, depth, num_registers and layer_scale_init, of which None changes nothing.

    Raises:
        ValueError: Unknown name, or a change of DINOv2's own architectures, whose names promise their shapes.
    """
    if name not in ARCHS:
        raise ValueError(f"architecture '{name}' is unknown, expected one of {', '.join(ARCHS)}")
    arch = ARCHS[name]
    changes: dict[str, Any] = {
        key: value for key, value in given.items() if value is not None and value != getattr(arch, key)
    }
    if arch.is_dinov2:
        shape_changes = sorted(set(changes) - {"layer_scale_init"})
        if shape_changes:
            raise ValueError(f"{name} has a fixed shape: leave out {', '.join(shape_changes)}, or take a vit_* one")
        return dataclasses.replace(arch, **changes)
    return dataclasses.replace(arch, table_px=image_px, **changes)


def infer(shapes: Mapping[str, tuple[int, ...]], name: str = "") -> ViTArch:
    """The architecture that tensors of these names and shapes belong to, in hub layout; without a name it is ``vit``.

    Raises:
        ValueError: The tensors are not those of a vision transformer in hub layout.
    """
    try:
        embed_dim, _, patch_px, _ = shapes["patch_embed.proj.weight"]
        _, entries, _ = shapes["pos_embed"]
    except (KeyError, ValueError):
        raise ValueError("holds no vision transformer in DINOv2's layout (patch_embed.proj, pos_embed)") from None
    if any(key.startswith("blocks.0.0.") for key in shapes):
        raise ValueError("holds blocks in chunks (blocks.0.0.*); export it unchunked")
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    grid = round((entries - TABLE_CLASS_TOKENS) ** 0.5)
    if grid * grid != entries - TABLE_CLASS_TOKENS or embed_dim % HEAD_DIM:
        raise ValueError(f"has a position table of {entries} entries and width {embed_dim}: no square grid of patches")
    return ViTArch(
        name or "vit",
        embed_dim,
        depth,
        embed_dim // HEAD_DIM,
        patch_px,
        grid * patch_px,
        shapes["register_tokens"][1] if "register_tokens" in shapes else 0,
        1e-5 if "blocks.0.ls1.gamma" in shapes else None,
    )


def mismatches(found: ViTArch, expected: ViTArch) -> list[str]:
    """Differences of a checkpoint's shape, such as ``"384 wide instead of 192"``; the table's size may differ."""
    texts = {
        "embed_dim": "{} wide instead of {}",
        "depth": "{} blocks instead of {}",
        "patch_px": "patches of {} px instead of {}",
        "num_registers": "{} registers instead of {}",
    }
    lines = [
        text.format(getattr(found, key), getattr(expected, key))
        for key, text in texts.items()
        if getattr(found, key) != getattr(expected, key)
    ]
    if (found.layer_scale_init is None) != (expected.layer_scale_init is None):
        lines.append(f"{'no ' if found.layer_scale_init is None else ''}LayerScale")
    return lines


_LOOKS_LIKE_ARCH = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as named on the command line: ``file::path[:architecture]`` or ``timm::name``."""

    kind: Literal["file", "timm"]  # ``file`` (a checkpoint on disk) or ``timm`` (a pretrained model of timm)
    location: str  # the path, or timm's name
    arch: str | None = None  # architecture that the file must have; None: as the file says

    def __str__(self) -> str:
        return f"{self.kind}::{self.location}" + (f":{self.arch}" if self.arch else "")


def parse_spec(text: str) -> BackboneSpec:
    """Parse ``file::work_dirs/dino_face/backbone.pt:dinov2_vits14`` or the like; the path may hold colons and spaces.

    Raises:
        UserError: The text has none of the forms, or names an unknown architecture.
    """
    kind, separator, rest = text.partition("::")
    if not separator or kind not in ("file", "timm") or not rest:
        raise UserError(f"backbone '{text}': expected file::PATH, file::PATH:ARCHITECTURE or timm::NAME")
    if kind == "timm":
        return BackboneSpec("timm", rest)
    head, colon, tail = rest.rpartition(":")
    if colon and tail in ARCHS:
        return BackboneSpec("file", head, tail)
    if colon and head and _LOOKS_LIKE_ARCH.fullmatch(tail) and not Path(rest).exists():
        near = difflib.get_close_matches(tail, ARCHS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(ARCHS)}"
        raise UserError(f"backbone '{text}': architecture '{tail}' is unknown; {hint}")
    return BackboneSpec("file", rest)
