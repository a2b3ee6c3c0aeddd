"""The last act of a run: exported weights, curves, and the list of all artifacts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from signstreams.backbones.export import export_backbone
from signstreams.backbones.vit import VisionTransformer
from signstreams.config.pretrain import PretrainConfig
from signstreams.engine import checkpoint
from signstreams.engine.experiment import Experiment
from signstreams.engine.metrics import read_metrics
from signstreams.files import digest, write_text
from signstreams.pretrain.card import Facts, model_card
from signstreams.pretrain.curves import draw
from signstreams.pretrain.data import CropSet
from signstreams.pretrain.loop import Loop
from signstreams.pretrain.pictures import draw_pictures
from signstreams.pretrain.trainer import Trainer, teacher_backbone
from signstreams.streams import HAND_STREAMS

log = logging.getLogger(__name__)


def write_outputs(
    config: PretrainConfig,
    stream: str,
    trainer: Trainer,
    loop: Loop,
    experiment: Experiment,
    crops: CropSet,
    target: Path,
) -> None:
    """Export the teacher's backbone, draw the curves, list what there is; rank 0 only.

    Args:
        target: Where the exported weights go.
    """
    files = config.checkpointing
    state = trainer.state_dict()
    has_best = (experiment.state / files.best_name).exists()
    if not has_best:  # no held-out crops to choose by: the last is the best known
        checkpoint.save(experiment.state / files.best_name, loop.state_dict())
    (experiment.state / files.history_file).touch()  # a finished state from another folder brings no history
    if files.export == "best":
        state = checkpoint.load(experiment.state / files.best_name)["trainer"]
    metadata = _metadata(config, stream, trainer, state, crops)
    tensors = target.with_suffix(".safetensors")
    export_backbone(target, trainer.arch, teacher_backbone(state), metadata, safetensors=tensors)
    published = {name: experiment.publish(name) for name in (files.last_name, files.best_name, files.history_file)}
    curves = experiment.folder / "curves.png"
    records = read_metrics(published[files.history_file])
    draw(
        records,
        curves,
        num_prototypes=trainer.choices.num_prototypes,
        title=f"{stream}: {config.experiment.name or trainer.arch.described()}",
    )
    pictures = _pictures(config, stream, trainer, state, crops, experiment) if config.monitor.pictures else {}
    card = experiment.folder / "README.md"
    write_text(card, model_card(trainer.arch, metadata, records, _facts(config, trainer, loop, target, tensors)))
    experiment.write_artifacts(
        {
            "backbone": target,
            "safetensors": tensors,
            "card": card,
            "checkpoint_last": published[files.last_name],
            "checkpoint_best": published[files.best_name],
            "metrics": published[files.history_file],
            "params": experiment.folder / "params.json",
            "curves": curves,
            **pictures,
        }
    )
    log.info("%s: exported %s", target, trainer.arch.described())


def _pictures(
    config: PretrainConfig,
    stream: str,
    trainer: Trainer,
    state: dict[str, Any],
    crops: CropSet,
    experiment: Experiment,
) -> dict[str, Path]:
    """What the exported backbone sees, drawn on held-out crops where there are any."""
    model = VisionTransformer(trainer.arch)
    model.load_state_dict(teacher_backbone(state))
    return draw_pictures(
        model.eval().to(trainer.world.device),
        trainer.normalize,
        config.augmentation.global_px,
        crops.probe or crops.train,
        crops.train if crops.probe else [],
        experiment.folder,
        title=f"{stream}: {config.experiment.name or trainer.arch.described()}",
    )


def _metadata(
    config: PretrainConfig, stream: str, trainer: Trainer, state: dict[str, Any], crops: CropSet
) -> dict[str, Any]:
    """What a user of the weights must know; no times and no paths, so that equal runs export equal bytes."""
    views = config.augmentation
    return {
        "stream": stream,
        "algorithm": config.algorithm,
        "step": int(state["step"]),
        "image_px": views.global_px,
        "mean": list(views.mean),
        "std": list(views.std),
        "chirality": "one side, never flipped" if stream in HAND_STREAMS else f"flipped with p {views.flip_prob:g}",
        "blur_probs": list(views.blur_probs),
        "train_crops": len(crops.train),
        "data_digest": crops.digest,
        "experiment_digest": digest(config.identity()),
    }


def _facts(config: PretrainConfig, trainer: Trainer, loop: Loop, target: Path, tensors: Path) -> Facts:
    choices, optim, views = trainer.choices, config.optim, config.augmentation
    initial = loop.fingerprint.config.get("init", {}).get("weights")
    recipe = {
        "algorithm": config.algorithm,
        "seed": config.seed,
        "init": "random weights" if initial is None else f"{config.init.weights} (tensors {initial})",
        "steps": choices.total_steps,
        "batch": f"{config.dataset.batch_size * loop.world.size} crops, {2 + views.num_local} views each",
        "views": f"2 of {views.global_px} px, {views.num_local} of {views.local_px} px" if views.num_local else "2",
        "learning_rate": f"{choices.peak_learning_rate:g} at most, layer decay {choices.layer_decay:g}",
        "weight_decay": f"{optim.weight_decay:g} to {optim.final_weight_decay:g}",
        "precision": optim.precision,
        "num_prototypes": choices.num_prototypes,
        "teacher_temp": f"{choices.warmup_teacher_temp:g} to {choices.teacher_temp:g}",
        "momentum": f"{choices.momentum:g} to 1",
        "targets": "Sinkhorn-Knopp" if choices.use_sinkhorn else "centring",
        "koleo.weight": config.koleo.weight,
        "export": config.checkpointing.export,
        "digest of the config": digest(config.identity()),
    }
    if config.init.weights is not None and config.init.weights.startswith("file::"):
        recipe["init"] = f"a file's weights (tensors {initial})"  # its path says nothing elsewhere
    return Facts(
        weights=target.name,
        safetensors=tensors.name,
        recipe=recipe,
        num_videos=loop.plan.num_videos,
        num_probe_crops=len(loop.crops.probe),
        name=config.experiment.name,
        tags=list(config.experiment.tags),
        notes=config.experiment.notes,
    )
