"""The end of a run: exported weights, model card, curves, and the list of all artifacts."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from signstreams.backbones.archs import HEAD_DIM, ViTArch
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.engine import checkpoint
from signstreams.engine.metrics import Panel, plot_curves, read_metrics
from signstreams.engine.model_card import backbone_data, one_line, write_card
from signstreams.engine.settings import CardConfig, ExperimentConfig
from signstreams.engine.training_run import TrainingRun
from signstreams.files import digest, write_text
from signstreams.formats.layout import JUDGE_FILES, PRETRAINING_FILES
from signstreams.pretrain.data import CropSet
from signstreams.pretrain.health import flat_end
from signstreams.pretrain.pictures import draw_pictures
from signstreams.pretrain.settings import AugmentationConfig, PositivesConfig, PretrainConfig
from signstreams.pretrain.trainer import Trainer, teacher_backbone
from signstreams.pretrain.views import BLUR_SIGMA_OF_PX
from signstreams.streams import BY_NAME, HAND_STREAMS, HANDS, MIRRORED_IN_HANDS, STREAMS

# -- Curves

_CAPTION = (
    "Good: the loss falls below the dashed line (ln K: knowing nothing), the entropy of one crop's target is below "
    "that of the batch, most prototypes are used, RankMe and k-NN rise. Bad: both entropies on the line (nothing "
    "learned) or both near 0 (one prototype takes all), a k-NN that falls, a gradient norm that climbs."
)


def draw(records: list[dict[str, Any]], path: Path, *, num_prototypes: int, title: str) -> None:
    """Draw metrics over steps; ln K, the loss of knowing nothing, is a dashed line."""
    level = (math.log(num_prototypes), "ln K")
    panels = (
        Panel("Loss", ("train/loss_dino", "train/loss_patch", "train/kl", "train/kl_patch"), level),
        Panel("Teacher entropy (nats)", ("teacher/entropy_sample", "teacher/entropy_batch"), level),
        Panel("Prototypes used (share)", ("teacher/prototypes_used_ratio",)),
        Panel("Held-out crops: k-NN (share right)", ("probe/knn",)),
        Panel("Held-out crops: points (R²)", ("probe/points_r2",)),
        Panel("Held-out crops: RankMe", ("probe/rankme",)),
        Panel("Held-out crops: information (nats)", ("probe/assignment_information",)),
        Panel("Learning rate", ("schedule/lr",)),
        Panel("Gradient norm", ("train/grad_norm",)),
        Panel("Seconds per step", ("time/step_s", "time/data_s")),
    )
    plot_curves(records, path, panels, title=title, caption=_CAPTION)


# -- Model card

TIMM_NAMES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "dinov2_vits14": "vit_small_patch14_dinov2",
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2",
    "dinov2_vitb14": "vit_base_patch14_dinov2",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2",
    "dinov3_vits16": "vit_small_patch16_dinov3_qkvb",
    "dinov3_vits16plus": "vit_small_plus_patch16_dinov3_qkvb",
    "dinov3_vitb16": "vit_base_patch16_dinov3_qkvb",
}
FIGURES = (
    ("train/loss_dino", "loss of the class token"),
    ("train/loss_patch", "loss of the masked patches"),
    ("train/kl", "KL of teacher and student"),
    ("train/loss_points", "loss of the points"),
    ("teacher/entropy_sample", "entropy of a crop's target, nats"),
    ("teacher/entropy_batch", "entropy of the mean target, nats"),
    ("teacher/prototypes_used_ratio", "share of prototypes used"),
    ("probe/assignment_information", "held-out crops: nats that the prototype tells about the crop"),
    ("probe/rankme", "held-out crops: RankMe"),
    ("probe/feature_std", "held-out crops: deviation of the features, 1 spread out"),
    ("probe/points_r2", "held-out crops: share of the variance of the points that is predicted"),
    ("probe/knn", "held-out crops: k-NN on labels"),
)


def model_card(
    arch: ViTArch,
    metadata: dict[str, Any],
    records: list[dict[str, Any]],
    recipe: dict[str, Any],
    about: ExperimentConfig,
    *,
    weights: str,
    num_videos: int,
    num_probe_crops: int,
    warnings: Sequence[str] = (),
) -> str:
    """``README.md`` beside the file ``weights``: what these are, what they were trained on, how to load them.

    From their metadata, the lines of the run's metrics, and the recipe (setting to value, in the order to show); no
    times and no paths. It says that no licence was given: a release, which asks for one, writes that section again.
    """
    step = metadata["step"]
    side = BY_NAME[metadata["stream"]].side if metadata["stream"] in BY_NAME else None
    num_crops = metadata["train_crops"]
    source = "images" if num_videos == num_crops else f"of {num_videos:,} videos"
    data = {
        "crops": f"{num_crops:,} {source}; {num_probe_crops:,} held out",
        "digest of the data": f"`{metadata['data_digest']}`",
        "side": (f"{side} hand: " if side else "") + metadata["chirality"],
    }
    use = {
        "image side": f"{metadata['image_px']} px",
        "mean of R, G, B": _numbers(metadata["mean"]),
        "deviation of R, G, B": _numbers(metadata["std"]),
        "features": f"{arch.embed_dim} (class token), and one per patch of {arch.patch_px} px",
    }
    mirrored = metadata.get("mirrored_streams", [])
    feed = "Feed RGB images of this side, scaled to 0..1, less the mean, over the deviation."
    if mirrored:
        feed += (
            f" Mirror crops of {', '.join(mirrored)} left to right before that: here `model.inputs(images, stream)`"
            " does both, while timm and torch.hub know nothing of it."
        )
    parts = [
        f"# {one_line(about.name or 'Backbone')}: {metadata['stream']}, {arch.described()}",
        f"Pretrained without labels by {metadata['algorithm']} with signstreams, to step {step:,}."
        + (f" Tags: {one_line(', '.join(about.tags))}." if about.tags else ""),
        *(f"**{one_line(warning)}.**" for warning in warnings),
        *([escape(about.notes, quote=False)] if about.notes else []),
        "## Data\n\n" + _table(data),
        f"## Use\n\n{feed}\n\n" + _table(use),
        _loading(arch, metadata["stream"], metadata["image_px"], weights),
        "## Recipe\n\n" + _table({f"`{key}`": value for key, value in recipe.items()}),
        f"## Figures\n\nLast values logged by step {step:,}; all of them are in the run's metrics.\n\n"
        + _table(_figures(records, step))
        + f"\n\nWhat its features are worth beside its first weights, pixels, HOG and hand points:"
        f" `signstreams evaluate-backbone`. Where labels are known, the workflow has put `{JUDGE_FILES['table']}` and"
        f" `{JUDGE_FILES['judge']}` beside this card.",
    ]
    return write_card(backbone_data(metadata["stream"], about.tags), "\n\n".join(parts), CardConfig())


def _loading(arch: ViTArch, stream: str, image_px: int, weights: str) -> str:
    quoted = functools.partial(json.dumps, ensure_ascii=False)
    tensors = str(Path(weights).with_suffix(".safetensors"))
    shown = HAND_STREAMS[0] if stream == HANDS else stream
    seen = quoted(shown) if shown in STREAMS else None
    ours = f"""\
