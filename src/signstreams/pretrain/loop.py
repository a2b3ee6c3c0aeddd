"""The training loop: batches to steps, metrics and checkpoints on the way, and how it ends early."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from signstreams.engine import checkpoint, distributed
from signstreams.engine.distributed import World
from signstreams.engine.experiment import STATE, Experiment, Fingerprint
from signstreams.engine.interrupt import StopRequest
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.trackers import TrackedLog
from signstreams.errors import UserError
from signstreams.pretrain.data import CropSet, ViewLoader, load_whole, spread
from signstreams.pretrain.health import CollapseWatch
from signstreams.pretrain.knn import read_probe_labels
from signstreams.pretrain.sampler import BatchPlan
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer
from signstreams.progress import Progress

log = logging.getLogger(__name__)

Views = tuple[torch.Tensor, torch.Tensor]

HEALTH = "probe/assignment_information"
"""Score that chooses the best checkpoint, higher is better; why not RankMe: `signstreams.pretrain.health`."""
KNN = "probe/knn"
"""In its place where labels are known."""
HEAD_CROPS = 512
"""Crops that the head's first weights are fitted to."""
STOP_CHECK_STEPS, STOP_CHECK_S = 10, 5.0
"""Steps and seconds, at most, between two times that several processes agree on a stop; one alone stops at once."""
SIGNAL_LAG_S = 1.0


