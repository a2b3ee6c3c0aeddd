"""Presets: the settings of published models, by name.

Imports nothing of the other settings, which take a preset's values where the user sets none.

The main differences from the authors' code are in docs/integration.md. The smaller ones of MSKA: rates change per step,
not per epoch (the last of which has rate 0 there); label smoothing is spread over all words, not over all others but
padding (the same up to one in 250,000); a clip has any number of frames, not a multiple of 4, since steps are masked;
CTC's beam search keeps repeats with a blank between them, which theirs merges afterwards (under the clean-up of glosses
both are the same). Of GFSLT-VLP: clips and sentences are means, not a class token before the steps and the language
token, as the weights must fit the translation; long clips are read in their middle 300 frames in evaluation, which
draws nothing, where theirs draws them; one optimiser (SGD at .01) for all weights, where their first stage has AdamW at
1e-3 for the decoder, every fifth step; tokens are masked, on val the largest share, where theirs masks words, and none
on val.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from signstreams.formats.layout import FIRST_STAGES

Preset = Literal["signmusketeers", "mska_paper_mbart", "mska_s2g", "mska_g2t", "mska_slt", "gfslt_vlp", "gfslt"]

if TYPE_CHECKING:
    Stage = str
    FirstStage = str
else:
    Stage = Literal[("slt", *FIRST_STAGES)]
    """A setting that names what is trained: slt joins what the first stages learned."""
    FirstStage = Literal[FIRST_STAGES]

_Tree = dict[str, dict[str, Any]]


def _joined(*trees: _Tree) -> _Tree:
    """Sections of all trees; of a key in several, the last value."""
    merged: _Tree = {}
    for tree in trees:
        for section, keys in tree.items():
            merged[section] = merged.get(section, {}) | keys
    return merged


# What both stages of MSKA share (arXiv 2405.05672; sutwangyan/MSKA e7d5610). tests/integrate/test_presets.py holds each
# value with the file and line it is from. Sizes of MSKA that are the paper's by default are not repeated here.
_MSKA: _Tree = {
    "data": {"batch_size": 8, "frame_stride": 1, "max_frames": 400, "long_clips": "sample"},
    "augmentation": {
        "scale": 0.0,
        "translate": 0.0,
        "rotate_deg": 15.0,
        "rotate_prob": 0.5,
        "time_scale": [0.5, 1.5],
        "frame_sampling": "random",
    },
    "model": {"use_pose": False},
    "mska": {"distillation": "batch", "distillation_warmup_ratio": 0.0, "root_relative_hands": False},
    "optim": {
        "optimizer": "adam",
        "betas": [0.9, 0.998],
        "weight_decay": 1e-3,
        "warmup_ratio": 0.0,
        "final_lr_ratio": 0.0,
        "clip_grad_norm": None,
    },
}
# The fuse head's features through two layers into the whole mBART.
_MBART: _Tree = {
    "model": {"use_pose": False},
    "mska": {"gloss_fusion": "alone"},
    "decoder": {"model": "facebook/mbart-large-cc25", "use_encoder": True, "dropout": 0.3},
    "optim": {"lr": 1e-5, "lr_mapper": 1e-3, "label_smoothing": 0.2},
}

# What both stages of GFSLT-VLP share (arXiv 2307.14768; zhoubenjia/GFSLT-VLP 91ba953): three layers that read the clip,
# and all layers of mBART's decoder (their --decoder-type LLMD). Stream backbones and the pose stand for their ResNet-18
# on whole frames; they use no keypoints.
_GFSLT: _Tree = {
    "data": {"frame_stride": 1, "max_frames": 300, "long_clips": "sample"},
    "augmentation": {"time_scale": [1.0, 1.0], "frame_sampling": "random"},
    "model": {"use_mska": False, "d_model": 1024, "num_layers": 3, "num_heads": 8, "ff_dim": 4096},
    "decoder": {"model": "facebook/mbart-large-cc25", "use_encoder": False, "prune_vocabulary": True},
    "optim": {
        "optimizer": "sgd",
        "lr": 0.01,
        "warmup_ratio": 0.0,
        "final_lr_ratio": 1e-6,
        "clip_grad_norm": None,
        "label_smoothing": 0.2,
    },
}

PRESETS: dict[str, _Tree] = {
    # SignMusketeers (arXiv 2406.06907): frozen ViT-S crops to 256 each, seven body points, all of T5 v1.1 base.
    "signmusketeers": {
        "data": {"batch_size": 128, "frame_stride": 2},
        "model": {
            "use_mska": False,
            "projection_dim": 256,
            "d_model": 768,
        },
        "decoder": {"model": "google/t5-v1_1-base", "use_encoder": True, "prune_vocabulary": False},
        "optim": {"lr": 1e-3, "weight_decay": 0.1, "label_smoothing": 0.2, "clip_grad_norm": 1.0},
        "train": {"max_train_steps": 5000},
    },
    # MSKA's sizes with mBART-large-cc25, trained our way: keypoints only.
    "mska_paper_mbart": _joined(_MBART, {"data": {"frame_stride": 1, "batch_size": 8, "max_frames": 400}}),
    # MSKA's first stage, sign to gloss: MSKA and its heads alone.
    "mska_s2g": _joined(_MSKA, {"mska": {"translation_weight": 0.0}, "optim": {"lr": 1e-3}, "train": {"epochs": 100}}),
    # TwoStream's stage from glosses to text (FangyunWei/SLRT 38a4f7b), whose text model MSKA's last stage begins with.
    "mska_g2t": {
        "data": {"batch_size": 8},
        "decoder": _MBART["decoder"] | {"max_tokens": 100},
        "optim": _MSKA["optim"] | {"lr": 1e-5, "label_smoothing": 0.2, "translation_loss": "sentence"},
        "train": {"epochs": 80},
        "scoring": {"num_beams": 4},
    },
    # MSKA's last stage, sign to text, from --init-checkpoint of both.
    "mska_slt": _joined(
        _MSKA,
        _MBART,
        {
            "decoder": {"max_tokens": 100},
            "optim": {"translation_loss": "sentence"},
            "train": {"epochs": 40},
            "scoring": {"num_beams": 5},
        },
    ),
    # GFSLT-VLP's first stage, for --stage vlp: clips beside their sentences.
    "gfslt_vlp": _joined(
        _GFSLT,
        {
            "data": {"batch_size": 16},
            "model": {"dropout": 0.1},
            "decoder": {"dropout": 0.3},
            "optim": {"weight_decay": 0.0},
            "train": {"epochs": 80},
        },
    ),
    # Its second, sign to text, from --init-checkpoint of the first.
    "gfslt": _joined(
        _GFSLT,
        {
            "data": {"batch_size": 8},
            "model": {"dropout": 0.5},
            "decoder": {"dropout": 0.5, "max_tokens": 150},
            "optim": {"weight_decay": 1e-3},
            "train": {"epochs": 200},
            "scoring": {"num_beams": 4},
        },
    ),
}
"""What a preset sets where the user sets nothing."""


# nothing moves in a gloss or a word
_STILL: _Tree = {"augmentation": {"scale": 0.0, "rotate_deg": 0.0, "translate": 0.0, "time_scale": [1.0, 1.0]}}
STAGES: dict[str, _Tree] = {
    "s2g": {"mska": {"translation_weight": 0.0}},
    "g2t": _STILL,
    "text": _STILL,
}
"""What a stage other than slt sets where neither the user nor a preset does."""


def with_preset(tree: Any) -> Any:
    """Settings of a whole training, on top of those of the preset they name."""
    decoder = tree.get("decoder") if isinstance(tree, dict) else None
    name = decoder.get("preset") if isinstance(decoder, dict) else None
    return _above(PRESETS.get(name, {}), tree) if isinstance(name, str) else tree


def with_stage(tree: Any) -> Any:
    """Settings of a whole training, on top of those of its stage."""
    name = tree.get("stage") if isinstance(tree, dict) else None
    return _above(STAGES.get(name, {}), tree) if isinstance(name, str) else tree


def _above(below: _Tree, tree: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for section, keys in below.items():
        given = tree.get(section, {})
        if isinstance(given, dict):
            merged[section] = keys | given
    return merged