import numpy as np
import signstreams as ss

model = ss.load_backbone({quoted(weights)})  # or the .safetensors file
crops = np.zeros((2, {image_px}, {image_px}, 3), np.uint8)  # yours: square, red, green, blue; of any size
features = ss.embed(model, crops, stream={seen})  # (2, {arch.embed_dim}), float32"""
    changes: dict[str, float | str] = {"img_size": image_px, "num_classes": 0}
    if arch.is_rotary:  # of any size; without the second, timm gives the mean of the patches
        changes = {"num_classes": 0, "global_pool": "token"}
    elif not arch.is_dinov2:
        changes |= {"patch_size": arch.patch_px, "depth": arch.depth}
        if arch.num_heads * HEAD_DIM != arch.embed_dim:
            changes["num_heads"] = arch.num_heads
        if arch.layer_scale_init is not None:
            changes["init_values"] = arch.layer_scale_init
        if arch.num_registers:
            changes |= {"reg_tokens": arch.num_registers, "no_embed_class": True}
    words = ", ".join(f"{key}={value!r}" for key, value in changes.items()).replace("'", '"')
    images = f"images = torch.zeros(2, 3, {image_px}, {image_px})  # yours, normalised as above"
    use = f"{images}\nfeatures = model.eval()(images)  # (2, {arch.embed_dim})"
    timm = f"""\
import timm
import torch

file = {{"file": {quoted(tensors)}}}
model = timm.create_model(
    "{TIMM_NAMES.get(arch.name, arch.name)}", pretrained=True, pretrained_cfg_overlay=file, {words}
)
{use}"""
    if arch.is_rotary:
        hub = None
    elif arch.is_dinov2:
        positions = "" if arch.num_registers else ", interpolate_antialias=True, interpolate_offset=0.0"
        hub = f"""\
import torch

model = torch.hub.load("facebookresearch/dinov2", "{arch.name}", pretrained=False{positions})
model.load_state_dict(torch.load({quoted(weights)}, weights_only=True)["model"])
{use}"""
    else:
        scale = f"init_values={arch.layer_scale_init}, " if arch.layer_scale_init is not None else ""
        hub = f"""\
import torch

torch.hub.list("facebookresearch/dinov2", trust_repo=True)  # fetches its code and imports it
from dinov2.models.vision_transformer import DinoVisionTransformer

model = DinoVisionTransformer(
    img_size={image_px}, patch_size={arch.patch_px}, embed_dim={arch.embed_dim}, depth={arch.depth},
    num_heads={arch.num_heads}, num_register_tokens={arch.num_registers}, block_chunks=0,
    {scale}interpolate_antialias=True, interpolate_offset=0.0,
)
state = torch.load({quoted(weights)}, weights_only=True)["model"]
model.load_state_dict(state, strict=False)  # only mask_token may be missing, and only masking needs it
{use}"""
    blocks = (
        (f"signstreams (`pip install '.[train]'` in its checkout), with `{weights}`", ours),
        (f"timm 1.0.20 or newer (`pip install timm`), with `{tensors}`", timm),
        (f"torch.hub's DINOv2 (`pip install torch torchvision`, and the network once), with `{weights}`", hub),
    )
    pieces = [f"{title}:\n\n```python\n{code}\n```" for title, code in blocks if code is not None]
    intro = (
        f"{'Both' if arch.is_rotary else 'All three'} give the same class token. Run them in the folder of the file."
    )
    return "\n\n".join(["## Loading", intro, *pieces, *_hub_note(arch, image_px)])


