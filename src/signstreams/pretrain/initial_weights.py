"""First weights of the backbone from a trained one: ``file::path[:architecture]`` or ``timm::name``."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstreams.backbones.archs import ARCHS, ViTArch, infer, mismatches, parse_spec
from signstreams.backbones.layouts import to_hub_layout
from signstreams.backbones.vit import VisionTransformer, resize_patch_embed, resize_table
from signstreams.backbones.weights import load_timm, read_file, rotary_of_timm
from signstreams.errors import UserError
from signstreams.pretrain.settings import PretrainConfig

log = logging.getLogger(__name__)

MAX_NAMES_SHOWN = 4
_LEFT_OUT = ("head.", "head_dist.", "fc_norm.", "dist_token", "pre_logits.")  # classifiers; no part of the features


@dataclass(frozen=True)
class InitialWeights:
    """Weights that fit the backbone of the run."""

    state: dict[str, Tensor]  # state dict of the backbone, without the tensors that start from scratch
    digest: str  # short digest of the tensors as they were given
    report: str  # what was adapted, in one line


def load_initial_weights(config: PretrainConfig, arch: ViTArch) -> InitialWeights | None:
    """The weights that ``init.weights`` names, adapted to the run's architecture; None where it is not set.

    Raises:
        UserError: Absent, broken, or of a shape that cannot be adapted.
    """
    if config.init.weights is None:
        return None
    weights, metadata = read_adapted(config.init.weights, arch, download=config.init.download)
    log.info("%s", weights.report)
    _check_statistics(str(parse_spec(config.init.weights)), metadata, config)
    return weights


def read_adapted(text: str, arch: ViTArch, *, download: bool = False) -> tuple[InitialWeights, dict[str, Any]]:
    """The weights that a spec names, adapted to ``arch``, and their metadata; ``download`` is for ``timm::``.

    Raises:
        UserError: Absent, broken, or of a shape that cannot be adapted.
    """
    spec = parse_spec(text)
    if spec.kind == "file":
        file = read_file(Path(spec.location), spec.arch, spec.num_heads)
        state, metadata, found = file.state, file.about.model_dump(), file.arch
    else:
        state, metadata, found = _from_timm(spec.location, download=download)
    return adapt(str(spec), state, found, arch), metadata


def adapt(name: str, state: dict[str, Tensor], found: ViTArch, arch: ViTArch) -> InitialWeights:
    """Adapt a state dict in hub layout to ``arch``: position table, patch embedding, new parts.

    Raises:
        UserError: One line with everything that cannot be adapted, and what to set.
    """
    digest = _digest(state)
    state = {key: tensor.float() for key, tensor in state.items() if not key.startswith(_LEFT_OUT)}
    fatal = [text for text in mismatches(found, arch) if "patches" not in text and "registers" not in text]
    fatal = [text for text in fatal if text != "no LayerScale"]
    if found.num_registers not in (0, arch.num_registers):
        fatal.append(f"{found.num_registers} registers instead of {arch.num_registers}")
    if fatal:
        raise UserError(
            f"init.weights {name}: holds {found.described()}, the run trains {arch.described()}: {', '.join(fatal)};"
            f" {_next_step(found, arch)}"
        )
    done = []
    if found.patch_px != arch.patch_px:
        key = "patch_embed.proj.weight"
        state[key] = resize_patch_embed(state[key], arch.patch_px)
        done.append(f"patch embedding from {found.patch_px} to {arch.patch_px} px")
    if not arch.is_rotary and found.grid != arch.grid:
        state["pos_embed"] = resize_table(state["pos_embed"], arch.grid, arch.grid)
        done.append(f"position table from {found.grid}x{found.grid} to {arch.grid}x{arch.grid}")
    wanted = VisionTransformer(arch).state_dict()
    if found.layer_scale_init is None and arch.layer_scale_init is not None:
        # 1, not the small first value, so that the branches keep what they learned
        state |= {key: torch.ones_like(value) for key, value in wanted.items() if key.endswith(".gamma")}
        done.append("LayerScale set to 1")
    new = sorted({"mask_token", "register_tokens"} & (set(wanted) - set(state)))
    missing = sorted(set(wanted) - set(state) - set(new))
    extra = sorted(set(state) - set(wanted))
    wrong = sorted(key for key in set(wanted) & set(state) if wanted[key].shape != state[key].shape)
    found_keys = (("lacks", missing), ("has", extra), ("has other shapes in", wrong))
    if problems := [f"{what} {_named(keys)}" for what, keys in found_keys if keys]:
        raise UserError(
            f"init.weights {name}: {'; '.join(problems)}; expected a plain vision transformer in the layout of DINOv2"
            " or timm; give other weights"
        )
    done += [f"{' and '.join(new)} new"] if new else []
    report = f"init.weights {name}: {found.described()}, {len(state)} tensors taken" + "".join(f", {x}" for x in done)
    return InitialWeights(state, digest, report)


def _next_step(found: ViTArch, arch: ViTArch) -> str:
    is_same_kind = found.is_rotary == arch.is_rotary and found.gated_dim == arch.gated_dim
    has_scale_alone = found.layer_scale_init is not None and arch.layer_scale_init is None
    if is_same_kind and has_scale_alone and found.embed_dim == arch.embed_dim:
        return "add --layer-scale-init 1e-5"
    flags = {"depth": "--depth", "num_heads": "--model-num-heads", "num_registers": "--model-num-registers"}
    changed = [
        f"{flag} {getattr(found, key)}" for key, flag in flags.items() if getattr(found, key) != getattr(arch, key)
    ]
    same_width = found.embed_dim == arch.embed_dim and not arch.has_fixed_shape
    if is_same_kind and same_width and changed:
        return f"add {' '.join(changed)}"
    named = next((name for name, other in ARCHS.items() if not mismatches(found, other)), None)
    return f"give --arch {named}" if named is not None else "give an --arch of its shape"


def _named(keys: list[str]) -> str:
    more = len(keys) - MAX_NAMES_SHOWN
    return ", ".join(keys[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _digest(state: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        total.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def _check_statistics(name: str, metadata: dict[str, Any], config: PretrainConfig) -> None:
    """Warn if the weights were trained on images normalised otherwise; they still learn, more slowly at first."""
    if metadata.get("mean") is None or metadata.get("std") is None:
        log.warning("init.weights %s: do not say with which mean and std they were trained; ours are used", name)
    for key in ("mean", "std"):
        theirs, ours = metadata.get(key), getattr(config.augmentation, key)
        if theirs is not None and any(abs(a - b) > 0.005 for a, b in zip(theirs, ours, strict=True)):
            shown = ", ".join(f"{value:g}" for value in theirs)
            log.warning("init.weights %s: were trained with %s [%s]; set augmentation.%s to it", name, key, shown, key)


def _from_timm(name: str, *, download: bool) -> tuple[dict[str, Tensor], dict[str, Any], ViTArch]:
    model = load_timm(name, download=download, setting="init.weights", flag="--init-download")
    state = to_hub_layout(model.state_dict())
    try:
        blocks = getattr(model, "blocks", None)
        num_heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None) if blocks else None
        found = infer({key: tuple(value.shape) for key, value in state.items()}, "", num_heads)
        if found.is_rotary and rotary_of_timm(model) is None:
            raise ValueError("has rotary positions of another kind than DINOv3's")
    except ValueError as error:
        raise UserError(f"init.weights 'timm::{name}': {error}; give a plain vision transformer") from None
    return state, {key: model.pretrained_cfg[key] for key in ("mean", "std")}, found
