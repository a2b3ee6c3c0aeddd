"""Further places for a run's metrics: TensorBoard, Weights & Biases, MLflow. All optional.

None of them may harm the run. What is not installed, not logged in, not reached or fails on the way says so in one
line and is left out from then on; the run draws the same random numbers as without it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from signstreams.config.load import flatten
from signstreams.engine.experiment import Experiment
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.settings import TrackingConfig
from signstreams.files import read_json, write_json

log = logging.getLogger(__name__)

FOLDERS = ("tensorboard", "wandb")
"""Of the run's folder; an archived run takes them along."""
STATE_FILE = "tracking.json"
"""In the run's state: what each service calls this run, so that a resumed one goes on there."""
TIMEOUT_S = 60
MAX_REASON = 200
MAX_PARAMS = 100  # that MLflow takes at once
MAX_PARAM_CHARS = 500

Numbers = dict[str, float]


class Sink(Protocol):
    """A place for metrics; its constructor opens it."""

    def log(self, numbers: Numbers, step: int) -> None:
        """Take the numbers of one step; steps rise."""

    def close(self, *, is_done: bool) -> None:
        """Send what is left. ``is_done``: the run came to its end, in place of being stopped or failing."""


@dataclass(frozen=True)
class RunInfo:
    """What a service shows of a run, and where the run stands.

    Attributes:
        folder: Of the run.
        state: Folder of what a resumed run needs.
        name: For people.
        step: That the run starts after.
        tags: Labels.
        notes: Free text.
        settings: Dotted key to value.
    """

    folder: Path
    state: Path
    name: str
    step: int
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


class TrackedLog(MetricsLog):
    """The metrics log of a run, whose records also go to the sinks that the config names.

    Args:
        experiment: Claimed folder.
        name: Of the log's file.
        config: Of the run, as plain values; with sections ``tracking`` and ``experiment``.
        step: That the run goes on after; 0 starts an empty log.
    """

    def __init__(self, experiment: Experiment, name: str, config: dict[str, Any], step: int) -> None:
        super().__init__(experiment.state / name, after_step=step or None)
        told = config["experiment"]
        run = RunInfo(
            experiment.folder,
            experiment.state,
            told["name"] or experiment.folder.name,
            step,
            told["tags"],
            told["notes"],
            dict(flatten(config, {})),
        )
        self._sinks = open_sinks(TrackingConfig.model_validate(config["tracking"]), run)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for name, sink in self._sinks.items():
            with _softly(name):
                sink.close(is_done=kind is None)
        self._sinks = {}
        super().__exit__(kind, error, tb)

    def log(self, record: Mapping[str, float | int | str | None], step: int) -> None:
        """As of the base class; texts and numbers that are not finite stay in the file alone."""
        super().log(record, step)
        numbers = {
            key: float(value)
            for key, value in record.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        for name, sink in list(self._sinks.items()):
            with _softly(name) as failure:
                sink.log(numbers, step)
            if failure:
                del self._sinks[name]


def open_sinks(config: TrackingConfig, run: RunInfo) -> dict[str, Sink]:
    """Name to sink, of those that are wanted and answer."""
    wanted: dict[str, Callable[[], Sink]] = {}
    if config.tensorboard:
        wanted["tensorboard"] = lambda: TensorBoard(run)
    if (project := config.wandb) is not None:
        wanted["wandb"] = lambda: WeightsAndBiases(run, project)
    if (experiment := config.mlflow) is not None:
        wanted["mlflow"] = lambda: MLflow(run, experiment)
    sinks = {}
    for name, start in wanted.items():
        with _softly(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library has to say of its own parts while it loads
            sinks[name] = start()
    return sinks


class TensorBoard:
    """Event files; a resumed run hides what was written after its checkpoint."""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=run.step + 1 if folder.exists() else None)

    def log(self, numbers: Numbers, step: int) -> None:
        """A curve a key."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, *, is_done: bool) -> None:
        """Nothing but the file to close."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a W&B project; files of its own below the run's folder."""

    def __init__(self, run: RunInfo, project: str) -> None:
        for key, value in {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}.items():
            os.environ.setdefault(key, value)
        import wandb

        self._memory = _Memory(run, "wandb", project)
        wished = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "init_timeout": TIMEOUT_S,
            "finish_timeout": TIMEOUT_S,
        }
        known = getattr(wandb.Settings, "model_fields", wished)  # releases differ
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
                settings=wandb.Settings(**{key: value for key, value in wished.items() if key in known}),
            )
        self._memory.remember_run(self._run.id)
        place = "" if self._run.offline else self._run.url
        log.info("wandb: run %s of %s, %s", self._run.id, project, place or "kept here until `wandb sync`")

    def log(self, numbers: Numbers, step: int) -> None:
        """One step of the run's history."""
        if self._memory.is_new(step):
            self._run.log(numbers, step=step)
            self._memory.remember(step)

    def close(self, *, is_done: bool) -> None:
        """Wait for the upload, at most `TIMEOUT_S`."""
        self._run.finish(exit_code=0 if is_done else 1)


