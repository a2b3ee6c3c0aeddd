"""One pretraining run from its config to its artifacts: claim the folder, go on or begin, train, export."""

from __future__ import annotations

import logging
import math
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from signstreams.backbones.archs import ViTArch, resolve
from signstreams.engine import checkpoint, distributed
from signstreams.engine.distributed import World
from signstreams.engine.experiment import Experiment, Fingerprint, commit, versions
from signstreams.engine.interrupt import StopRequest, stop_on_signal
from signstreams.engine.trackers import FOLDERS
from signstreams.errors import UserError
from signstreams.files import digest, write_bytes
from signstreams.pretrain.data import CropSet, find_crops, plan_batches
from signstreams.pretrain.derived_settings import Choices, choose
from signstreams.pretrain.initial_weights import first_weights, start_from
from signstreams.pretrain.loop import Loop
from signstreams.pretrain.outputs import write_outputs
from signstreams.pretrain.pictures import NAMES as PICTURES
from signstreams.pretrain.resource_estimates import check_disk, estimate_memory, naming_what_ran_out, report_memory
from signstreams.pretrain.sampler import BatchPlan
from signstreams.pretrain.scratch import on_scratch
from signstreams.pretrain.selection import with_measured_stats
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer
from signstreams.processes import available_cores

log = logging.getLogger(__name__)

RESUME_MODES = ("auto", "never", "must")


def pretrain(config: PretrainConfig, stream: str) -> Path:
    """Run to the end, or go on to it; returns the exported file.

    Raises:
        UserError: Whatever the user can mend: folders, crops, sizes, another experiment in the way, collapse.
    """
    torch.set_num_threads(config.threads or _threads())
    world = distributed.start(distributed=config.distributed, device=config.device)
    try:
        with stop_on_signal() as stop:
            return _pretrain(config, stream, world, stop)
    finally:
        distributed.close()


def _pretrain(config: PretrainConfig, stream: str, world: World, stop: StopRequest) -> Path:
    arch = architecture(config)
    crops = _crops(config, stream, world)
    if config.dataset.scratch_dir:
        crops = replace(crops, train=on_scratch(crops.train, config.dataset.scratch_dir))
    config = with_measured_stats(config, crops.train)
    plan = _plan(config, crops, world)
    choices = choose(config, num_crops=len(crops.train), global_batch=config.dataset.batch_size * world.size)
    weights = first_weights(config, arch)
    identity = config.identity() | {"stream": stream, "world_size": world.size}
    if weights is not None:
        identity["init"]["weights"] = weights.digest
    if config.dataset.signer_balance:  # meta.csv says who signs, and that alters the order of the crops
        identity["dataset"]["signers"] = digest(plan.groups.signer.tolist())
    fingerprint = Fingerprint(identity, crops.digest)
    given = _given_checkpoint(config)
    given_state = None if given is None else _load_state(given, fingerprint)  # before the folder is touched
    experiment: Experiment | None = None
    with distributed.main_first(world):
        if world.is_main:
            experiment = _claim(config, fingerprint, given is not None)
    try:
        own: Path | None = None
        with distributed.main_first(world):
            if experiment is not None:
                experiment.write_params(_params(config, stream, world, arch, choices, crops, plan, fingerprint))
                own = experiment.state / config.checkpointing.last_name
                own = own if own.exists() else None
        own = distributed.from_main(own)  # every process reads the file itself; it is shared, as the crops are
        own_state = None if own is None else _load_state(own, fingerprint, is_own=True)
        state = _furthest(own_state, given_state)
        with naming_what_ran_out(config):
            trainer = Trainer(config, choices, arch, world)
        if weights is not None:
            start_from(weights, [trainer.student.backbone, trainer.teacher.backbone])
        loop = Loop(config, stream, trainer, crops, plan, world, experiment, fingerprint)
        if state is not None:
            with naming_what_ran_out(config):  # the optimiser's moments may lie on the GPU only now
                loop.load_state_dict(state)
            if state is not own_state and given is not None:
                loop.adopt(given)
        del state, own_state, given_state  # checkpoints on the CPU, whose room the training may want
        memory = estimate_memory(config, choices, arch, trainer.student)
        if world.is_main and trainer.step < choices.total_steps:
            report_memory(memory, world.device)
        with distributed.main_first(world):
            if experiment is not None and trainer.step < choices.total_steps:
                check_disk(config, experiment.folder, trainer.state_bytes())
        with naming_what_ran_out(config, memory):
            loop.run(stop)
        target = config.export_backbone or config.output_dir / "backbone.pt"
        if experiment is not None:
            with naming_what_ran_out(config, memory):
                write_outputs(config, stream, trainer, loop, experiment, crops, target)
        distributed.barrier()
        return target
    finally:
        if experiment is not None:
            experiment.close()


def artifact_names(config: PretrainConfig) -> list[str]:
    """All files a run may write into its folder."""
    files = config.checkpointing
    return [
        "backbone.pt",
        "backbone.safetensors",
        "README.md",
        files.last_name,
        files.best_name,
        "params.json",
        files.history_file,
        "artifacts.json",
        "curves.png",
        *PICTURES,
    ]