class Loop:
    """Drives a `Trainer` to its last step.

    Args:
        experiment: Claimed folder; None on every rank but 0, which write nothing.
    """

    def __init__(
        self,
        config: PretrainConfig,
        stream: str,
        trainer: Trainer,
        crops: CropSet,
        plan: BatchPlan,
        world: World,
        experiment: Experiment | None,
        fingerprint: Fingerprint,
    ) -> None:
        self.config, self.stream, self.trainer, self.world = config, stream, trainer, world
        self.crops, self.plan = crops, plan
        self.experiment, self.fingerprint = experiment, fingerprint
        choices = trainer.choices
        self.total_steps, self.epoch_steps = choices.total_steps, choices.epoch_steps
        patches = trainer.patches
        self.watch = CollapseWatch(
            choices.num_prototypes,
            choices.head_only_steps + choices.warmup_steps,
            choices.total_steps,
            None if patches is None else patches.choices.num_prototypes,
            monitor=config.monitor,
            rows=2 * config.dataset.batch_size * world.size * config.monitor.log_every_steps,
        )
        self.known = None
        if config.monitor.labels is not None:
            self.known = read_probe_labels(config.monitor.labels, crops.probe)
        self.health = HEALTH if self.known is None else KNN
        self.best: dict[str, Any] | None = None
        self._times = {"data": 0.0, "step": 0.0}
        self._times_since = trainer.step
        self._last_save_s = time.monotonic()
        self._next_stop_check = trainer.step

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trainer.load_state_dict(state["trainer"])
        self.watch.load_state_dict(state["watch"])
        self.best = state["best"]
        if self.best is not None and self.best["by"] != self.health:
            self.best = None  # scores of two kinds cannot be compared
        self._times_since = self.trainer.step

    def adopt(self, given: Path) -> None:
        """Make the state of a given checkpoint this folder's own; the best so far of another folder stays there."""
        folder = self.config.output_dir.resolve()
        if given.resolve().parent not in (folder, folder / STATE):
            self.best = None
        self._save(self.config.checkpointing.last_name)

    def run(self, stop: StopRequest) -> None:
        """Train from the trainer's step to the last.

        Raises:
            UserError: Some losses in a row were not finite, or the teacher collapsed.
            SystemExit: With the exit code of ``stop``, when asked to stop by signal; the checkpoint is written.
        """
        trainer = self.trainer
        if trainer.step >= self.total_steps:
            log.info("%s: all %d steps are done already", self.config.output_dir, self.total_steps)
            return
        if stop and self.world.size == 1:
            self._leave(stop)
        loader = ViewLoader(self.config, self.crops.train, self.plan, self.world)
        side_px = self.config.augmentation.global_px
        probe = load_whole(self.crops.probe, side_px) if self.crops.probe else None
        has_norm = trainer.choices.batch_norm
        if trainer.step == 0 and self.config.dino.standardize_head and not has_norm and len(self.crops.train) > 1:
            some = spread(len(self.crops.train), min(HEAD_CROPS, len(self.crops.train)))
            trainer.standardize_head(load_whole([self.crops.train[i] for i in some], side_px))
        if trainer.step:
            log.info("%s: going on from step %d of %d", self.config.output_dir, trainer.step, self.total_steps)
        with self._history() as history, self._progress() as progress:
            while trainer.step < self.total_steps:
                epoch_end = min(self.total_steps, (trainer.step // self.epoch_steps + 1) * self.epoch_steps)
                asked_s = time.perf_counter()
                for views in self._unless_stopped(loader.steps(trainer.step, epoch_end), stop):
                    got_s = time.perf_counter()
                    trainer.train_step(*views)
                    self._after_step(history, progress, probe)
                    done_s = time.perf_counter()
                    self._times["data"] += got_s - asked_s
                    self._times["step"] += done_s - got_s
                    self._leave_if_asked(stop, done_s - asked_s)
                    asked_s = done_s

    def _after_step(self, history: MetricsLog | None, progress: Progress | None, probe: torch.Tensor | None) -> None:
        step, monitor = self.trainer.step, self.config.monitor
        is_last = step == self.total_steps
        record: dict[str, float] = {}
        if step % monitor.log_every_steps == 0 or is_last:
            record |= self._read_meters()
        if probe is not None and (step % monitor.probe_every_steps == 0 or is_last):
            record |= self.trainer.probe(probe, self.known)
        if record and history is not None:
            history.log(record, step)
        if monitor.stop_on_collapse and record and (diagnosis := self.watch.judge(record, step)):
            raise UserError(
                f"{self.config.output_dir}: {diagnosis}, in a new --output-dir (limits: monitor.collapse_*)"
            )
        health = record.get(self.health, math.nan)
        if math.isfinite(health) and (self.best is None or health > self.best["score"]):
            self.best = {"score": health, "step": float(step), "by": self.health}
            self._save(self.config.checkpointing.best_name)
        if progress is not None:
            progress.advance(1, **_shown(record))
        saving = self.config.checkpointing
        if (
            is_last
            or step % saving.every_steps == 0
            or (self.world.is_main and time.monotonic() - self._last_save_s >= saving.every_s)
        ):
            self._save(saving.last_name)

    def _read_meters(self) -> dict[str, float]:
        trainer = self.trainer
        record = trainer.meters.read()
        steps = max(1, trainer.step - self._times_since)
        self._times_since = trainer.step
        scheduled = trainer.scheduled(trainer.step - 1)
        record |= {
            "teacher/distance": trainer.teacher_distance(),
            "teacher/centre_norm": float(trainer.centre.value.norm()),
            **{f"schedule/{name}": value for name, value in scheduled.items()},
            "time/step_s": self._times["step"] / steps,
            "time/data_s": self._times["data"] / steps,
            "epoch": trainer.step / self.epoch_steps,
        }
        if trainer.patches is not None:
            record["patch/centre_norm"] = float(trainer.patches.centre.value.norm())
        if self.world.device.type == "cuda":
            record["mem/peak_gib"] = torch.cuda.max_memory_allocated(self.world.device) / 2**30
        self._times = dict.fromkeys(self._times, 0.0)
        if (bad := trainer.meters.num_bad_in_a_row()) >= self.config.monitor.max_bad_in_a_row:
            raise UserError(
                f"{self.config.output_dir}: {bad} losses in a row were not finite, by step {trainer.step};"
                " lower --learning-rate, raise --koleo-epsilon, or use --optim-precision fp32, in a new --output-dir"
            )
        return record

    def _save(self, name: str) -> None:
        if self.experiment is None:
            return
        is_last = name == self.config.checkpointing.last_name
        checkpoint.save(self.experiment.state / name, self.state_dict(), keep_previous=is_last)
        self.experiment.publish(name)
        if is_last:  # what a run goes on from
            self._last_save_s = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; no generators, since seeds are derived from steps."""
        return {
            "trainer": self.trainer.state_dict(),
            "fingerprint": {"config": self.fingerprint.config, "data": self.fingerprint.data},
            "watch": self.watch.state_dict(),
            "best": self.best,
        }

    def _leave_if_asked(self, stop: StopRequest, step_s: float) -> None:
        """Several processes agree on leaving, every `STOP_CHECK_S` at least: the slowest one's step sets how often."""
        is_asked = bool(stop)
        if self.world.size > 1:
            if self.trainer.step < self._next_stop_check:
                return
            said = torch.tensor([float(is_asked), step_s], device=self.world.device)
            is_asked, slowest_s = distributed.all_reduce_max(said).tolist()
            self._next_stop_check = self.trainer.step + max(1, min(STOP_CHECK_STEPS, int(STOP_CHECK_S / slowest_s)))
        if is_asked and self.trainer.step < self.total_steps:
            try:
                self._leave(stop)
            finally:  # the first that ended would end the others, and rank 0's saving (srun --kill-on-bad-exit)
                distributed.barrier()

    def _unless_stopped(self, batches: Iterator[Views], stop: StopRequest) -> Iterator[Views]:
        """The batches; a signal to the whole process group also ends the loader's processes, which is no error then."""
        while True:
            try:
                views = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                time.sleep(SIGNAL_LAG_S)  # the loader's end may be seen before the signal is
                if stop:
                    self._leave(stop)
                raise UserError(
                    f"{self.config.output_dir}: a loader process was ended from outside, most likely for want of memory"
                    f" ({' '.join(str(error).split())[:160]}); lower --dataset-num-workers and run again to go on"
                ) from error
            yield views

    def _leave(self, stop: StopRequest) -> NoReturn:
        trainer = self.trainer
        if trainer.step:  # nothing is lost before the first
            self._save(self.config.checkpointing.last_name)
        how = " with --resume auto" if self.config.resume == "never" else ""
        log.warning("asked to stop at step %d of %d; run again%s to go on", trainer.step, self.total_steps, how)
        raise SystemExit(stop.exit_code)

    def _history(self) -> MetricsLog | _Nothing:
        if self.experiment is None:
            return _Nothing()
        name = self.config.checkpointing.history_file
        history = TrackedLog(self.experiment, name, self.config.model_dump(mode="json"), self.trainer.step)
        self.experiment.publish(name)
        return history

    def _progress(self) -> Progress | _Nothing:
        if self.experiment is None:
            return _Nothing()
        progress = Progress(self.total_steps, "steps", f"pretrain {self.stream}")
        progress.skip(self.trainer.step)
        return progress


def _shown(record: dict[str, float]) -> dict[str, float | str]:
    """The few numbers worth watching, of a record that has them."""
    shown: dict[str, float | str] = {}
    if "train/loss" in record:
        waited_s, worked_s = record["time/data_s"], record["time/step_s"]
        shown["loss"] = record["train/loss"]
        shown["data wait"] = f"{waited_s / max(waited_s + worked_s, 1e-9):.0%}"
    for key, name in ((KNN, "k-NN"), ("probe/rankme", "RankMe")):
        if key in record:
            shown[name] = record[key]
            break
    return shown


class _Nothing:
    """What ranks that stay silent enter in place of a log: None."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
