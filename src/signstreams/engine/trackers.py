"""Optional trackers of a run's metrics: TensorBoard and Weights & Biases.

A tracker can never harm the run. If it is not installed, not logged in, unreachable, or fails along the way, one
warning says so and it is dropped; the run draws the same random numbers with and without it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from signstreams.config.load import flatten
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.run_folder import Experiment
from signstreams.engine.settings import TrackingConfig
from signstreams.files import read_json, write_json

log = logging.getLogger(__name__)

TRACKER_FOLDERS = ("tensorboard", "wandb")  # folders that trackers write into the run's folder; archived with the run
STATE_FILE = "tracking.json"
"""In the run's state: the id that each service gave this run, with which a resumed run continues there."""
TIMEOUT_S = 60
MAX_REASON = 200

Numbers = dict[str, float]


class Tracker(Protocol):
    """A place that metrics are sent to; its constructor opens it."""

    def log(self, numbers: Numbers, step: int) -> None:
        """Send the numbers of one step; steps increase."""

    def close(self, *, is_done: bool) -> None:
        """Send what is left. ``is_done``: the run reached its end; it was neither stopped nor failed."""


@dataclass(frozen=True)
class RunInfo:
    """What a tracker shows of a run, and where the run stands."""

    folder: Path  # folder of the run
    state: Path  # folder of the files that a resumed run needs
    name: str  # Name of the run, for people
    step: int  # step after which this process continues; 0 at the start
    tags: list[str] = field(default_factory=list)  # labels
    notes: str = ""  # free text
    settings: dict[str, Any] = field(default_factory=dict)  # dotted key to value


class TrackedLog(MetricsLog):
    """The metrics log of a run, whose records also go to the trackers that the config names.

    Args:
        experiment: Claimed folder.
        name: File name of the log.
        config: Config of the run as plain values, with sections ``tracking`` and ``experiment``.
        step: Step after which the run continues; 0 starts an empty log.
    """

    def __init__(self, experiment: Experiment, name: str, config: dict[str, Any], step: int) -> None:
        super().__init__(experiment.state / name, after_step=step or None)
        about = config["experiment"]
        run = RunInfo(
            experiment.folder,
            experiment.state,
            about["name"] or experiment.folder.name,
            step,
            about["tags"],
            about["notes"],
            dict(flatten(config, {})),
        )
        self._trackers = open_trackers(TrackingConfig.model_validate(config["tracking"]), run)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for name, tracker in self._trackers.items():
            with _errors_as_warning(name):
                tracker.close(is_done=kind is None)
        self._trackers = {}
        super().__exit__(kind, error, tb)

    def log(self, record: Mapping[str, float | int | str | None], step: int) -> None:
        """As in the base class; trackers get only the finite numbers."""
        super().log(record, step)
        numbers = {
            key: float(value)
            for key, value in record.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        for name, tracker in list(self._trackers.items()):
            with _errors_as_warning(name) as failure:
                tracker.log(numbers, step)
            if failure:
                del self._trackers[name]


def open_trackers(config: TrackingConfig, run: RunInfo) -> dict[str, Tracker]:
    """Name to tracker, of those that are configured and could be opened."""
    wanted: dict[str, Callable[[], Tracker]] = {}
    if config.tensorboard:
        wanted["tensorboard"] = lambda: TensorBoard(run)
    if (project := config.wandb) is not None:
        wanted["wandb"] = lambda: WeightsAndBiases(run, project)
    trackers = {}
    for name, start in wanted.items():
        with _errors_as_warning(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries warn about their own dependencies while they load
            trackers[name] = start()
    return trackers


class TensorBoard:
    """Event files; a resumed run hides what was written after its checkpoint."""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.step + 1 if folder.exists() else None)

    def log(self, numbers: Numbers, step: int) -> None:
        """One curve per key."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, *, is_done: bool) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a W&B project; its own files are in the run's folder."""

    def __init__(self, run: RunInfo, project: str) -> None:
        for key, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
            os.environ.setdefault(key, value)
        import wandb

        self._memory = _Memory(run, "wandb", project)
        settings = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "init_timeout": TIMEOUT_S,
            "finish_timeout": TIMEOUT_S,
        }
        known = getattr(wandb.Settings, "model_fields", settings)  # releases differ
        with _without_questions():
            self._run = wandb.init(
                project=project,
                id=self._memory.run_id or secrets.token_hex(4),
                resume="allow",
                name=run.name,
                tags=run.tags,
                notes=run.notes or None,
                config=run.settings,
                dir=str(run.folder),
                settings=wandb.Settings(**{key: value for key, value in settings.items() if key in known}),
            )
        self._memory.remember_run(self._run.id)
        place = "" if self._run.offline else self._run.url
        log.info("wandb: run %s of %s, %s", self._run.id, project, place or "kept here until `wandb sync`")

    def log(self, numbers: Numbers, step: int) -> None:
        """One step of the run's history."""
        if self._memory.is_new(step):
            self._run.log(numbers, step=step)
            self._memory.remember_step(step)

    def close(self, *, is_done: bool) -> None:
        """Wait for the upload, at most `TIMEOUT_S`."""
        self._run.finish(exit_code=0 if is_done else 1)


class _Memory:
    """A service's id of this run and the last step it has received; kept in the run's state.

    A run that resumes from its checkpoint repeats some steps, with the same numbers; the service does not get those
    twice. In another ``place`` (project) it is a new run.
    """

    def __init__(self, run: RunInfo, service: str, place: str) -> None:
        self._path, self._service = run.state / STATE_FILE, service
        known = self._read().get(service, {})
        new: dict[str, Any] = {"place": place, "run": None, "step": 0}
        self._entry: dict[str, Any] = known if known.get("place") == place else new

    @property
    def run_id(self) -> str | None:
        """None for a run that the service does not know yet."""
        run_id: str | None = self._entry["run"]
        return run_id

    def is_new(self, step: int) -> bool:
        """Whether the service lacks this step."""
        return step > int(self._entry["step"])

    def remember_run(self, run_id: str) -> None:
        """Note the service's id of the run."""
        self._entry["run"] = run_id
        self._write()

    def remember_step(self, step: int) -> None:
        """Note that the service has this step."""
        self._entry["step"] = step
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            return dict(read_json(self._path))
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self) -> None:
        write_json(self._path, {**self._read(), self._service: self._entry}, sync=False)


@contextlib.contextmanager
def _errors_as_warning(name: str) -> Iterator[list[Exception]]:
    """Turn an error into one warning and put it into the list; restore Python's random state afterwards."""
    failure: list[Exception] = []
    state = random.getstate()
    try:
        yield failure
    except Exception as error:
        failure.append(error)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_REASON]}"
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == name:
            reason = f"not installed, pip install {name}"
        log.warning("%s gets no metrics (%s); training goes on, metrics.jsonl has them all", name, reason)
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _without_questions() -> Iterator[None]:
    """Close standard input: without a login there is an error instead of a menu that blocks the run."""
    kept = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = kept
