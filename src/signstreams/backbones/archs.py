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
OTHER_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""Widths whose networks (ViT-SO400M, -H, -g, -G) have this number of heads, which are wider."""
OTHER_ROTARY_HEADS = {4096: 32}
"""The same of networks with rotary positions (DINOv3's ViT-7B)."""
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
    is_rotary: bool = False  # positions turn queries and keys (DINOv3), and there is no table of them
    gated_dim: int | None = None  # hidden width of gated MLPs (SwiGLU); None: plain ones, four times as wide inside

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

    @property
    def has_fixed_shape(self) -> bool:
        """Whether its name promises the shape of released weights."""
        return self.name.startswith(("dinov2_", "dinov3_"))

    @property
    def norm_eps(self) -> float:
        """Added to variances in its norms: DINOv3's differ."""
        return 1e-5 if self.is_rotary else 1e-6

    def described(self) -> str:
        """``vit_tiny (192 wide, 12 blocks, patch 16)``."""
        more = f", {self.num_registers} registers" if self.num_registers else ""
        more += f", {self.num_heads} heads" if self.num_heads * HEAD_DIM != self.embed_dim else ""
        more += ", rotary positions" if self.is_rotary else ""
        more += f", gated MLPs {self.gated_dim} wide" if self.gated_dim is not None else ""
        return f"{self.name} ({self.embed_dim} wide, {self.depth} blocks, patch {self.patch_px}{more})"


def _dinov2(name: str, embed_dim: int, num_registers: int) -> ViTArch:
    # DINOv2's released tables cover 518 px = 37 x 37 patches; with the class token 1370 entries
    return ViTArch(name, embed_dim, 12, embed_dim // HEAD_DIM, 14, 518, num_registers, 1e-5)


def _dinov3(name: str, embed_dim: int, gated_dim: int | None = None) -> ViTArch:
    # DINOv3's global views in pretraining had 256 px; there is no table that this could be the side of
    return ViTArch(name, embed_dim, 12, embed_dim // HEAD_DIM, 16, 256, 4, 1e-5, is_rotary=True, gated_dim=gated_dim)


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
        _dinov3("dinov3_vits16", 384),
        _dinov3("dinov3_vits16plus", 384, 1536),
        _dinov3("dinov3_vitb16", 768),
    )
}


Layers = Literal["last", "weighted", "last_and_patches"]
"""Features of a backbone: the last class token; the class tokens of all blocks, to be weighted; the last class token
and beside it the mean of the patch tokens."""


def resolve(name: str, *, image_px: int, **given: float | None) -> ViTArch:
    """The architecture of this name with the user's changes; its position table, if any, covers ``image_px``.

    DINOv2's keep their own, of 518 px. The changes are patch_px, depth, num_heads, num_registers and layer_scale_init;
    None changes nothing.

    Raises:
        ValueError: Unknown name, a width that does not divide into the heads, or a change of DINOv2's or
            DINOv3's own architectures, whose names promise their shapes.
    """
    if name not in ARCHS:
        raise ValueError(f"architecture '{name}' is unknown, expected one of {', '.join(ARCHS)}")
    arch = ARCHS[name]
    changes: dict[str, Any] = {
        key: value for key, value in given.items() if value is not None and value != getattr(arch, key)
    }
    if arch.embed_dim % changes.get("num_heads", 1):
        raise ValueError(f"{name} is {arch.embed_dim} wide, which does not divide into {changes['num_heads']} heads")
    if arch.has_fixed_shape:
        shape_changes = sorted(set(changes) - {"layer_scale_init"})
        if shape_changes:
            raise ValueError(f"{name} has a fixed shape: leave out {', '.join(shape_changes)}, or take a vit_* one")
        return dataclasses.replace(arch, **changes)
    return dataclasses.replace(arch, table_px=image_px, **changes)


def infer(shapes: Mapping[str, tuple[int, ...]], name: str = "", num_heads: int | None = None) -> ViTArch:
    """The architecture that tensors of these names and shapes belong to, in hub layout; without a name it is ``vit``.

    The number of heads shows in no shape; None: each is 64 wide.

    Raises:
        ValueError: The tensors are not those of a vision transformer in hub layout.
    """
    for mark, what in _OTHER_NETWORKS.items():
        if any(mark in key for key in shapes):
            raise ValueError(f"holds {what}, which signstreams does not have")
    is_rotary = is_rotary_network(shapes)
    try:
        embed_dim, channels, patch_px, width_px = shapes["patch_embed.proj.weight"]
        entries = 0 if is_rotary else shapes["pos_embed"][1]
    except (KeyError, ValueError, IndexError):
        raise ValueError("holds no vision transformer in DINOv2's layout (patch_embed.proj, pos_embed)") from None
    if any(key.startswith("blocks.0.0.") for key in shapes):
        raise ValueError("holds blocks in chunks (blocks.0.0.*); export it unchunked")
    if patch_px != width_px or channels != 3 or patch_px < 1:
        raise ValueError(f"has patches of {width_px}x{patch_px} px with {channels} channels, expected square RGB ones")
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    grid = round((entries - TABLE_CLASS_TOKENS) ** 0.5) if entries > TABLE_CLASS_TOKENS else 0
    is_divisible = embed_dim > 0 and embed_dim % (num_heads or HEAD_DIM) == 0
    is_square = is_rotary or (grid > 0 and grid * grid == entries - TABLE_CLASS_TOKENS)
    if not is_square or not (is_divisible or num_heads):
        positions = "rotary positions" if is_rotary else f"a position table of {entries} entries"
        raise ValueError(f"has {positions} and width {embed_dim}: no square grid of patches")
    if not depth:
        raise ValueError("holds no blocks (blocks.0.*)")
    if not is_divisible:
        raise ValueError(f"is {embed_dim} wide, which does not divide into {num_heads} heads")
    heads = num_heads or embed_dim // HEAD_DIM
    if is_rotary and embed_dim // heads % 4:
        raise ValueError(f"has rotary positions and heads {embed_dim // heads} wide, expected a multiple of 4")
    gates = shapes.get("blocks.0.mlp.fc1_g.weight", ())
    return ViTArch(
        name or "vit",
        embed_dim,
        depth,
        heads,
        patch_px,
        patch_px * (ARCHS["dinov3_vits16"].grid if is_rotary else grid),
        shapes["register_tokens"][1] if len(shapes.get("register_tokens", ())) == 3 else 0,
        1e-5 if "blocks.0.ls1.gamma" in shapes else None,
        is_rotary,
        gates[0] if gates else None,
    )


def is_rotary_network(shapes: Mapping[str, Any]) -> bool:
    """Whether tensors in hub layout are DINOv3's, whose positions leave none: no table, but registers and LayerScale.

    Rotary networks of others in timm (ViT of Naver AI, EVA, PE) turn otherwise, and have a table or no registers.
    """
    return "pos_embed" not in shapes and {"cls_token", "register_tokens", "blocks.0.ls1.gamma"} <= set(shapes)


_OTHER_NETWORKS = {
    "rope_embed.": "a network with rotary positions beside a position table",
    "rope.freqs": "a network with learned rotary positions (ViT of Naver AI)",
    "relative_position_bias_table": "a network with relative positions (BEiT, Swin)",
    ".mlp.w12.": "a network with SwiGLU layers (DINOv2 ViT-g)",
    ".mlp.weights_in.": "a network with SwiGLU layers (DINOv2 ViT-g)",
    ".mlp.gate_proj.": "a network with SwiGLU layers (DINOv2 ViT-g)",
    ".attn.q_norm.": "a network with normalised queries",
    ".attn.norm.": "a network with normalised attention (EVA)",
    "_flat_param": "a part of weights that FSDP sharded over processes",
    "flat_param_": "a part of weights that FSDP sharded over processes",
}
"""Part of a tensor's name: the network that it is the mark of."""


def mismatches(found: ViTArch, expected: ViTArch) -> list[str]:
    """Differences of a checkpoint's shape, such as ``"384 wide instead of 192"``; the table's size may differ."""
    texts = {
        "embed_dim": "{} wide instead of {}",
        "depth": "{} blocks instead of {}",
        "num_heads": "{} heads instead of {}",
        "patch_px": "patches of {} px instead of {}",
        "num_registers": "{} registers instead of {}",
    }
    positions = {True: "rotary positions", False: "a position table"}
    mlps = {True: "plain MLPs", False: "gated MLPs"}
    lines = [
        text.format(getattr(found, key), getattr(expected, key))
        for key, text in texts.items()
        if getattr(found, key) != getattr(expected, key)
        and (key != "num_heads" or found.embed_dim == expected.embed_dim)
    ]
    if found.is_rotary != expected.is_rotary:
        lines.append(f"{positions[found.is_rotary]} instead of {positions[expected.is_rotary]}")
    if found.gated_dim != expected.gated_dim:
        widths = [f" {arch.gated_dim} wide" if arch.gated_dim else "" for arch in (found, expected)]
        kinds = [mlps[arch.gated_dim is None] for arch in (found, expected)]
        lines.append(f"{kinds[0]}{widths[0]} instead of {kinds[1]}{widths[1]}")
    if (found.layer_scale_init is None) != (expected.layer_scale_init is None):
        lines.append(f"{'no ' if found.layer_scale_init is None else ''}LayerScale")
    return lines


MAX_HEADS = 256
_LOOKS_LIKE_ARCH = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as named on the command line: ``file::path[:architecture][:num_heads=N]`` or ``timm::name``."""

    kind: Literal["file", "timm"]  # ``file`` (a checkpoint on disk) or ``timm`` (a pretrained model of timm)
    location: str  # the path, or timm's name
    arch: str | None = None  # architecture that the file must have; None: as the file says
    num_heads: int | None = None  # attention heads of a file that does not say; None: as it says, else 64 wide

    def __str__(self) -> str:
        heads = "" if self.num_heads is None else f":num_heads={self.num_heads}"
        return f"{self.kind}::{self.location}" + (f":{self.arch}" if self.arch else "") + heads


def parse_spec(text: str) -> BackboneSpec:
    """Parse ``file::work_dirs/dino_face/backbone.pt:dinov2_vits14`` or the like; the path may hold colons and spaces.

    ``:num_heads=12`` at the end is for weights whose heads are not 64 wide and that do not say so (MoCo v3's ViT-S).

    Raises:
        UserError: The text has none of the forms, or names an unknown architecture.
    """
    kind, separator, rest = text.partition("::")
    if not separator or kind not in ("file", "timm") or not rest:
        raise UserError(f"backbone '{text}': expected file::PATH, file::PATH:ARCHITECTURE or timm::NAME")
    if kind == "timm":
        return BackboneSpec("timm", rest)
    num_heads = None
    head, _, tail = rest.rpartition(":")
    if head and tail.startswith("num_heads=") and not Path(rest).exists():
        number = tail.removeprefix("num_heads=")
        if not number.isdecimal() or not 0 < int(number) <= MAX_HEADS:
            raise UserError(f"backbone '{text}': num_heads is '{number}', expected a number from 1 to {MAX_HEADS}")
        rest, num_heads = head, int(number)
    head, colon, tail = rest.rpartition(":")
    if colon and tail in ARCHS:
        return BackboneSpec("file", head, tail, num_heads)
    if colon and head and _LOOKS_LIKE_ARCH.fullmatch(tail) and not Path(rest).exists():
        near = difflib.get_close_matches(tail, ARCHS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(ARCHS)}"
        raise UserError(f"backbone '{text}': architecture '{tail}' is unknown; {hint}")
    return BackboneSpec("file", rest, None, num_heads)
