"""The training loop that all stages share: resuming, stopping, checkpoints, metrics.

A `Stage` gives what differs: its step, what it measures, which state is the best, and what a checkpoint holds.
`TrainingRun` does the rest: it claims the folder, finds the state to resume from, drives the steps, logs metrics and
progress, writes checkpoints when they are due, and ends early in good order. Rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, NoReturn, Protocol, Self, TypeVar

import torch

from signstreams.engine import checkpoint, distributed
from signstreams.engine.distributed import World
from signstreams.engine.run_folder import (
    MAX_DIFFERENCES_SHOWN,
    Experiment,
    Fingerprint,
    OnConflict,
    Upgrade,
    as_recorded,
)
from signstreams.engine.trackers import TRACKER_FOLDERS, TrackedLog
from signstreams.errors import UserError
from signstreams.files import write_json
from signstreams.formats.layout import STATE
from signstreams.processes import StopRequest
from signstreams.progress import Progress

log = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")
State = dict[str, Any]
Record = dict[str, float] | dict[str, float | int | str | None]

RESUME_MODES = ("auto", "never", "must")
CHECKPOINT_EVERY_S = 300.0
"""Seconds after which a checkpoint is due, however few steps were done: what a crash can cost."""
MAX_BAD_LOSSES = 3
"""Losses in a row that are not finite and end the run; a single one, of an odd batch, changes no weight."""
STOP_CHECK_STEPS, STOP_CHECK_S = 10, 5.0
"""Steps and seconds, at most, after which several processes agree again whether to stop; a single one stops at once."""
SIGNAL_LAG_S = 1.0  # A loader process may be seen to end this long before the signal that ended it arrives here


class Stage(ABC, Generic[BatchT]):
    """What one stage's training gives to its run."""

    label: str  # what the progress line says is being done
    total_steps: int  # steps of the whole run
    checkpoint_steps: int  # largest number of steps between two checkpoints
    shown: dict[str, float | int | str]  # the few numbers worth watching on the progress line

    @property
    @abstractmethod
    def step(self) -> int:
        """Optimiser steps done."""

    @property
    def is_over(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.total_steps

    @abstractmethod
    def batches(self) -> Generator[BatchT, None, None]:
        """This process's batches of all steps to come; closed where the run ends early."""

    @abstractmethod
    def train_step(self, batch: BatchT) -> None:
        """One optimiser step. It must not wait for the device where it need not."""

    @abstractmethod
    def measure(self) -> Iterator[Record]:
        """Lines of metrics that are due after a step, often none; every process iterates over them.

        The stage also evaluates here, saves a better state as the best (`TrainingRun.save_best`), and raises a
        `UserError` when it makes no sense to continue.
        """

    @abstractmethod
    def state_dict(self) -> State:
        """Content of a checkpoint. Where states of other folders are resumed from, ``best`` tells of the best one."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """Continue from the content of a checkpoint."""

    @staticmethod
    @abstractmethod
    def step_of(state: State) -> int:
        """Steps done in the content of a checkpoint."""


class RunConfig(Protocol):
    """What a run needs of a stage's config; sections `experiment` and `tracking` are read from the dump."""

    @property
    def output_dir(self) -> Path: ...
    @property
    def resume(self) -> str: ...
    @property
    def on_conflict(self) -> OnConflict: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class RunFiles(NamedTuple):
    """Names of the checkpoint to resume from, that of the best state, the metrics, and all others in the folder."""

    last: str
    best: str
    metrics: str
    others: list[str]


class TrainingRun:
    """A training in a claimed folder; leave its ``with`` block to let the next run in.

    ``upgrade`` reads the fingerprints that earlier versions recorded, in folders and in checkpoints.

    Raises:
        UserError: The folder is in use or holds another experiment, there is nothing to resume although there must be,
            or the checkpoint given by path does not belong to this experiment.
    """

    def __init__(
        self,
        config: RunConfig,
        world: World,
        fingerprint: Fingerprint,
        files: RunFiles,
        *,
        upgrade: Upgrade = as_recorded,
    ) -> None:
        self.config, self.world, self.fingerprint, self.files = config, world, fingerprint, files
        self._upgrade = upgrade
        self._given = None if config.resume in RESUME_MODES else Path(config.resume)
        self._given_state = None if self._given is None else self._load(self._given)  # before the folder is touched
        self.experiment: Experiment | None = None  # of rank 0
        with distributed.main_first(world):
            if world.is_main:
                self.experiment = self._claim()
        self._saved_step: int | None = None
        self._saved_s = time.monotonic()
        self._next_stop_check = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                distributed.barrier()  # rank 0 may still write artifacts
        finally:
            if self.experiment is not None:
                self.experiment.close()

    def write_params(self, params: dict[str, Any], name: str) -> None:
        """Write what the run was started with, before anything that can fail."""
        with distributed.main_first(self.world):
            if self.experiment is not None:
                write_json(self.experiment.folder / name, params)

    def resume(self, stage: Stage[Any]) -> bool:
        """Load the state that the run continues from; False where there is none.

        The folder's own state and one given by path are of one experiment; the one that is further is taken, so that a
        run that was given a checkpoint, was stopped, and is started by the same command again continues from its own.
        A given state becomes the folder's own; the best one so far stays in the folder it came from.

        Raises:
            UserError: The checkpoint is broken, and so is the one before it.
        """
        path: Path | None = None
        if self.experiment is not None and (self.experiment.state / self.files.last).exists():
            path = self.experiment.state / self.files.last
        path = distributed.from_main(path)  # each process reads the file itself: it is shared, as the data are
        own = None if path is None else self._load(path, is_own=True)
        given, self._given_state = self._given_state, None
        if given is None or (own is not None and stage.step_of(own) >= stage.step_of(given)):
            if own is not None:
                stage.load_state_dict(own)
            return own is not None
        folder = self.config.output_dir.resolve()
        if self._given is not None and self._given.resolve().parent not in (folder, folder / STATE):
            given["best"] = None
        stage.load_state_dict(given)
        self.save_last(stage)
        return True

    def train(self, stage: Stage[Any], stop: StopRequest) -> None:
        """Train from the stage's step to the last.

        Raises:
            UserError: Several losses in a row were not finite, the stage gave up, or a loader process died.
            SystemExit: A signal asked the run to stop, with its exit code; the checkpoint is written.
        """
        folder = self.config.output_dir
        if stage.is_over:
            log.info("%s: all %d steps are done already", folder, stage.step)
            return
        if stop and self.world.size == 1:
            self._leave(stage, stop)
        if stage.step:
            log.info("%s: going on from step %d of %d", folder, stage.step, stage.total_steps)
        self._next_stop_check = stage.step
        with contextlib.ExitStack() as stack:
            metrics = progress = None
            if self.experiment is not None:
                settings = self.config.model_dump(mode="json")
                metrics = stack.enter_context(TrackedLog(self.experiment, self.files.metrics, settings, stage.step))
                self.experiment.publish(self.files.metrics)
                progress = stack.enter_context(Progress(stage.total_steps, "steps", stage.label))
                progress.skip(stage.step)
            batches = stack.enter_context(contextlib.closing(stage.batches()))
            started_s = time.perf_counter()
            for batch in self._unless_stopped(stage, batches, stop):
                stage.train_step(batch)
                self._after_step(stage, metrics, progress)
                ended_s = time.perf_counter()
                self._leave_if_asked(stage, stop, ended_s - started_s)
                started_s = ended_s

    def check_losses(self, num_bad: int, step: int, hint: str) -> None:
        """End a run with `MAX_BAD_LOSSES` losses in a row that were not finite; ``hint``: settings to change."""
        if num_bad >= MAX_BAD_LOSSES:
            raise UserError(
                f"{self.config.output_dir}: {num_bad} losses in a row were not finite, by step {step}; {hint}, in a new"
                " --output-dir"
            )

    def save_best(self, make_state: Callable[[], State]) -> None:
        """Write the checkpoint of the best state."""
        self._save(self.files.best, make_state)

    def save_last(self, stage: Stage[Any]) -> None:
        """Write the checkpoint to resume from, unless that of this step is written already."""
        if stage.step != self._saved_step:
            self._save(self.files.last, stage.state_dict, keep_previous=True)
            self._saved_step, self._saved_s = stage.step, time.monotonic()

    def publish(self, stage: Stage[Any]) -> None:
        """Show checkpoints and metrics in the folder: Snakemake deletes them there before it starts a job again.

        A stage that had nothing to choose by has its last state as the best.
        """
        if self.experiment is not None:
            if not (self.experiment.state / self.files.best).exists():
                self.save_best(stage.state_dict)
            (self.experiment.state / self.files.metrics).touch()  # a finished state of another folder brings none
            for name in (self.files.last, self.files.best, self.files.metrics):
                self.experiment.publish(name)

    def _claim(self) -> Experiment:
        config, files = self.config, self.files
        experiment = Experiment(
            config.output_dir,
            self.fingerprint,
            files=list(dict.fromkeys([files.last, files.best, files.metrics, *files.others, *TRACKER_FOLDERS])),
            on_conflict=config.on_conflict,
            restart=config.resume == "never" and not distributed.is_restart(),  # torchrun's restart is the same run
            upgrade=self._upgrade,
        )
        if config.resume == "must" and not (experiment.state / files.last).exists():
            experiment.close()
            raise UserError(
                f"{config.output_dir}: --resume must, but there is no checkpoint to resume from; use --resume auto"
            )
        return experiment

    def _load(self, path: Path, *, is_own: bool = False) -> State:
        """Content of a checkpoint of this very experiment; if the folder's own is broken, of the one before it.

        Raises:
            UserError: It is absent, broken, no checkpoint of a training, or another experiment's.
        """
        try:
            state: State = checkpoint.load_latest(path) if is_own else checkpoint.load(path)
            if is_own and "fingerprint" not in state:  # a stage that never resumes from a given checkpoint
                return state
            found = Fingerprint(self._upgrade(state["fingerprint"]["config"]), state["fingerprint"]["data"])
        except FileNotFoundError:
            raise UserError(f"--resume {path}: no such file, expected auto, never, must or a checkpoint") from None
        except ValueError as error:
            raise UserError(f"{error}; start from scratch with --resume never --on-conflict archive") from None
        except (KeyError, TypeError):
            raise UserError(f"{path}: holds no training state; give a checkpoint_last.pt, not a backbone.pt") from None
        if differences := self.fingerprint.differences(found):
            shown = "; ".join(differences[:MAX_DIFFERENCES_SHOWN])
            raise UserError(f"{path}: is of another experiment: {shown}; start without --resume")
        return state

    def _after_step(self, stage: Stage[Any], metrics: TrackedLog | None, progress: Progress | None) -> None:
        for record in stage.measure():
            if metrics is not None:
                metrics.log(record, stage.step)
        if progress is not None:
            progress.advance(1, **stage.shown)
        is_late = self.world.is_main and time.monotonic() - self._saved_s >= CHECKPOINT_EVERY_S
        if stage.is_over or stage.step % stage.checkpoint_steps == 0 or is_late:
            self.save_last(stage)

    def _save(self, name: str, make_state: Callable[[], State], *, keep_previous: bool = False) -> None:
        if self.experiment is not None:
            checkpoint.save(self.experiment.state / name, make_state(), keep_previous=keep_previous)
            self.experiment.publish(name)

    def _leave_if_asked(self, stage: Stage[Any], stop: StopRequest, step_s: float) -> None:
        """Several processes agree to stop, every `STOP_CHECK_S` at least: the slowest one's step sets how often."""
        is_asked = bool(stop)
        if self.world.size > 1:
            if stage.step < self._next_stop_check:
                return
            mine = torch.tensor([float(is_asked), step_s], device=self.world.device)
            is_asked, slowest_s = distributed.all_reduce_max(mine).tolist()
            self._next_stop_check = stage.step + max(1, min(STOP_CHECK_STEPS, int(STOP_CHECK_S / slowest_s)))
        if is_asked and not stage.is_over:
            try:
                self._leave(stage, stop)
            finally:  # the first that ended would end the others, and rank 0's saving (srun --kill-on-bad-exit)
                distributed.barrier()

    def _leave(self, stage: Stage[Any], stop: StopRequest) -> NoReturn:
        if stage.step:  # nothing is lost before the first
            self.save_last(stage)
        how = " with --resume auto" if self.config.resume == "never" else ""
        log.warning("asked to stop at step %d of %d; run again%s to go on", stage.step, stage.total_steps, how)
        raise SystemExit(stop.exit_code)

    def _unless_stopped(self, stage: Stage[Any], batches: Iterator[BatchT], stop: StopRequest) -> Iterator[BatchT]:
        """The batches; a signal to the whole process group also ends loader processes, which then is no error."""
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                time.sleep(SIGNAL_LAG_S)
                if stop:
                    self._leave(stage, stop)
                raise UserError(
                    f"{self.config.output_dir}: a loader process was ended from outside, most likely for lack of memory"
                    f" ({' '.join(str(error).split())[:160]}); lower --dataset-num-workers and run again to go on"
                ) from error
            yield batch