def _hub_note(arch: ViTArch, image_px: int) -> list[str]:
    """What the hub's own constructor without registers would give: it interpolates the position table otherwise."""
    if not arch.is_dinov2 or arch.num_registers:
        return []
    if image_px == arch.table_px:
        where = f"At {image_px} px this makes no difference; at other sides"
    else:
        where = f"At {image_px} px"
    return [
        f"Without `interpolate_antialias` and `interpolate_offset` the hub's `{arch.name}` interpolates the position"
        f" table with an offset of .1 and without antialiasing. {where} its class token is then another one: with"
        " random weights by 8 % of its length at 112 px, by less at larger sides, by nothing at"
        f" {arch.table_px} px. The hub's models with registers need neither."
    ]


def _figures(records: list[dict[str, Any]], step: int) -> dict[str, str]:
    found = {}
    for key, meaning in FIGURES:
        values = [record[key] for record in records if record.get(key) is not None and record["step"] <= step]
        if values:
            found[f"`{key}`"] = f"{values[-1]:.4g} ({meaning})"
    return found


def _table(rows: dict[str, Any]) -> str:
    body = "\n".join(f"| {key} | {one_line(value)} |" for key, value in rows.items())
    return f"| What | Value |\n| --- | --- |\n{body}"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


# -- Artifacts

