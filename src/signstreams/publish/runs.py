"""Read a finished or running run from its folder, or from its log alone: name, tags, settings, logged values."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from signstreams.config.load import flatten, suggest
from signstreams.engine.metrics import read_metrics
from signstreams.engine.run_folder import FINGERPRINT
from signstreams.errors import UserError
from signstreams.files import read_json
from signstreams.formats.layout import METRICS, PRETRAINING_FILES, PREVIOUS, STATE, TRAINING_FILES
from signstreams.ids import printable

MAX_FOLDERS_NAMED = 4
FACTS = ("stream", "data_digest", "train_crops", "world_size", "commit")
"""Settings that are not part of the config; a run that does not record one may well have the same."""

Curve = dict[int, float]  # step to value, in the order of the steps
Axis = Callable[[list[int]], list[float]]  # maps steps to their places on a horizontal axis


@dataclass(frozen=True)
class Run:
    """What a run left behind."""

    path: Path  # its folder, or the file of metrics where that is not the folder's own
    history: Path  # the file that its metrics were read from
    name: str  # Name of its experiment, else of its folder
    tags: tuple[str, ...]  # tags of its experiment
    settings: dict[str, Any]  # dotted key to plain value; empty where no file records them
    curves: dict[str, Curve]  # metric to its values
    label: str = ""  # its unique name among the runs it is compared with, see `labelled`

    @property
    def kind(self) -> str:
        """``pretraining``, ``translation``, or ``unknown`` by its metrics."""
        if any(key.startswith("teacher/") for key in self.curves):
            return "pretraining"
        is_ours = any(key.endswith(("/loss_translation", "/loss_ctc")) for key in self.curves)
        return "translation" if is_ours else "unknown"

    @property
    def last_step(self) -> int:
        return max(max(curve) for curve in self.curves.values())


def read_run(path: Path) -> Run:
    """Read a run from its output folder, an archive of one, or a file of metrics.

    Raises:
        UserError: There is no log, it holds no values, or the files beside it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    folder = folder.parent if folder.name == STATE else folder
    try:
        params = _read_object(folder / PRETRAINING_FILES["params"])
        fingerprint = _read_object(folder / STATE / FINGERPRINT)
        # Snakemake deletes the declared params.json and config.json of a job that failed; the fingerprint stays.
        config = _section(params, "config") or _read_object(folder / TRAINING_FILES["config"])
        config = config or _section(fingerprint, "config")
        own_name = str(_section(config, "checkpointing").get("history_file", METRICS))
        history = _find_history(path, own_name)
        curves = read_curves(history)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected a run that can be read") from None
    if not curves:
        raise UserError(f'{history}: found no values, expected lines such as {{"step": 10, "train/loss": 4.2}}')
    place = folder if history.name == own_name else history
    experiment = _section(config, "experiment")
    return Run(
        path=place,
        history=history,
        name=printable(str(experiment.get("name") or _place_name(place))),
        tags=tuple(printable(str(tag)) for tag in experiment.get("tags") or ()),
        settings=_settings(config, params, fingerprint),
        curves=curves,
    )


def read_curves(history: Path) -> dict[str, Curve]:
    """Metric to its finite values.

    `MetricsLog` cuts off what an interrupted run logged after the checkpoint that it resumes from. In a log that was
    joined by other means the steps fall back; what was logged before from that step on is dropped as well.
    """
    kept: list[dict[str, Any]] = []
    for record in read_metrics(history):
        step = record.get("step")
        if type(step) is not int:
            continue
        if kept and kept[-1]["step"] > step:
            kept = [other for other in kept if other["step"] < step]
        kept.append(record)
    curves: dict[str, Curve] = defaultdict(dict)
    for record in kept:
        for key, value in record.items():
            if key != "step" and type(value) in (int, float) and math.isfinite(value):
                curves[key][record["step"]] = float(value)
    return dict(curves)


