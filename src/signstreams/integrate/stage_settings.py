"""Which settings have an effect in a stage: others are refused, no part of its identity, and not handed on to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from signstreams.integrate.presets import STAGES
from signstreams.streams import BACKBONE_KEYS

if TYPE_CHECKING:
    from signstreams.integrate.settings import IntegrateConfig

_OF_BACKBONES = (
    *BACKBONE_KEYS.values(),
    *(f"freeze_{key}" for key in BACKBONE_KEYS.values()),
    "trainable_blocks",
    "backbone_layers",
)
_OF_CHECKPOINT = ("model", "weights", "tokenizer", "use_encoder", "prune_vocabulary", "offline", "target_language")
_UNSEEN: dict[str, tuple[str, ...]] = {
    "data": ("frame_stride", "max_frames", "long_clips", "crop_px", "allow_absent_videos", "blank_video"),
    "augmentation": (
        *("scale", "rotate_deg", "rotate_prob", "translate", "noise", "time_scale"),
        "frame_sampling",
    ),
    "model": (*_OF_BACKBONES, "use_pose", "use_mska", "projection_dim", "stream_dropout"),
    "mska": (
        *("translation_weight", "ctc_weight", "distillation_weight", "distillation", "distillation_warmup_ratio"),
        *("gloss_fusion", "channels", "num_heads", "dropout", "head_dim", "head_ff_dim", "root_relative_hands"),
        *("norm", "layers"),
    ),
    "optim": ("lr_mska", "lr_mapper", "lr_backbone", "checkpoint_activations"),
    "train": ("sequence_checkpoint",),
}
"""What a stage without video does not read."""
_OF_TRANSLATION = ("bleu_tokenize", "bleu_lowercase", "num_beams")
WITHOUT_EFFECT: dict[str, dict[str, tuple[str, ...]]] = {
    "s2g": {
        "model": (*_OF_BACKBONES, "stream_dropout"),
        "mska": ("translation_weight", "gloss_fusion"),
        "decoder": _OF_CHECKPOINT,
        "optim": ("lr_encoder", "lr_mapper", "lr_decoder", "lr_backbone", "translation_loss", "label_smoothing"),
        "train": ("sequence_checkpoint",),
        "scoring": _OF_TRANSLATION,
    },
    "g2t": _UNSEEN | {"scoring": ("gloss_beams",)},
    "text": _UNSEEN
    | {
        "data": (*_UNSEEN["data"], "unknown_gloss"),
        "decoder": ("prune_vocabulary",),
        "optim": (*_UNSEEN["optim"], "translation_loss"),
        "scoring": ("gloss_cleanup", "gloss_beams", *_OF_TRANSLATION),
    },
    "vlp": {
        "mska": (
            *("translation_weight", "ctc_weight", "distillation_weight", "distillation_warmup_ratio"),
            "distillation",
        ),
        "optim": ("translation_loss",),
        "scoring": ("num_beams",),
    },
}
"""Stage to the settings of each section that it does not read."""
_OF_LANGUAGE_MODEL = ("d_model", "dropout")  # what a whole language model has its own of
_LEARNS = {
    "s2g": "learns glosses from keypoints alone",
    "g2t": "learns texts from glosses, without video",
    "text": "learns sentences from what is left of them, without video and glosses",
    "vlp": "learns neither translation nor glosses",
}
_STAYS_BEHIND = {"vlp": {"scoring": ("gloss_cleanup", "gloss_beams")}}
"""Stage to settings of the whole training that it reads, and that are not meant for it: of glosses, in vlp."""


def without_effect(config: IntegrateConfig) -> Iterator[tuple[str, str]]:
    """Section and name of each setting that the stage of the config does not read."""
    for section, names in WITHOUT_EFFECT.get(config.stage, {}).items():
        yield from ((section, name) for name in names)
    if not sees_video(config.stage) and config.decoder.is_whole:
        yield from (("model", name) for name in _OF_LANGUAGE_MODEL)
        if config.stage == "text" or config.decoder.weights == "pretrained":  # gloss embeddings stay as they begin
            yield "optim", "lr_encoder"


def check_stage(config: IntegrateConfig) -> None:
    """Settings that have no effect in the stage, or do not go with it.

    Raises:
        ValueError: Names the first of them.
    """
    sets = STAGES.get(config.stage, {})
    for section, name in without_effect(config):
        values = getattr(config, section)
        default = type(values).model_fields[name].get_default(call_default_factory=True)
        if getattr(values, name) != sets.get(section, {}).get(name, default):
            raise ValueError(
                f"{section}.{name} has no effect: stage {config.stage} {_LEARNS[config.stage]}; leave it out, or set"
                " stage to slt"
            )
    if config.stage == "text":
        if config.decoder.model is not None and config.decoder.weights == "pretrained":
            raise ValueError(
                f"decoder.model: {config.decoder.model} is pretrained on more texts than these, and stage text is for a"
                " decoder from scratch; leave the stage out, or set decoder.weights to random"
            )
    elif config.train.text_files:
        raise ValueError(
            "train.text_files has no effect: stage text alone reads them; give them to it (in the workflow as"
            " integrate.stage_set), and start from its best.pt"
        )
    if config.stage == "vlp":
        _check_batches(config)
    elif config.decoder.preset == "gfslt_vlp":
        raise ValueError(
            f"decoder.preset: gfslt_vlp is of stage vlp, but stage is {config.stage}; set stage to vlp, or take gfslt"
        )


def _check_batches(config: IntegrateConfig) -> None:
    """Stage vlp compares the clips of a batch with each other."""
    if config.optim.accumulate_steps > 1:
        raise ValueError(
            f"optim.accumulate_steps is {config.optim.accumulate_steps}, but stage vlp compares the clips of one pass"
            " with each other; set it to 1, and data.batch_size to what a device takes"
        )
    if config.data.batch_size == 1 and not config.distributed:
        raise ValueError("data.batch_size is 1, but stage vlp compares clips with each other; raise it")


def sees_video(stage: str) -> bool:
    """Whether a stage reads anything that was extracted from videos."""
    return stage not in ("g2t", "text")


def sees_crops(stage: str) -> bool:
    """Whether a stage reads crops, through the backbones."""
    return stage != "s2g" and sees_video(stage)


_OF_MSKA = (
    "data.frame_stride",
    *(f"mska.{name}" for name in ("channels", "num_heads", "head_dim", "head_ff_dim")),
    *(f"mska.{name}" for name in ("root_relative_hands", "norm", "layers")),
)
_OF_TEXT = (
    *(f"model.{name}" for name in ("d_model", "num_layers", "num_heads", "ff_dim")),
    *(f"decoder.{name}" for name in ("model", "target_language", "use_encoder", "num_layers", "num_heads")),
    *(f"decoder.{name}" for name in ("ff_dim", "vocab_size")),
)
_PARTS = {"text": _OF_TEXT, "s2g": _OF_MSKA, "g2t": _OF_TEXT, "vlp": (*_OF_MSKA, *_OF_TEXT, "model.projection_dim")}


def other_parts(config: IntegrateConfig, whole: IntegrateConfig) -> Iterator[tuple[str, Any, Any]]:
    """Sizes of what a stage trains that are others in the training which starts from it: it would take nothing."""
    for key in _PARTS.get(config.stage, ()):
        section, _, name = key.partition(".")
        ours, theirs = getattr(getattr(config, section), name), getattr(getattr(whole, section), name)
        if ours != theirs and not (section == "model" and config.decoder.is_whole):
            yield key, ours, theirs


def of_stage(tree: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Of the settings of a whole training, those that have an effect in one of its stages.

    A preset of the whole training becomes the one of the stage, where there is one.
    """
    left_out = {section: set(names) for section, names in WITHOUT_EFFECT[stage].items()}
    for section, names in _STAYS_BEHIND.get(stage, {}).items():
        left_out[section] |= set(names)
    decoder = tree.get("decoder")
    text = decoder if isinstance(decoder, Mapping) else {}
    is_named = bool(text.get("model") or text.get("preset"))
    if not sees_video(stage) and is_named and text.get("use_encoder", text.get("weights") != "random"):
        left_out["model"] |= set(_OF_LANGUAGE_MODEL)
        left_out["optim"] |= {"lr_encoder"}
    found: dict[str, Any] = {}
    for section, values in tree.items():
        if isinstance(values, Mapping):
            kept = {name: value for name, value in values.items() if name not in left_out.get(section, ())}
            if section == "decoder" and (preset := PRESETS_OF_STAGES.get((str(kept.get("preset")), stage))):
                kept["preset"] = preset
            found[section] = kept
        else:
            found[section] = values
    return found | {"stage": stage}


PRESETS_OF_STAGES = {
    ("mska_slt", "s2g"): "mska_s2g",
    ("mska_slt", "g2t"): "mska_g2t",
    ("gfslt", "vlp"): "gfslt_vlp",
}
"""Preset of a whole training, and stage, to the preset of the stage."""