log = logging.getLogger(__name__)


def write_outputs(
    config: PretrainConfig,
    stream: str,
    trainer: Trainer,
    run: TrainingRun,
    crops: CropSet,
    num_videos: int,
    target: Path,
    warning: str | None = None,
) -> None:
    """Export the teacher's backbone to ``target``, draw curves and pictures, write the card, list all; rank 0 only.

    The card repeats the ``warning``, and says where the run has learned next to nothing, as the last line of the log.
    """
    experiment = run.experiment
    assert experiment is not None
    folder, title = experiment.folder, f"{stream}: {config.experiment.name or trainer.arch.described()}"
    state = trainer.state_dict()
    if config.checkpointing.export == "best":
        state = checkpoint.load(experiment.state / run.files.best)["trainer"]
    metadata = _metadata(config, stream, state, crops, run.world.size)
    tensors = target.with_suffix(".safetensors")
    export_backbone(target, trainer.arch, teacher_backbone(state), metadata, safetensors=tensors)
    names = {key: folder / PRETRAINING_FILES[key] for key in ("card", "params", "curves")}
    records = read_metrics(folder / run.files.metrics)
    flat = flat_end(records, trainer.derived.num_prototypes)
    draw(records, names["curves"], num_prototypes=trainer.derived.num_prototypes, title=title)
    pictures = {}
    if config.monitor.pictures:
        model = VisionTransformer(trainer.arch)
        model.load_state_dict(teacher_backbone(state))
        model.eval().to(run.world.device)
        side_px = config.augmentation.global_px
        pictures = draw_pictures(model, trainer.normalize, side_px, crops, folder, title=title)
    card = model_card(
        trainer.arch,
        metadata,
        records,
        _recipe(config, trainer, run),
        config.experiment,
        weights=target.name,
        num_videos=num_videos,
        num_probe_crops=len(crops.probe),
        warnings=[text for text in (warning, flat) if text],
    )
    write_text(names["card"], card)
    experiment.write_artifacts(
        {
            "backbone": target,
            "safetensors": tensors,
            "card": names["card"],
            "checkpoint_last": folder / run.files.last,
            "checkpoint_best": folder / run.files.best,
            "metrics": folder / run.files.metrics,
            "params": names["params"],
            "curves": names["curves"],
            **pictures,
        }
    )
    log.info("%s: exported %s", target, trainer.arch.described())
    if flat:
        log.warning("%s: %s", folder, flat)


def _metadata(
    config: PretrainConfig, stream: str, state: dict[str, Any], crops: CropSet, num_processes: int
) -> dict[str, Any]:
    """What a user of the weights must know; no times and no paths, so that equal runs export equal bytes."""
    views = config.augmentation
    chirality = "one side, never flipped" if stream in HAND_STREAMS else f"flipped with p {views.flip_prob:g}"
    if stream == HANDS:
        chirality = "right hands as they are, left hands mirrored; never flipped"
    return {
        "stream": stream,
        "algorithm": config.algorithm,
        "step": int(state["step"]),
        "image_px": views.global_px,
        "mean": list(views.mean),
        "std": list(views.std),
        "chirality": chirality,
        **({"mirrored_streams": list(MIRRORED_IN_HANDS)} if stream == HANDS else {}),
        "blur_probs": list(views.blur_probs),
        "train_crops": len(crops.train),
        "data_digest": crops.digest,
        "experiment_digest": digest(config.identity(num_processes)),
    }