def labelled(runs: list[Run]) -> list[Run]:
    """Runs with unique labels: the name, with tags where that is not enough, else with the place."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.name].append(run)
    labels: dict[Path, str] = {}
    for name, group in groups.items():
        marks = _tag_marks(group) or _place_marks(group)
        for run, mark in zip(group, marks, strict=True):
            label = f"{name} ({mark})" if mark not in ("", name) else name
            labels[run.history] = label if label not in labels.values() else f"{name} ({run.history})"
    return [replace(run, label=labels[run.history]) for run in runs]


def axis_of(run: Run, against: str) -> Axis | None:
    """The horizontal axis ``step``, ``epoch``, or ``time`` in seconds of training; None where the log has it not."""
    if against == "step":
        return lambda steps: [float(step) for step in steps]
    if against == "epoch":
        epochs = run.curves.get("epoch") or run.curves.get("train/epoch") or {}
        epochs_per_step = next((epoch / step for step, epoch in epochs.items() if step), None)
        return None if epochs_per_step is None else lambda steps: [step * epochs_per_step for step in steps]
    known, times_s = [0], [0.0]
    for step, step_s in _seconds_per_step(run).items():
        times_s.append(times_s[-1] + (step - known[-1]) * step_s)
        known.append(step)
    return None if len(known) == 1 else lambda steps: np.interp(steps, known, times_s).tolist()


def _seconds_per_step(run: Run) -> Curve:
    """Mean seconds of the steps up to each logged one.

    A translation run logs clips per second: a step takes a batch; the smaller last one of an epoch counts as full.
    """
    if work_s := run.curves.get("time/step_s"):
        wait_s = run.curves.get("time/data_s", {})
        return {step: value + wait_s.get(step, 0.0) for step, value in work_s.items()}
    known = run.settings
    clips = known.get("data.batch_size", 0) * known.get("optim.accumulate_steps", 1) * known.get("world_size", 1)
    rates = run.curves.get("train/clips_per_s", {})
    return {step: clips / rate for step, rate in rates.items() if rate > 0 and clips}


def _settings(config: dict[str, Any], params: dict[str, Any], fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Config as dotted keys, and what else determines a result: data, number of processes, code."""
    data = _section(params, "data")
    found = params | {
        "data_digest": data.get("digest") or fingerprint.get("data"),
        "train_crops": data.get("train_crops"),
        "world_size": params.get("world_size") or _section(fingerprint, "config").get("world_size"),
    }
    settings = {key: value for key, value in flatten(config, {}) if value != {}}
    return settings | {key: found[key] for key in FACTS if found.get(key) is not None}


def _find_history(path: Path, own_name: str) -> Path:
    if path.is_file():
        return path
    for candidate in (path / own_name, path / STATE / own_name):  # published at the end, until then only in the state
        if candidate.is_file():
            return candidate
    expected = f"expected the output folder of a run or its {METRICS}"
    if not path.is_dir():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: not there, {expected}{suggest(path.name, siblings)}")
    inside = sorted({found.parent for found in path.glob(f"*/{METRICS}") if found.parent.name != STATE})
    some = " ".join(map(str, inside[:MAX_FOLDERS_NAMED])) + (" ..." if len(inside) > MAX_FOLDERS_NAMED else "")
    raise UserError(f"{path}: found no {own_name}, {expected}" + (f"; name {some}" if inside else ""))


def _tag_marks(group: list[Run]) -> list[str] | None:
    """The tags that runs of equal name do not share, where these distinguish all of them."""
    shared = set(group[0].tags).intersection(*(run.tags for run in group))
    marks = [", ".join(tag for tag in run.tags if tag not in shared) for run in group]
    return marks if len(set(marks)) == len(group) else None


def _place_marks(group: list[Run]) -> list[str]:
    """The shortest ends of their paths that differ, without what these have in common."""
    places = [run.path.resolve().parts for run in group]
    length = 1
    while len({place[-length:] for place in places}) < len(group) and length < max(map(len, places)):
        length += 1
    ends = [place[-length:] for place in places]
    while min(map(len, ends)) > 1 and len({end[-1] for end in ends}) == 1:
        ends = [end[:-1] for end in ends]
    return [printable("/".join(end)) for end in ends]


def _place_name(place: Path) -> str:
    parts = place.resolve().parts
    if len(parts) > 2 and parts[-2] == PREVIOUS:
        return "/".join(parts[-3:])  # an archive is named by a digest, which says nothing by itself
    return parts[-1]


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}), expected what the run wrote; move it aside") from None
    return content if isinstance(content, dict) else {}


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}
