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
from types import TracebackType
from typing import Any, Protocol

from signstreams.config.load import flatten
from signstreams.engine.metrics import MetricsLog
from signstreams.engine.run_folder import Experiment
from signstreams.files import read_json, write_json

log = logging.getLogger(__name__)

TRACKER_FOLDERS = ("tensorboard", "wandb")  # folders that trackers write into the run's folder; archived with the run
STATE_FILE = "tracking.json"
"""In the run's state: per service, the project, the id that it gave this run, and the last step that it has."""
TIMEOUT_S = 60
MAX_REASON = 200

Numbers = dict[str, float]


class Tracker(Protocol):
    """A place that metrics are sent to; its constructor opens it."""

    def log(self, numbers: Numbers, step: int) -> None:
        """Send the numbers of one step; steps increase."""

    def close(self, *, is_done: bool) -> None:
        """Send what is left. ``is_done``: the run reached its end; it was neither stopped nor failed."""


class TrackedLog(MetricsLog):
    """The metrics log of a run, whose records also go to the trackers that the config names.

    ``config`` is that of the run, as plain values with sections ``tracking`` and ``experiment``; the log is the file
    ``name`` of the claimed folder's state. The run continues after ``step``; 0 starts an empty log.
    """

    def __init__(self, experiment: Experiment, name: str, config: dict[str, Any], step: int) -> None:
        super().__init__(experiment.state / name, after_step=step or None)
        wanted: dict[str, Callable[[], Tracker]] = {}
        if config["tracking"]["tensorboard"]:
            wanted["tensorboard"] = lambda: TensorBoard(experiment, step)
        if config["tracking"]["wandb"] is not None:
            wanted["wandb"] = lambda: WeightsAndBiases(experiment, config)
        self._trackers: dict[str, Tracker] = {}
        for service, start in wanted.items():
            with _errors_as_warning(service), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # libraries warn about their own dependencies while they load
                self._trackers[service] = start()

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


class TensorBoard:
    """Event files; a resumed run hides what was written after its checkpoint."""

    def __init__(self, experiment: Experiment, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = experiment.folder / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if folder.exists() else None)

    def log(self, numbers: Numbers, step: int) -> None:
        """One curve per key."""
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, *, is_done: bool) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a W&B project; its own files are in the run's folder.

    The run's state remembers the service's id and the last step that the service has: a run that resumes from its
    checkpoint continues there, and does not send the steps that it repeats, with the same numbers. In another project
    it is a new run.
    """

    def __init__(self, experiment: Experiment, config: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        project, about = config["tracking"]["wandb"], config["experiment"]
        self._state_file = experiment.state / STATE_FILE
        self._known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            self._known = dict(read_json(self._state_file)["wandb"])
        if self._known.get("place") != project:
            self._known = {"place": project, "run": None, "step": 0}
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
                id=self._known["run"] or secrets.token_hex(4),
                resume="allow",
                name=about["name"] or experiment.folder.name,
                tags=about["tags"],
                notes=about["notes"] or None,
                config=dict(flatten(config, {})),
                dir=str(experiment.folder),
                settings=wandb.Settings(**{key: value for key, value in settings.items() if key in known}),
            )
        self._remember(run=self._run.id)
        place = "" if self._run.offline else self._run.url
        log.info("wandb: run %s of %s, %s", self._run.id, project, place or "kept here until `wandb sync`")

    def log(self, numbers: Numbers, step: int) -> None:
        """One step of the run's history."""
        if step > self._known["step"]:
            self._run.log(numbers, step=step)
            self._remember(step=step)

    def close(self, *, is_done: bool) -> None:
        """Wait for the upload, at most `TIMEOUT_S`."""
        self._run.finish(exit_code=0 if is_done else 1)

    def _remember(self, **changes: Any) -> None:
        self._known |= changes
        write_json(self._state_file, {"wandb": self._known}, sync=False)


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
