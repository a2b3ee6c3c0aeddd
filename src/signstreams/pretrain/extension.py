"""A run with the schedule ``constant_decay`` made longer: it goes on from where its learning rate began to decay.

Hägele et al. 2024 (arXiv 2405.18392): after a warm-up the rate is constant, and only the last fifth of a run decays.
Runs are equal up to their decay, so that a longer one needs no new start. What is derived from the length (targets'
temperature, prototypes, momentum, warm-ups) keeps the values of the length that the run was begun with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from signstreams.engine import checkpoint
from signstreams.engine.run_folder import Experiment
from signstreams.engine.training_run import RunFiles
from signstreams.errors import UserError
from signstreams.files import link_or_copy, read_json, write_json
from signstreams.formats.layout import PRETRAINING_FILES, PREVIOUS, STATE
from signstreams.pretrain.derived_settings import decay_steps_of

log = logging.getLogger(__name__)

LENGTH = "length.json"  # in the state: the `Length` that the run was last started with
BEFORE_DECAY = "checkpoint_before_decay.pt"  # in the state: from where a longer run goes on
KEPT = tuple(PRETRAINING_FILES[name] for name in ("backbone", "safetensors", "card", "curves"))


class Length(NamedTuple):
    """Length of a run in steps, which its schedules are made for."""

    begun_steps: int  # as it was first started
    total_steps: int  # as it was last started

    @property
    def decay_start(self) -> int:
        """Steps that are done when the decay begins."""
        return self.total_steps - decay_steps_of(self.total_steps)


def recorded_length(folder: Path, last_name: str, resume: str) -> Length | None:
    """That of the run in the folder, or of the checkpoint ``resume`` where that is a path; None where there is none.

    A checkpoint that is none is named when it is read to resume from it.
    """
    found: Any = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if resume not in ("auto", "never", "must") and not (folder / STATE / last_name).exists():
            found = checkpoint.load(Path(resume))["length"]
        elif resume != "never" and (folder / STATE / last_name).exists():
            found = read_json(folder / STATE / LENGTH)
        if found is not None:
            return Length(int(found["begun_steps"]), int(found["total_steps"]))
    return None


def prepare(experiment: Experiment, length: Length, files: RunFiles) -> None:
    """Make the folder's state one that a run of this length goes on from, and record the length; rank 0 only.

    Where the run has decayed for another length, its checkpoints, metrics and weights are kept in
    ``previous/steps_<length>/``, and the state before the decay takes the place of the last one.

    Raises:
        UserError: The run is further than a run of this length is when it begins to decay.
    """
    folder, last = experiment.folder, experiment.state / files.last
    recorded = recorded_length(folder, files.last, "auto")
    if recorded is not None and recorded.total_steps != length.total_steps:
        step = int(checkpoint.load_latest(last)["trainer"]["step"])
        if step > recorded.decay_start:
            _go_back(experiment, recorded, length, files)
        elif step > length.decay_start:
            raise UserError(too_short(folder, step, recorded, length))
        log.info("%s: was planned for %d steps, now for %d", folder, recorded.total_steps, length.total_steps)
    write_json(experiment.state / LENGTH, length._asdict())


def _go_back(experiment: Experiment, recorded: Length, length: Length, files: RunFiles) -> None:
    state = experiment.state
    last, before = state / files.last, state / BEFORE_DECAY
    step = int(checkpoint.load(before)["trainer"]["step"]) if before.exists() else None
    if step is None or step > length.decay_start:
        raise UserError(too_short(experiment.folder, step, recorded, length))
    target, number = experiment.folder / PREVIOUS / f"steps_{recorded.total_steps}", 1
    while target.exists():
        number += 1
        target = target.with_name(f"steps_{recorded.total_steps}-{number}")
    target.mkdir(parents=True)
    named = [state / files.last, state / files.best, *(experiment.folder / name for name in KEPT)]
    for source in filter(Path.exists, named):
        link_or_copy(source, target / source.name)
    if (metrics := state / files.metrics).exists():
        shutil.copyfile(metrics, target / metrics.name)  # no link: they are written on in place
    (state / files.best).unlink(missing_ok=True)  # chosen in the decay, which is no part of the longer run
    checkpoint.previous(last).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".back.", dir=state) as aside:
        part = Path(aside) / last.name
        link_or_copy(before, part)
        os.replace(part, last)
    log.info(
        "%s: has decayed for %d steps; goes on from step %d, before that; its end is kept in %s",
        *(experiment.folder, recorded.total_steps, step, target),
    )


def too_short(folder: Path, step: int | None, recorded: Length, length: Length) -> str:
    """Why a state of a run cannot go on in one of another length."""
    reached = (
        f"step {step} of a run of {recorded.total_steps} steps" if step is not None else "no state before its decay"
    )
    return (
        f"{folder}: holds {reached}, and one of {length.total_steps} steps begins to decay at step"
        f" {length.decay_start}; give more epochs or budget.views, or another --output-dir"
    )
