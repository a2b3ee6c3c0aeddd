"""A run as others see it: name, tags, settings and logged values, read from its folder or its log alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from signstreams.config.load import flatten, suggest
from signstreams.engine.experiment import FINGERPRINT, PREVIOUS, STATE
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.files import read_json
from signstreams.ids import printable

HISTORY = "metrics.jsonl"
MAX_FOLDERS_NAMED = 4
FACTS = ("stream", "data_digest", "train_crops", "world_size", "commit")
"""Settings that are no part of the config; a run that does not tell one may well have the same."""

Curve = dict[int, float]
"""Step to value, steps rising."""
Axis = Callable[[list[int]], list[float]]
"""From steps to their places on a horizontal axis."""


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        path: Its folder; the file of metrics where that is another than the folder's own.
        history: The file that its metrics were read from.
        name: Of its experiment, else of its folder.
        tags: Of its experiment.
        settings: Dotted key to plain value; empty where no file tells them.
        curves: Metric to its values.
        label: Its name among the runs it is compared with; see `labelled`.
    """

    path: Path
    history: Path
    name: str
    tags: tuple[str, ...]
    settings: dict[str, Any]
    curves: dict[str, Curve]
    label: str = ""

    @property
    def kind(self) -> str:
        """``pretraining``, ``translation``, or ``unknown`` when the metrics are of neither."""
        if any(key.startswith("teacher/") for key in self.curves):
            return "pretraining"
        return "translation" if any(key.endswith("/loss_translation") for key in self.curves) else "unknown"

    @property
    def last_step(self) -> int:
        return max(max(curve) for curve in self.curves.values())


def read_run(path: Path) -> Run:
    """Read a run from its output folder, an archive of one, or a file of metrics.

    Raises:
        UserError: There is no log, it holds no values, or what lies beside it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    folder = folder.parent if folder.name == STATE else folder
    try:
        params, fingerprint = _read_object(folder / "params.json"), _read_object(folder / STATE / FINGERPRINT)
        # Snakemake deletes the declared params.json and config.json of a job that failed; the fingerprint stays.
        config = _section(params, "config") or _read_object(folder / "config.json") or _section(fingerprint, "config")
        own_name = str(_section(config, "checkpointing").get("history_file", HISTORY))
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

    `MetricsLog` cuts off what an interrupted run logged after the checkpoint that it goes on from. Where a log was
    joined by other means the steps fall back, and what stands there from that step on is dropped likewise.
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
    """Runs with labels of which no two are equal: the name, where that is not enough with tags, or else the place."""
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
    """The horizontal axis ``step``, ``epoch``, or ``time`` in seconds of training; None: the log does not tell."""
    if against == "step":
        return lambda steps: [float(step) for step in steps]
    if against == "epoch":
        epochs = run.curves.get("epoch") or run.curves.get("train/epoch") or {}
        epoch_a_step = next((epoch / step for step, epoch in epochs.items() if step), None)
        return None if epoch_a_step is None else lambda steps: [step * epoch_a_step for step in steps]
    known, times_s = [0], [0.0]
    for step, step_s in _seconds_a_step(run).items():
        times_s.append(times_s[-1] + (step - known[-1]) * step_s)
        known.append(step)
    return None if len(known) == 1 else lambda steps: np.interp(steps, known, times_s).tolist()


def _seconds_a_step(run: Run) -> Curve:
    """Mean seconds of the steps up to each logged one.

    A translation run logs clips a second: a step takes a batch, and the smaller last one of an epoch counts as whole.
    """
    if work_s := run.curves.get("time/step_s"):
        wait_s = run.curves.get("time/data_s", {})
        return {step: value + wait_s.get(step, 0.0) for step, value in work_s.items()}
    told = run.settings
    clips = told.get("data.batch_size", 0) * told.get("optim.accumulate_steps", 1) * told.get("world_size", 1)
    rates = run.curves.get("train/clips_per_s", {})
    return {step: clips / rate for step, rate in rates.items() if rate > 0 and clips}


def _settings(config: dict[str, Any], params: dict[str, Any], fingerprint: dict[str, Any]) -> dict[str, Any]:
    """Config as dotted keys, and what else decides a result: data, number of processes, code."""
    data = _section(params, "data")
    found = params | {
        "data_digest": data.get("digest") or fingerprint.get("data"),
        "train_crops": data.get("train_crops"),
        "world_size": params.get("world_size") or _section(fingerprint, "config").get("world_size"),
    }
    told = {key: value for key, value in flatten(config, {}) if value != {}}
    return told | {key: found[key] for key in FACTS if found.get(key) is not None}


def _find_history(path: Path, own_name: str) -> Path:
    if path.is_file():
        return path
    for candidate in (path / own_name, path / STATE / own_name):  # published at the end; until then in the state alone
        if candidate.is_file():
            return candidate
    expected = "expected the output folder of a run or its metrics.jsonl"
    if not path.is_dir():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: not there, {expected}{suggest(path.name, siblings)}")
    inside = sorted({found.parent for found in path.glob(f"*/{HISTORY}") if found.parent.name != STATE})
    some = " ".join(map(str, inside[:MAX_FOLDERS_NAMED])) + (" ..." if len(inside) > MAX_FOLDERS_NAMED else "")
    raise UserError(f"{path}: found no {own_name}, {expected}" + (f"; name {some}" if inside else ""))


def _tag_marks(group: list[Run]) -> list[str] | None:
    """Tags that not all runs of equal name share, where they tell all of them apart."""
    shared = set(group[0].tags).intersection(*(run.tags for run in group))
    marks = [", ".join(tag for tag in run.tags if tag not in shared) for run in group]
    return marks if len(set(marks)) == len(group) else None


def _place_marks(group: list[Run]) -> list[str]:
    """The shortest ends of their paths that differ, less what these ends have in common."""
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
        return "/".join(parts[-3:])  # an archive is called by a digest, which says nothing by itself
    return parts[-1]


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}), expected what the run wrote; move it aside") from None
    return content if isinstance(content, dict) else {}


def _section(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}