def architecture(config: PretrainConfig) -> ViTArch:
    """The backbone that the config describes.

    Raises:
        UserError: Unknown name, or views that do not divide into patches.
    """
    model, views = config.model, config.augmentation
    try:
        arch = resolve(
            model.arch,
            image_px=views.global_px,
            patch_px=model.patch_px,
            depth=model.depth,
            num_registers=model.num_registers,
            layer_scale_init=model.layer_scale_init,
        )
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    sides = {"global_px": views.global_px} | ({"local_px": views.local_px} if views.num_local else {})
    problems = []
    for name, side in sides.items():
        if side % arch.patch_px:
            near = max(1, round(side / arch.patch_px)) * arch.patch_px
            problems.append(
                f"augmentation.{name} = {side}: does not divide into patches of {arch.patch_px} px; next is {near}"
            )
    if config.algorithm == "ibot":
        problems += _mask_problems(config, views.global_px // arch.patch_px)
    if problems:
        raise UserError(problems)
    return arch


def _mask_problems(config: PretrainConfig, grid: int) -> list[str]:
    """Why views of ``grid`` x ``grid`` patches cannot be masked as the config says."""
    largest = (grid - 1) ** 2  # a block leaves a row and a column of the view
    block = config.ibot.min_block_patches
    if grid < 2:
        return [f"augmentation.global_px = {config.augmentation.global_px}: is one patch, iBOT expects at least 2 x 2"]
    if block is not None and block > largest:
        return [f"ibot.min_block_patches = {block}: a view has {grid} x {grid} patches, expected at most {largest}"]
    return []


def _crops(config: PretrainConfig, stream: str, world: World) -> CropSet:
    """The crops of the run; every rank lists the same files, and what has to be measured, rank 0 measures first."""

    def find() -> CropSet:
        return find_crops(
            config.train_dir,
            probe_crops=config.monitor.probe_crops,
            max_crops=config.dataset.max_crops,
            dataset=config.dataset,
            stream=stream,
            cache_dir=config.output_dir,
        )

    if config.dataset.min_sharpness and world.size > 1:
        with distributed.main_first(world):
            if world.is_main:
                find()
    return find()


def _plan(config: PretrainConfig, crops: CropSet, world: World) -> BatchPlan:
    try:
        return plan_batches(config, crops.train, world.size)
    except ValueError as error:
        raise UserError(
            f"{', '.join(map(str, config.train_dir))}: {error} (after {len(crops.probe)} held-out ones);"
            " lower --batch-size, or extract more video"
        ) from None


def _given_checkpoint(config: PretrainConfig) -> Path | None:
    return None if config.resume in RESUME_MODES else Path(config.resume)


def _furthest(own: dict[str, Any] | None, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Both are of one experiment, so what is further on holds the other's steps: a run that was given a checkpoint, was
    stopped, and is started by the same command again, goes on from its own."""
    if own is None or given is None:
        return own or given
    return own if own["trainer"]["step"] >= given["trainer"]["step"] else given


def _load_state(path: Path, fingerprint: Fingerprint, *, is_own: bool = False) -> dict[str, Any]:
    """State of a checkpoint of this very experiment; of the folder's own, when broken, the one before it.

    Raises:
        UserError: Absent, broken, not a checkpoint, or another experiment's.
    """
    try:
        state: dict[str, Any] = checkpoint.load_latest(path) if is_own else checkpoint.load(path)
        found = Fingerprint(state["fingerprint"]["config"], state["fingerprint"]["data"])
    except FileNotFoundError:
        raise UserError(f"--resume {path}: no such file, expected auto, never, must or a checkpoint's path") from None
    except ValueError as error:
        raise UserError(f"{error}; add --resume never --on-conflict archive to start anew") from None
    except (KeyError, TypeError):
        raise UserError(f"{path}: holds no training state; give a checkpoint_last.pt, not a backbone.pt") from None
    if differences := fingerprint.differences(found):
        raise UserError(f"{path}: is of another experiment: {'; '.join(differences[:6])}; start without --resume")
    return state


def _claim(config: PretrainConfig, fingerprint: Fingerprint, is_given: bool) -> Experiment:
    _check_writable(config.output_dir)
    experiment = Experiment.claim(
        config.output_dir,
        fingerprint,
        files=[*artifact_names(config), *FOLDERS],
        on_conflict=config.on_conflict,
        restart=config.resume == "never" and not distributed.is_restart(),  # torchrun's restart is the same run
    )
    if config.resume == "must" and not is_given and not (experiment.state / config.checkpointing.last_name).exists():
        experiment.close()
        raise UserError(
            f"{config.output_dir}: --resume must, but there is no checkpoint of this experiment; use --resume auto"
        )
    return experiment


def _params(
    config: PretrainConfig,
    stream: str,
    world: World,
    arch: ViTArch,
    choices: Choices,
    crops: CropSet,
    plan: BatchPlan,
    fingerprint: Fingerprint,
) -> dict[str, Any]:
    return {
        "stream": stream,
        "config": config.model_dump(mode="json"),
        "chosen": choices.as_dict(),
        "ln_num_prototypes": math.log(choices.num_prototypes),
        "architecture": arch.described(),
        "data": {
            "digest": crops.digest,
            "train_crops": len(crops.train),
            "probe_crops": len(crops.probe),
            "videos": plan.num_videos,
            "steps_per_pass": plan.steps_per_pass,
        },
        "fingerprint": fingerprint.digest,
        "world_size": world.size,
        "device": str(world.device),
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "versions": versions(),
        "commit": commit(),
    }


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, before any work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        write_bytes(probe, b"", sync=False)
        probe.unlink()
    except FileExistsError:
        pass  # a file of that name: `Experiment.claim` says so
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); give another --output-dir") from None


def _threads() -> int:
    """Threads of this process: as the environment says, unless torchrun squeezed it to 1 for want of knowing better."""
    set_by_user = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2": of nested loops as well
    if set_by_user.isdigit() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == 1:
        return max(1, int(set_by_user))
    return available_cores()
