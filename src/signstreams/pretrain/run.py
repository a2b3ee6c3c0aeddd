"""One pretraining run, from its config to its artifacts; `engine.training_run` drives its steps and saves its state."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from signstreams.array_types import Ints
from signstreams.backbones.archs import ARCHS, ViTArch, resolve
from signstreams.engine import checkpoint, distributed
from signstreams.engine.distributed import World
from signstreams.engine.run_folder import Fingerprint, commit, recorded_fingerprint, versions
from signstreams.engine.training_run import RESUME_MODES, Record, RunFiles, Stage, TrainingRun
from signstreams.errors import UserError
from signstreams.files import digest, read_json, write_json
from signstreams.formats.crops import evenly_spread
from signstreams.formats.layout import PRETRAINING_FILES, STATE
from signstreams.pretrain.crop_index import copy_to_scratch
from signstreams.pretrain.crop_points import ROWS, crop_points
from signstreams.pretrain.data import CropSet, ViewLoader, Views, crop_groups, find_crops, load_whole, plan_batches
from signstreams.pretrain.derived_settings import USUAL_EPOCHS, derive_settings
from signstreams.pretrain.extension import BEFORE_DECAY, Length, prepare, recorded_length, too_short
from signstreams.pretrain.health import CollapseWatch
from signstreams.pretrain.initial_weights import load_initial_weights
from signstreams.pretrain.knn import read_probe_labels
from signstreams.pretrain.outputs import write_outputs
from signstreams.pretrain.points_teacher import PointTargets
from signstreams.pretrain.positives import PartnerSearch, Positives
from signstreams.pretrain.resource_estimates import (
    check_disk,
    estimate_memory,
    exhaustion_as_user_error,
    log_memory_estimate,
)
from signstreams.pretrain.sampler import BatchPlan
from signstreams.pretrain.selection import monotony, with_measured_stats
from signstreams.pretrain.settings import PretrainConfig, upgraded_identity
from signstreams.pretrain.similar_crops import crop_clusters, num_distinct_crops
from signstreams.pretrain.trainer import Trainer
from signstreams.processes import StopRequest, available_cores, number_of_environment, stop_on_signal
from signstreams.streams import HAND_STREAMS, HANDS, MIRRORED_IN_HANDS

log = logging.getLogger(__name__)

HEALTH = "probe/assignment_information"
"""Score that chooses the best checkpoint, higher is better; why not RankMe: `signstreams.pretrain.health`."""
KNN = "probe/knn"  # the score where labels are known
JOINT_BATCH = "joint_batch.json"  # in the state: the `JointBatch` that a config last gave to the run
HEAD_CROPS = 512  # crops that the head's first weights are fitted to


def pretrain(config: PretrainConfig, stream: str) -> Path:
    """Run to the end, or resume and run to the end; returns the exported file.

    Raises:
        UserError: Something the user can fix: folders, crops, sizes, another experiment in the folder, collapse.
        SystemExit: A signal asked the run to stop; a checkpoint was written.
    """
    torch.set_num_threads(config.threads or _threads())
    world = distributed.start(distributed=config.distributed, device=config.device)
    try:
        with stop_on_signal() as stop:
            return _pretrain(config, stream, world, stop)
    finally:
        distributed.close()


def _pretrain(config: PretrainConfig, stream: str, world: World, stop: StopRequest) -> Path:
    config = with_local_side(config)
    arch = architecture(config)
    crops = _crops(config, stream, world)
    if config.dataset.scratch_dir:
        crops = replace(crops, train=copy_to_scratch(crops.train, config.dataset.scratch_dir))
    few_pictures = monotony(crops.train)
    if few_pictures and world.is_main:
        log.warning("%s", few_pictures)
    config = with_measured_stats(config, crops.train)
    weights = load_initial_weights(config, arch)
    groups = crop_groups(config, crops, _clusters(config, stream, crops, world))
    points, search = teachers(config, crops, stream)

    def fingerprint_of(
        config: PretrainConfig,
        is_earlier: bool = False,
        num_distinct: int | None = None,
        num_processes: int = world.size,
    ) -> Fingerprint:
        identity = config.identity(num_processes) | {"stream": stream}
        if is_earlier:  # which had no budget
            identity.pop("budget", None)
            identity["epochs"] = config.epochs or USUAL_EPOCHS
        else:
            identity["derived_by"] = "steps and crops"
            if num_distinct is not None:
                identity["distinct_crops"] = num_distinct
        if weights is not None:
            identity["init"]["weights"] = weights.digest
        if points is not None:
            identity["points"]["targets"] = points.digest
            if config.augmentation.turn_deg:  # to earlier versions the target of a turned view was upright
                identity["points"]["turned"] = True
        if search is not None:
            identity["positives"]["partners"] = search.digest
        if config.dataset.signer_balance:  # signers come from meta.csv, and they alter the order of the crops
            identity["dataset"]["signers"] = digest(groups.signer.tolist())
        if groups.cluster is not None:
            identity["dataset"]["clusters"] = hashlib.sha256(groups.cluster.astype("<i4").tobytes()).hexdigest()
        return Fingerprint(identity, crops.digest)

    given, recorded = config, _recorded(config, world)
    is_earlier = recorded is not None and "derived_by" not in recorded.config
    config = with_linear_rate_of(config, recorded)
    num_distinct = _distinct(crops, world) if recorded is None else recorded.config.get("distinct_crops")
    by_its_rule = partial(fingerprint_of, is_earlier=is_earlier, num_distinct=num_distinct)
    config = with_batch_of_folder(config, world, by_its_rule)
    fingerprint = by_its_rule(config)
    if recorded is not None and fingerprint.differences(recorded):  # another one, by the rules of now
        is_earlier, num_distinct = False, _distinct(crops, world)
        by_its_rule = partial(fingerprint_of, num_distinct=num_distinct)
        config = with_batch_of_folder(given, world, by_its_rule)
        fingerprint = by_its_rule(config)
    num_crops = len(crops.train)
    plan = plan_batches(config, crops, world.size, groups)
    derive = partial(
        derive_settings,
        config,
        num_crops=num_crops,
        num_distinct_crops=num_distinct,
        global_batch=config.dataset.batch_size * world.size,
        is_earlier=is_earlier,
    )
    derived, length = derive(), None
    if derived.decay_steps:  # a run of this kind that is made longer keeps what its first length decided
        begun: Length | None = None
        if recorded is not None and not fingerprint.differences(recorded):
            place = config.output_dir, config.checkpointing.last_name, config.resume
            begun = distributed.found_by_main(world, partial(recorded_length, *place))
        length = Length(begun.begun_steps if begun else derived.total_steps, derived.total_steps)
        derived = derive(begun_steps=length.begun_steps)
    params = {
        "stream": stream,
        "config": config.model_dump(mode="json"),
        "chosen": asdict(derived),
        "ln_num_prototypes": math.log(derived.num_prototypes),
        "architecture": arch.described(),
        "data": {
            "digest": crops.digest,
            "train_crops": num_crops,
            "num_distinct_crops": num_crops if num_distinct is None else num_distinct,
            "probe_crops": len(crops.probe),
            "videos": plan.groups.num_videos,
            "steps_per_pass": plan.steps_per_pass,
            **({} if points is None else {"train_crops_with_points": points.num_seen}),
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
    names = config.checkpointing
    others = [name for key, name in PRETRAINING_FILES.items() if key not in ("last", "best", "history")]
    files = RunFiles(names.last_name, names.best_name, names.history_file, others)
    with TrainingRun(config, world, fingerprint, files, upgrade=upgraded_identity) as run:
        with distributed.main_first(world):
            if run.experiment is not None and length is not None:
                prepare(run.experiment, length, files)
        run.write_params(params, PRETRAINING_FILES["params"])
        with distributed.main_first(world):
            if run.experiment is not None and config.dataset == given.dataset:
                joint = JointBatch(world.size, config.dataset.batch_size)
                write_json(run.experiment.state / JOINT_BATCH, joint._asdict())
        with exhaustion_as_user_error(config):
            trainer = Trainer(config, derived, arch, world)
            if weights is not None:
                for network in (trainer.student, trainer.teacher):  # tensors that are new keep their first values
                    network.backbone.load_state_dict(weights.state, strict=False)
            stage = Pretraining(config, stream, trainer, crops, plan, run, length, points, search)
            run.resume(stage)  # only now may the optimiser's moments be on the GPU
        memory = estimate_memory(config, derived, arch, trainer.student)
        if world.is_main and not stage.is_over:
            if points is not None:
                log.info("points of %s of %s crops teach", f"{points.num_seen:,}", f"{len(crops.train):,}")
            log_memory_estimate(memory, world.device)
            batch = plan.global_batch
            views = derived.total_steps * batch
            log.info(
                "%d steps of %d crops: %s views, %.1f passes over %s crops; the first lines of metrics tell the hours",
                *(derived.total_steps, batch, f"{views:,}", views / num_crops, f"{num_crops:,}"),
            )
            if num_distinct is not None:
                log.info(
                    "%s of the crops are distinct (%.0f %%), the others near-duplicates: head, targets and temperature"
                    " are chosen for as many",
                    *(f"{num_distinct:,}", 100 * num_distinct / num_crops),
                )
        with distributed.main_first(world):
            if run.experiment is not None and not stage.is_over:
                check_disk(config, run.experiment.folder, trainer.state_bytes())
        target = config.export_backbone or config.output_dir / PRETRAINING_FILES["backbone"]
        with exhaustion_as_user_error(config, memory):
            run.train(stage, stop)
            run.publish(stage)
            if run.experiment is not None:
                write_outputs(config, stream, trainer, run, crops, plan.groups.num_videos, target, few_pictures)
    return target


class Pretraining(Stage[Views]):
    """DINO or iBOT as the stage of a run: batches of views, health on held-out crops, the best state."""

    def __init__(
        self,
        config: PretrainConfig,
        stream: str,
        trainer: Trainer,
        crops: CropSet,
        plan: BatchPlan,
        run: TrainingRun,
        length: Length | None = None,
        points: PointTargets | None = None,
        search: PartnerSearch | None = None,
    ) -> None:
        self.config, self.trainer, self.crops, self.plan, self.run = config, trainer, crops, plan, run
        self.length = length  # of a run that can be made longer
        self.points, self.search = points, search
        derived = trainer.derived
        self.label = f"pretrain {stream}"
        self.total_steps, self.epoch_steps = derived.total_steps, derived.epoch_steps
        self.checkpoint_steps = config.checkpointing.every_steps
        self.shown = {}
        self.watch = CollapseWatch(
            derived.num_prototypes,
            derived.head_only_steps + derived.warmup_steps,
            derived.total_steps,
            has_patches=trainer.patches is not None,
        )
        labels = config.monitor.labels
        self.known = None if labels is None else read_probe_labels(labels, crops.probe)
        self.health = HEALTH if self.known is None else KNN
        self.best: dict[str, Any] | None = None
        self._probe: torch.Tensor | None = None  # (N, side, side, 3) uint8, read once the run trains
        self._times = {"data": 0.0, "step": 0.0}
        self._times_since = 0
        self._num_readings = 0

    @property
    def step(self) -> int:
        return self.trainer.step

    def batches(self) -> Generator[Views, None, None]:
        """Views of all steps to come; fits the head's first weights before the first one."""
        trainer, crops, side_px = self.trainer, self.crops, self.config.augmentation.global_px
        loader = ViewLoader(self.config, crops.train, self.plan, self.run.world, self.points, self._partners())
        self._probe = load_whole(crops.probe, side_px) if crops.probe else None
        is_fitted = self.config.dino.standardize_head and not trainer.derived.batch_norm
        if self.step == 0 and is_fitted and len(crops.train) > 1:
            some = evenly_spread(min(HEAD_CROPS, len(crops.train)), len(crops.train))
            trainer.standardize_head(load_whole([crops.train[i] for i in some], side_px))
        while not self.is_over:
            epoch_end = min(self.total_steps, (self.step // self.epoch_steps + 1) * self.epoch_steps)
            asked_s = time.perf_counter()
            for views in loader.steps(self.step, epoch_end):
                got_s = time.perf_counter()
                yield views
                done_s = time.perf_counter()
                self._times["data"] += got_s - asked_s
                self._times["step"] += done_s - got_s
                asked_s = done_s

    def _partners(self) -> Positives | None:
        """Rank 0 searches first, and keeps what it finds in the state of the run, where the others read it."""
        search, folder = self.search, self.config.output_dir / STATE
        if search is None:
            return None
        found: Positives | None = None
        with distributed.main_first(self.run.world):
            if self.run.world.is_main:
                found = search.partners(folder)
        return found or search.partners(folder)

    def train_step(self, batch: Views) -> None:
        """One step of student and teacher."""
        self.trainer.train_step(*batch)

    def measure(self) -> Iterator[Record]:
        """Meters of the steps and health of the teacher, when they are due; the best state by health is saved.

        Raises:
            UserError: The teacher has collapsed.
        """
        step, monitor = self.step, self.config.monitor
        if self.length is not None and step == self.length.decay_start and self.run.experiment is not None:
            # the best state of a longer run is looked for from here on: what was best in a decay is no part of it
            checkpoint.save(self.run.experiment.state / BEFORE_DECAY, self.state_dict() | {"best": None})
        record: dict[str, float] = {}
        if step % monitor.log_every_steps == 0 or self.is_over:
            record |= self._read_meters()
        if self._probe is not None and (step % monitor.probe_every_steps == 0 or self.is_over):
            points = None if self.points is None else torch.from_numpy(self.points.probe)
            record |= self.trainer.probe(self._probe, self.known, points)
        if not record:
            return
        yield record
        self._show(record)
        if monitor.stop_on_collapse and (diagnosis := self.watch.judge(record, step)):
            raise UserError(
                f"{self.config.output_dir}: {diagnosis}, in a new --output-dir"
                " (monitor.stop_on_collapse = false lets such a run go on)"
            )
        health = record.get(self.health, math.nan)
        if math.isfinite(health) and (self.best is None or health > self.best["score"]):
            self.best = {"score": health, "step": float(step), "by": self.health}
            self.run.save_best(self.state_dict)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; no generators, since seeds are derived from steps."""
        fingerprint = self.run.fingerprint
        return {
            "trainer": self.trainer.state_dict(),
            "fingerprint": {"config": fingerprint.config, "data": fingerprint.data},
            "watch": self.watch.state_dict(),
            "best": self.best,
        } | ({} if self.length is None else {"length": self.length._asdict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; scores of two kinds cannot be compared, so a best one of the other is dropped.

        Raises:
            UserError: It is one of another length, and decaying.
        """
        if self.length is not None and (found := Length(**state["length"])).total_steps != self.length.total_steps:
            step = self.step_of(state)
            if step > min(found.decay_start, self.length.decay_start):
                raise UserError(too_short(self.config.output_dir, step, found, self.length))
        self.trainer.load_state_dict(state["trainer"])
        self.watch.load_state_dict(state["watch"])
        self.best = state["best"]
        if self.best is not None and self.best["by"] != self.health:
            self.best = None
        self._times_since = self.step

    @staticmethod
    def step_of(state: dict[str, Any]) -> int:
        return int(state["trainer"]["step"])

    def _read_meters(self) -> dict[str, float]:
        trainer = self.trainer
        record = trainer.meters.read()
        self.run.check_losses(
            trainer.meters.num_bad_in_a_row(),
            self.step,
            "lower --learning-rate, raise --koleo-epsilon, or use --optim-precision fp32",
        )
        steps = max(1, self.step - self._times_since)
        record |= {
            "teacher/distance": trainer.teacher_distance(),
            "teacher/centre_norm": float(trainer.centre.value.norm()),
            **{f"schedule/{name}": value for name, value in trainer.scheduled(self.step - 1).items()},
            "time/step_s": self._times["step"] / steps,
            "time/data_s": self._times["data"] / steps,
            "epoch": self.step / self.epoch_steps,
        }
        if trainer.points is not None:
            record |= trainer.points.read()
        if trainer.patches is not None:
            record["patch/centre_norm"] = float(trainer.patches.centre.value.norm())
        if self.run.world.device.type == "cuda":
            record["mem/peak_gib"] = torch.cuda.max_memory_allocated(self.run.world.device) / 2**30
        self._times, self._times_since = dict.fromkeys(self._times, 0.0), self.step
        self._num_readings += 1
        if self._num_readings == 2:  # the first one has the compilation
            self._tell_hours(record["time/step_s"] + record["time/data_s"])
        return record

    def _tell_hours(self, step_s: float) -> None:
        world, left = self.run.world, self.total_steps - self.step
        if not world.is_main or not left:
            return
        hours = left * step_s / 3600
        gpus = f" ({hours * world.size:.2g} GPU-hours)" if world.device.type == "cuda" else ""
        log.info("%.3g s per step: about %.2g h%s for the %d steps left", step_s, hours, gpus, left)

    def _show(self, record: dict[str, float]) -> None:
        if "train/loss" in record:
            waited_s, worked_s = record["time/data_s"], record["time/step_s"]
            self.shown["loss"] = record["train/loss"]
            self.shown["data wait"] = f"{waited_s / max(waited_s + worked_s, 1e-9):.0%}"
        key, name = ("probe/rankme", "RankMe") if self.known is None else (KNN, "k-NN")
        if key in record:
            self.shown[name] = record[key]


def _recorded(config: PretrainConfig, world: World) -> Fingerprint | None:
    """The fingerprint of the run that this one may go on from: of a given checkpoint, else of the folder.

    A checkpoint that is none is named when it is read to resume from it.
    """

    def find() -> Fingerprint | None:
        found: Fingerprint | None = None
        if config.resume in RESUME_MODES:
            found = None if config.resume == "never" else recorded_fingerprint(config.output_dir)
        else:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                state = checkpoint.load(config.resume)["fingerprint"]
                found = Fingerprint(dict(state["config"]), str(state["data"]))
        return None if found is None else replace(found, config=upgraded_identity(found.config))

    return distributed.found_by_main(world, find)


def with_linear_rate_of(config: PretrainConfig, recorded: Fingerprint | None) -> PretrainConfig:
    """The config with the rate that follows the batch in proportion, as by default in the run that it may go on from.

    Earlier versions did so above a joint batch of 1,024 crops, too; a run that was begun so ends so.
    """
    found = {} if recorded is None else recorded.config.get("optim", {})
    if config.optim.learning_rate_scaling != "auto" or found.get("learning_rate_scaling") != "linear":
        return config
    return config.model_copy(update={"optim": config.optim.model_copy(update={"learning_rate_scaling": "linear"})})


class JointBatch(NamedTuple):
    """The batch of a step, as a config and a number of processes gave it."""

    num_processes: int
    batch_size: int  # crops of each process

    @property
    def size(self) -> int:
        return self.num_processes * self.batch_size


def teachers(config: PretrainConfig, crops: CropSet, stream: str) -> tuple[PointTargets | None, PartnerSearch | None]:
    """What points teach, and where partners of the crops come from; None where the config asks for neither.

    Raises:
        UserError: Files of extraction that either needs are absent or damaged, or the points were seen in no crop.
    """
    weight, positives = config.points.weight, config.positives
    points = None
    if weight or positives.other_signer_prob:
        needed_by, streams = "points.weight", tuple(ROWS)
        if positives.other_signer_prob:  # of hands alone: the shape of a face is the signer's own
            needed_by, streams = "positives.other_signer_prob", HAND_STREAMS
        points = crop_points(crops.train, stream, needed_by=needed_by, streams=streams)
    targets = PointTargets.of(points, crops.train, crops.probe, stream) if weight and points is not None else None
    search = PartnerSearch(positives, crops.train, points, config.seed) if positives.is_used else None
    return targets, search


def with_batch_of_folder(
    config: PretrainConfig, world: World, fingerprint_of: Callable[..., Fingerprint]
) -> PretrainConfig:
    """The config with the joint batch of the folder's run, where another number of processes is to continue that.

    A config gives the batch of a process, so that an edited profile would change the joint batch, and with it the rate,
    the schedules and the order of the crops. A run that differs in nothing else keeps its own: each process takes its
    share of it, in parts no larger than those of its config. Rank 0 decides.

    Raises:
        UserError: The joint batch cannot be shared evenly.
    """
    if config.resume == "never":
        return config
    share: tuple[int, int] | None = distributed.found_by_main(
        world, partial(_share_of_folder, config, world, fingerprint_of)
    )
    if share is None:
        return config
    batch_size, parts = share
    return config.model_copy(
        update={
            "dataset": config.dataset.model_copy(update={"batch_size": batch_size}),
            "optim": config.optim.model_copy(update={"accumulate": parts}),
        }
    )


def _share_of_folder(
    config: PretrainConfig, world: World, fingerprint_of: Callable[..., Fingerprint]
) -> tuple[int, int] | None:
    """(batch of a process, its parts) of the run in the folder; None where the config's own are right."""
    folder, own = config.output_dir, config.dataset.batch_size
    recorded = recorded_fingerprint(folder)
    joint = None if recorded is None else _read_joint_batch(folder / STATE / JOINT_BATCH, recorded)
    if recorded is None or joint is None or joint.batch_size != own or joint.num_processes == world.size:
        return None
    expected = fingerprint_of(config, num_processes=joint.num_processes)
    if expected.differences(replace(recorded, config=upgraded_identity(recorded.config))):
        return None
    shown = f"its joint batch of {joint.size} crops ({joint.num_processes} processes of {own} before)"
    batch = joint.size // world.size
    least = 2 if config.koleo.weight else 1  # a crop alone has no neighbour
    if joint.size % world.size or batch < least:
        raise UserError(
            f"{folder}: {world.size} processes cannot share {shown}; start a number of processes that divides it, or"
            " give another --output-dir"
        )
    most = own // config.optim.accumulate  # crops that a process's memory is meant to hold
    counts = [count for count in range(1, batch + 1) if batch % count == 0 and batch // count >= least]
    parts = next((count for count in counts if batch // count <= most), counts[-1])
    in_parts = f", in {parts} parts" if parts > 1 else ""
    log.info("%s: keeps %s: now %d of %d%s", folder, shown, world.size, batch, in_parts)
    return batch, parts


def _read_joint_batch(path: Path, recorded: Fingerprint) -> JointBatch | None:
    """From the state, or from a fingerprint of before, which named both numbers."""
    try:
        if path.exists():
            found = read_json(path)
            return JointBatch(int(found["num_processes"]), int(found["batch_size"]))
        return JointBatch(int(recorded.config["world_size"]), int(recorded.config["dataset"]["batch_size"]))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def with_local_side(config: PretrainConfig) -> PretrainConfig:
    """The config with a side of the local views that divides into patches, where the user set none."""
    views, patch_px = config.augmentation, config.model.patch_px
    if patch_px is None and config.model.arch in ARCHS:
        patch_px = ARCHS[config.model.arch].patch_px
    if patch_px is None or "local_px" in views.model_fields_set:
        return config
    side = math.ceil(views.local_px / patch_px) * patch_px
    if side == views.local_px:
        return config
    return config.model_copy(update={"augmentation": views.model_copy(update={"local_px": side})})


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
            num_heads=model.num_heads,
            num_registers=model.num_registers,
            layer_scale_init=model.layer_scale_init,
        )
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    sides = {"global_px": views.global_px} | ({"local_px": views.local_px} if views.num_local else {})
    problems = [
        f"augmentation.{name} = {side}: does not divide into patches of {arch.patch_px} px; next is"
        f" {max(1, round(side / arch.patch_px)) * arch.patch_px}"
        for name, side in sides.items()
        if side % arch.patch_px
    ]
    if config.algorithm == "ibot" and views.global_px // arch.patch_px < 2:
        problems.append(f"augmentation.global_px = {views.global_px}: is one patch, iBOT expects at least 2 x 2")
    if problems:
        raise UserError(problems)
    return arch


def _crops(config: PretrainConfig, stream: str, world: World) -> CropSet:
    """The crops of the run; every rank lists the same files, but what must be measured, rank 0 measures first."""
    find = partial(
        find_crops,
        config.train_dir,
        probe_crops=config.monitor.probe_crops,
        max_crops=config.dataset.max_crops,
        dataset=config.dataset,
        stream=None if stream == HANDS else stream,
        cache_dir=config.output_dir,
        mirrored=MIRRORED_IN_HANDS if stream == HANDS else (),
    )
    if config.dataset.min_sharpness and world.size > 1:
        with distributed.main_first(world):
            if world.is_main:
                find()
    return find()


def _clusters(config: PretrainConfig, stream: str, crops: CropSet, world: World) -> Ints | None:
    """Clusters of the training crops, the same on every rank; None where they are not balanced."""
    if not config.dataset.cluster_balance:
        return None
    return distributed.found_by_main(
        world, lambda: crop_clusters(crops.train, stream=stream, cache_dir=config.output_dir)
    )


def _distinct(crops: CropSet, world: World) -> int | None:
    """Training crops without near-duplicates, the same on every rank; None where all are distinct."""
    num_distinct = distributed.found_by_main(world, lambda: num_distinct_crops(crops.train))
    return num_distinct if num_distinct < len(crops.train) else None


def _threads() -> int:
    """Threads of this process: OMP_NUM_THREADS, unless torchrun set it to 1 because nobody else had set it."""
    set_by_user = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2": of nested loops too
    if set_by_user.isdigit() and number_of_environment("LOCAL_WORLD_SIZE", 1) == 1:
        return max(1, int(set_by_user))
    return available_cores()
