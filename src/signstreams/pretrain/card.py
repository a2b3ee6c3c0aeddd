"""``README.md`` beside the weights: what they are, what they were trained on, how they are loaded."""

from __future__ import annotations

import dataclasses
import json
from html import escape
from typing import Any

from signstreams.backbones.archs import ViTArch

TIMM_NAMES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "dinov2_vits14": "vit_small_patch14_dinov2",
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2",
    "dinov2_vitb14": "vit_base_patch14_dinov2",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2",
}
SIDES = {"hand_l": "left hand: ", "hand_r": "right hand: "}
FIGURES = (
    ("train/loss_dino", "loss of the class token"),
    ("train/loss_patch", "loss of the masked patches"),
    ("train/kl", "KL of teacher and student"),
    ("teacher/entropy_sample", "entropy of a crop's target, nats"),
    ("teacher/entropy_batch", "entropy of the mean target, nats"),
    ("teacher/prototypes_used_ratio", "share of prototypes used"),
    ("probe/assignment_information", "held-out crops: nats that the prototype tells about the crop"),
    ("probe/rankme", "held-out crops: RankMe"),
    ("probe/feature_std", "held-out crops: deviation of the features, 1 spread out"),
    ("probe/knn", "held-out crops: k-NN on labels"),
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the card tells beside the metadata of the weights; no times and no paths.

    Attributes:
        weights, safetensors: Names of the two files.
        recipe: Setting to value, in the order to show.
        num_videos: Of the training crops.
        num_probe_crops: Held out.
        name, tags, notes: Of the experiment, as the user gave them.
    """

    weights: str
    safetensors: str
    recipe: dict[str, Any]
    num_videos: int
    num_probe_crops: int
    name: str | None
    tags: list[str]
    notes: str | None


def model_card(arch: ViTArch, metadata: dict[str, Any], records: list[dict[str, Any]], facts: Facts) -> str:
    """Markdown of the card.

    Args:
        metadata: Of the exported weights.
        records: Lines of the run's metrics.
    """
    step = metadata["step"]
    data = {
        "crops": f"{metadata['train_crops']:,} of {facts.num_videos:,} videos; {facts.num_probe_crops:,} held out",
        "digest of the data": f"`{metadata['data_digest']}`",
        "side": SIDES.get(metadata["stream"], "") + metadata["chirality"],
    }
    use = {
        "image side": f"{metadata['image_px']} px",
        "mean of R, G, B": _numbers(metadata["mean"]),
        "deviation of R, G, B": _numbers(metadata["std"]),
        "features": f"{arch.embed_dim} (class token), and one a patch of {arch.patch_px} px",
    }
    parts = [
        f"# {_shown(facts.name or 'Backbone')}: {metadata['stream']}, {arch.described()}",
        f"Pretrained without labels by {metadata['algorithm']} with signstreams, to step {step:,}."
        + (f" Tags: {_shown(', '.join(facts.tags))}." if facts.tags else ""),
        *([escape(facts.notes, quote=False)] if facts.notes else []),
        "## Data\n\n" + _table(data),
        "## Use\n\nFeed RGB images of this side, scaled to 0..1, less the mean, over the deviation.\n\n" + _table(use),
        _loading(arch, metadata["image_px"], facts),
        "## Recipe\n\n" + _table({f"`{key}`": value for key, value in facts.recipe.items()}),
        f"## Figures\n\nLast values logged by step {step:,}; all of them are in the run's metrics.\n\n"
        + _table(_figures(records, step)),
    ]
    return "\n\n".join(parts) + "\n"


def _loading(arch: ViTArch, image_px: int, facts: Facts) -> str:
    ours = f"""\
from signstreams.backbones.load import load_dinov2_backbone

model = load_dinov2_backbone({json.dumps(f"file::{facts.weights}", ensure_ascii=False)})  # or the .safetensors file"""
    changes: dict[str, float] = {"img_size": image_px, "num_classes": 0}
    if not arch.is_dinov2:
        changes |= {"patch_size": arch.patch_px, "depth": arch.depth}
        if arch.layer_scale_init is not None:
            changes["init_values"] = arch.layer_scale_init
        if arch.num_registers:
            changes |= {"reg_tokens": arch.num_registers, "no_embed_class": True}
    words = ", ".join(f"{key}={value!r}" for key, value in changes.items())
    name = TIMM_NAMES.get(arch.name, arch.name)
    timm = f"""\
import timm

file = {{"file": {json.dumps(facts.safetensors, ensure_ascii=False)}}}
model = timm.create_model(
    "{name}", pretrained=True, pretrained_cfg_overlay=file, {words}
)"""
    if arch.is_dinov2:
        hub = f"""\
import torch

model = torch.hub.load("facebookresearch/dinov2", "{arch.name}", pretrained=False)
model.load_state_dict(torch.load({json.dumps(facts.weights, ensure_ascii=False)}, weights_only=True)["model"])"""
        note = "Below 518 px the hub's models without registers interpolate the position table a little differently."
        note = "" if arch.num_registers else f"\n\n{note}"
    else:
        scale = f" init_values={arch.layer_scale_init},\n" if arch.layer_scale_init is not None else ""
        hub = f"""\
import torch
from dinov2.models.vision_transformer import DinoVisionTransformer  # torch.hub's code of facebookresearch/dinov2

model = DinoVisionTransformer(
    img_size={image_px}, patch_size={arch.patch_px}, embed_dim={arch.embed_dim}, depth={arch.depth},
    num_heads={arch.num_heads}, num_register_tokens={arch.num_registers}, block_chunks=0,
    {scale.strip()}{"" if not scale else " "}interpolate_antialias=True, interpolate_offset=0.0,
)
state = torch.load({json.dumps(facts.weights, ensure_ascii=False)}, weights_only=True)["model"]
model.load_state_dict(state, strict=False)  # only mask_token may be missing, and only masking needs it"""
        note = ""
    blocks = (("signstreams", ours), ("timm", timm), ("torch.hub's DINOv2", hub))
    shown = "\n\n".join(f"{name}:\n\n```python\n{code}\n```" for name, code in blocks)
    return f"## Loading\n\nAll three give the same class token.\n\n{shown}{note}"


def _figures(records: list[dict[str, Any]], step: int) -> dict[str, str]:
    found = {}
    for key, meaning in FIGURES:
        values = [record[key] for record in records if record.get(key) is not None and record["step"] <= step]
        if values:
            found[f"`{key}`"] = f"{values[-1]:.4g} ({meaning})"
    return found


def _table(rows: dict[str, Any]) -> str:
    body = "\n".join(f"| {key} | {_shown(value)} |" for key, value in rows.items())
    return f"| What | Value |\n| --- | --- |\n{body}"


def _shown(value: Any) -> str:
    """On one line, and neither markup nor the end of a table's cell."""
    return escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
