"""Layouts of checkpoints: where a vision transformer is in one, and its tensors under the names of DINOv2's hub models.

Read are those of this project, timm, DINO, iBOT, DINOv2 (hub and training), MAE, MoCo v3, lightly-train, and Hugging
Face's ViT, Dinov2 and DINOv3ViT, and DINOv3 (timm and its own), under any wrappers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from signstreams.backbones.archs import is_rotary_network
from signstreams.engine.checkpoint import Placeholder

MAX_NESTING = 4  # dicts in dicts, from the checkpoint to the tensors
_PATCHES = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
)
"""Names that every vision transformer has once; what stands before is its prefix."""
_WRAPPERS = re.compile(r"(^|\.)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_NOT_FEATURES = ("head.", "dino_head.", "ibot_head.", "pooler.", "decoder")
_LONG = {"q": "query", "k": "key", "v": "value"}
_HUGGING_FACE = (
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^(?:encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.(?:attention\.)?(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.(q|k|v)_proj\.", lambda found: f".attn.{_LONG[found[1]]}."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
"""Names of Hugging Face's networks, in files and in modules since transformers 5, and what they are here."""
_HUGGING_FACE_GATED = (
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
)
"""Those of DINOv3ViT's gated MLPs."""
_DINOV3 = (
    (r"^(reg_token|storage_tokens)$", "register_tokens"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"\.attn\.([qv])_bias$", lambda found: f".attn.{_LONG[found[1]]}.bias"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
"""Names of DINOv3's networks, in timm and in its own files, and what they are here."""
_DINOV3_LEFT_OUT = re.compile(r"^(?:rope_embed|local_cls_norm|projectors)\.|\.attn\.qkv\.bias_mask$")
"""Periods that are computed, parts for training alone, and the mark of the keys' bias as not there."""


@dataclass(frozen=True)
class FoundNetwork:
    """A vision transformer in a checkpoint."""

    state: dict[str, Tensor]  # state dict in hub layout
    prefix: str  # of its tensors in the checkpoint, without wrappers, such as ``teacher.backbone.``
    others: tuple[str, ...]  # prefixes of others that the checkpoint holds
    is_hugging_face: bool  # whether it had the names of Hugging Face


def find_network(content: Any) -> FoundNetwork:
    """The vision transformer in what a checkpoint holds: of several the teacher, or MoCo's base encoder.

    Raises:
        ValueError: There is none, or several of equal rank; as the end of a sentence.
    """
    if isinstance(content, Placeholder):
        raise ValueError(f"holds a whole pickled object ({type(content).__name__}), expected its state dict; save that")
    tensors: dict[str, Tensor] = {}
    for key in ("model", "state_dict", "teacher"):
        inner = content.get(key) if isinstance(content, dict) else None
        if isinstance(inner, dict) and _prefixes(found := dict(_tensors(inner))):
            tensors = found
            break
    else:
        tensors = dict(_tensors(content))
    if not tensors:
        raise ValueError("holds no weights, expected {'model': state dict, 'metadata': ...}")
    prefixes = _prefixes(tensors)
    prefix = _chosen(prefixes, tensors)
    others = tuple(other for other in prefixes if other != prefix)
    inside = tuple(other for other in others if other.startswith(prefix))
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not name.startswith(inside)
    }
    is_hugging_face = "embeddings.cls_token" in state
    if is_hugging_face:
        is_gated = any(".mlp.gate_proj." in name for name in state) and "embeddings.position_embeddings" not in state
        state = _renamed(state, (*(_HUGGING_FACE_GATED if is_gated else ()), *_HUGGING_FACE))
    state = to_hub_layout(state)
    return FoundNetwork(state, prefix, others, is_hugging_face)


def to_hub_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tables of timm, iBOT, MAE and DINOv2's training as in DINOv2's hub models, without classifiers."""
    state = {
        # chunked blocks are numbered on from chunk to chunk
        re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", name): tensor
        for name, tensor in state.items()
        if not name.startswith(_NOT_FEATURES)
    }
    if "pos_embed" not in state:
        state = _of_dinov3(state)
    for theirs, ours in (("reg_token", "register_tokens"), ("masked_embed", "mask_token")):
        if theirs in state:
            state.setdefault(ours, state.pop(theirs))
    table, patches = state.get("pos_embed"), state.get("patch_embed.proj.weight")
    if table is not None and table.ndim == 3 and round(table.shape[1] ** 0.5) ** 2 == table.shape[1] > 1:
        # timm's without an entry for the class token
        state["pos_embed"] = torch.cat((torch.zeros_like(table[:, :1]), table), dim=1)  # (1, 1 + P, D)
    if patches is not None and "mask_token" in state:
        token = state.pop("mask_token")
        if token.numel() == len(patches):  # that of MAE's decoder is narrower
            state["mask_token"] = token.reshape(1, -1)
    return _with_biases(state)


def _of_dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's tensors; its keys have no bias, whatever a file holds in its place."""
    state = {name: tensor for name, tensor in state.items() if not _DINOV3_LEFT_OUT.search(name)}
    state = _renamed(state, _DINOV3)
    if is_rotary_network(state):
        for name in [name for name in state if name.endswith(".attn.qkv.bias")]:
            of_q, of_k, of_v = state[name].chunk(3)
            state[name] = torch.cat((of_q, torch.zeros_like(of_k), of_v))  # (3 D,)
    return state


def to_dinov3_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back to the names of timm's DINOv3 networks with biases (``vit_small_patch16_dinov3_qkvb``).

    The mask token is left out: timm would take the file for EVA's masked pretraining, whose last norm it renames.
    """
    found = {}
    for name, tensor in state.items():
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name.replace("register_tokens", "reg_token"))
        if name.endswith(".attn.qkv.bias"):
            of_q, _, of_v = tensor.chunk(3)
            found[name.replace("qkv.bias", "q_bias")] = of_q
            found[name.replace("qkv.bias", "v_bias")] = of_v
        elif name != "mask_token":
            found[name] = tensor
    return found


def _with_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zero biases of queries, keys and values where a network was trained without them."""
    weights = [name for name in state if name.endswith(".attn.qkv.weight")]
    if any(name.endswith(".attn.qkv.bias") for name in state):
        return state
    return state | {name.removesuffix("weight") + "bias": state[name].new_zeros(len(state[name])) for name in weights}


def _renamed(state: dict[str, Tensor], rules: tuple[tuple[str, Any], ...]) -> dict[str, Tensor]:
    """The tensors under the names that the rules give; queries, keys and values become one matrix."""
    parts: dict[str, dict[str, Tensor]] = {}
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if found := re.fullmatch(r"(.*\.attn\.)(query|key|value)\.(weight|bias)", name):
            parts.setdefault(f"{found[1]}qkv.{found[3]}", {})[found[2]] = tensor
        else:
            renamed[name] = tensor
    for name, part in parts.items():
        if set(part) == {"query", "value"} and name.endswith("bias"):  # keys have none
            part["key"] = torch.zeros_like(part["query"])
        if len(part) == 3:
            renamed[name] = torch.cat([part[key] for key in _LONG.values()])  # (3 D, D), (3 D,)
    return renamed


def _tensors(
    content: Any, prefix: str = "", depth: int = 0, seen: set[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts with dotted names, without those of wrappers."""
    seen = set() if seen is None else seen
    if not isinstance(content, dict) or id(content) in seen:
        return
    seen.add(id(content))
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield _WRAPPERS.sub("", f"{prefix}{key}").removeprefix("."), value
        elif isinstance(key, str) and depth < MAX_NESTING:
            yield from _tensors(value, f"{prefix}{key}.", depth + 1, seen)


def _prefixes(tensors: dict[str, Tensor]) -> list[str]:
    return sorted(
        name.removesuffix(patches)
        for name in tensors
        for patches in _PATCHES
        if name == patches or name.endswith(f".{patches}")
    )


def _rank(prefix: str) -> int:
    if "teacher" in prefix:
        return 0
    if "base_encoder" in prefix:  # which MoCo evaluates, not the momentum encoder
        return 1
    return 3 if "student" in prefix or "momentum" in prefix else 2


def _chosen(prefixes: list[str], tensors: dict[str, Tensor]) -> str:
    if not prefixes:
        return ""
    best = [prefix for prefix in prefixes if _rank(prefix) == min(map(_rank, prefixes))]
    if len(best) > 1:
        named = ", ".join(f"{prefix}*" for prefix in best[:4])
        raise ValueError(f"holds several vision transformers ({named}); save the state dict of one of them")
    return best[0]