def _recipe(config: PretrainConfig, trainer: Trainer, run: TrainingRun) -> dict[str, Any]:
    """Settings to show on the card."""
    derived, optim, views = trainer.derived, config.optim, config.augmentation
    is_cosine = optim.schedule == "cosine"
    decay = "" if is_cosine else f", constant and decaying over the last {derived.decay_steps:,} steps"
    digest_of_weights = run.fingerprint.config.get("init", {}).get("weights")
    init = "random weights"
    if config.init.weights is not None:  # the path of a file says nothing elsewhere
        name = "a file's weights" if config.init.weights.startswith("file::") else config.init.weights
        init = f"{name} (tensors {digest_of_weights})"
    return {
        "algorithm": config.algorithm,
        "seed": config.seed,
        "init": init,
        "steps": derived.total_steps,
        "batch": f"{config.dataset.batch_size * run.world.size} crops, {2 + views.num_local} views each",
        "views": f"2 of {views.global_px} px, {views.num_local} of {views.local_px} px" if views.num_local else "2",
        "blur": _blur(views),
        **_camera(views),
        "learning_rate": f"{derived.peak_learning_rate:g} at most, layer decay {derived.layer_decay:g}{decay}",
        "weight_decay": f"{optim.weight_decay:g}" + (f" to {optim.final_weight_decay:g}" if is_cosine else ""),
        "precision": optim.precision,
        "num_prototypes": derived.num_prototypes,
        "teacher_temp": f"{derived.warmup_teacher_temp:g} to {derived.teacher_temp:g}",
        "momentum": f"{derived.momentum:g}" + (" to 1" if is_cosine else ""),
        "targets": "Sinkhorn-Knopp" if derived.use_sinkhorn else "centring",
        "koleo.weight": config.koleo.weight,
        **({"points.weight": f"{weight:g}; points taught, where seen"} if (weight := config.points.weight) else {}),
        **({"positives": _positives(config.positives)} if config.positives.is_used else {}),
        "export": config.checkpointing.export,
        "digest of the config": digest(config.identity(run.world.size)),
    }


def _positives(positives: PositivesConfig) -> str:
    """Which crops global view 2 is cut from."""
    kinds = []
    if positives.neighbour_s is not None:
        kinds.append("a frame {:g} to {:g} s away".format(*positives.neighbour_s))
    if positives.other_signer_prob:
        kinds.append(f"another signer's with nearly the same points (p {positives.other_signer_prob:g})")
    return f"view 2: {', or '.join(kinds)}"


def _blur(views: AugmentationConfig) -> str:
    """Blur of each kind of view in pixels of its own: DINO's are the same for any side."""
    view_1, view_2, local = views.blur_probs
    kinds = [(f"p {view_1:g} and {view_2:g}", views.global_px)]
    kinds += [(f"p {local:g}", views.local_px)] if views.num_local else []
    low, high = views.blur_sigma_px
    shares = [(prob, side, side / BLUR_SIGMA_OF_PX) for prob, side in kinds]
    return "; ".join(
        f"sigma {low * share:.2g} to {high * share:.2g} px of {side} px with {prob}" for prob, side, share in shares
    )


def _camera(views: AugmentationConfig) -> dict[str, str]:
    """What is done to views beyond DINO's recipe; nothing where all of it is off."""
    rows = {}
    if views.turn_deg:
        rows["turns"] = f"up to {views.turn_deg:g} degrees to either side"
    if views.motion_blur_prob:
        low, high = views.motion_blur_px
        rows["motion_blur"] = f"{low:g} to {high:g} px of {BLUR_SIGMA_OF_PX} px with p {views.motion_blur_prob:g}"
    if views.recompress_prob:
        low, high = views.recompress_quality
        rows["recompression"] = f"JPEG of quality {low} to {high} with p {views.recompress_prob:g}"
    return rows