class MLflow:
    """A run of an MLflow experiment, through its client: no global state, nothing printed."""

    def __init__(self, run: RunInfo, experiment: str) -> None:
        for key, value in {
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        }.items():
            os.environ.setdefault(key, value)
        import mlflow

        self._mlflow = mlflow
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells each table of a new database
        self._client = mlflow.MlflowClient()
        self._memory = _Memory(run, "mlflow", f"{experiment} at {self._client.tracking_uri.rpartition('@')[2]}")
        if self._memory.run_id is None:
            tags = {"tags": ", ".join(run.tags), "mlflow.note.content": run.notes}
            created = self._client.create_run(
                self._experiment_id(experiment), run_name=run.name, tags={k: v for k, v in tags.items() if v}
            )
            self._memory.remember_run(created.info.run_id)
            params = [mlflow.entities.Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in run.settings.items()]
            for start in range(0, len(params), MAX_PARAMS):
                self._client.log_batch(self._memory.run_id, params=params[start : start + MAX_PARAMS])
        else:
            self._client.update_run(self._memory.run_id, status="RUNNING")

    def log(self, numbers: Numbers, step: int) -> None:
        """All numbers of a step at once."""
        if self._memory.is_new(step):
            now_ms = round(time.time() * 1000)
            metrics = [self._mlflow.entities.Metric(key, value, now_ms, step) for key, value in numbers.items()]
            self._client.log_batch(self._memory.run_id, metrics=metrics)
            self._memory.remember(step)

    def close(self, *, is_done: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._memory.run_id, "FINISHED" if is_done else "KILLED")

    def _experiment_id(self, name: str) -> str:
        if (found := self._client.get_experiment_by_name(name)) is None:
            with contextlib.suppress(self._mlflow.exceptions.MlflowException):  # a run beside this one was faster
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)


class _Memory:
    """What a service calls this run, and the last step it has: kept in the run's state.

    A run that goes on from its checkpoint repeats some steps, with the same numbers, which the service need not have
    twice. At another ``place`` (project, server) it is a new run.
    """

    def __init__(self, run: RunInfo, service: str, place: str) -> None:
        self._path, self._service = run.state / STATE_FILE, service
        known = self._read().get(service, {})
        new: dict[str, Any] = {"place": place, "run": None, "step": 0}
        self._entry: dict[str, Any] = known if known.get("place") == place else new

    @property
    def run_id(self) -> str | None:
        """None for a run that the service has never heard of."""
        run_id: str | None = self._entry["run"]
        return run_id

    def is_new(self, step: int) -> bool:
        """Whether the service lacks this step."""
        return step > int(self._entry["step"])

    def remember_run(self, run_id: str) -> None:
        """Note what the service calls the run."""
        self._entry["run"] = run_id
        self._write()

    def remember(self, step: int) -> None:
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
def _softly(name: str) -> Iterator[list[Exception]]:
    """One warning in place of an error, which is listed; Python's random generator stays as it was."""
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
    """Standard input closed: who is not logged in gets an error in place of a menu that holds the run."""
    kept = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = kept
