"""The training core, driven by a stage that only counts: resume, checkpoints, stops, what ends a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine import training_run as training
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.engine.run_folder import Fingerprint
from signstreams.engine.training_run import Record, RunFiles, Stage, TrainingRun
from signstreams.errors import UserError
from signstreams.processes import stop_on_signal

ALONE = World(0, 1, torch.device("cpu"))
FILES = RunFiles("last.pt", "best.pt", "metrics.jsonl", ["weights.pt"])


class Counting(Stage[int]):
    """Adds up its batches; ``at`` maps a step to something that happens in it, ``scores`` a step to a score."""

    label = "count"

    def __init__(self, run: TrainingRun, total_steps: int = 6, checkpoint_steps: int = 100) -> None:
        self.run, self.total_steps, self.checkpoint_steps, self.shown = run, total_steps, checkpoint_steps, {}
        self.at: dict[int, Any] = {}
        self.scores: dict[int, float] = {}
        self.best: float | None = None
        self.steps = self.sum = 0
        self.is_closed = False

    @property
    def step(self) -> int:
        return self.steps

    def batches(self) -> Generator[int, None, None]:
        try:
            while not self.is_over:
                yield self.steps
        finally:
            self.is_closed = True

    def train_step(self, batch: int) -> None:
        self.sum += batch
        self.steps += 1
        if self.steps in self.at:
            self.at[self.steps]()

    def measure(self) -> Iterator[Record]:
        yield {"sum": float(self.sum)}
        score = self.scores.get(self.steps)
        if score is not None and (self.best is None or score > self.best):
            self.best = score
            self.run.save_best(self.state_dict)

    def state_dict(self) -> dict[str, Any]:
        fingerprint = {"config": self.run.fingerprint.config, "data": self.run.fingerprint.data}
        return {"steps": self.steps, "sum": self.sum, "best": self.best, "fingerprint": fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.sum, self.best = state["steps"], state["sum"], state["best"]

    @staticmethod
    def step_of(state: dict[str, Any]) -> int:
        return int(state["steps"])


def start(folder: Path, resume: str = "auto", *, seed: int = 0, **options: Any) -> TrainingRun:
    about = {"name": "", "tags": [], "notes": ""}
    dump = {"experiment": about, "tracking": {"tensorboard": False, "wandb": None}}
    config = SimpleNamespace(output_dir=folder, resume=resume, on_conflict="refuse", model_dump=lambda mode: dump)
    return TrainingRun(config, ALONE, Fingerprint({"seed": seed}, "data"), FILES)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(folder: Path, *, resume: str = "auto", **settings: Any) -> Counting:
    """A whole run; ``settings`` are attributes of its stage."""
    with start(folder, resume) as run:
        stage = Counting(run)
        vars(stage).update(settings)
        run.resume(stage)
        with stop_on_signal() as stop:
            run.train(stage, stop)
        run.publish(stage)
    return stage


def step_of(path: Path) -> int:
    return int(checkpoint.load(path)["steps"])


def test_a_stopped_run_saves_closes_its_loader_and_resumes_to_the_same_end(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight")
    with pytest.raises(SystemExit) as left:
        train(tmp_path / "run", at={4: kill})
    assert left.value.code == 75 and step_of(tmp_path / "run" / "last.pt") == 4
    with start(tmp_path / "run") as run:
        stage = Counting(run)
        stage.at[5] = kill
        assert run.resume(stage) and stage.steps == 4
        with pytest.raises(SystemExit), stop_on_signal() as stop:
            run.train(stage, stop)
        assert stage.is_closed
    resumed = train(tmp_path / "run", resume="must")
    assert (resumed.steps, resumed.sum) == (straight.steps, straight.sum) == (6, 15)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == read_metrics(tmp_path / "straight" / "metrics.jsonl")


def test_a_finished_run_is_not_trained_but_shown_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    for name in FILES[:3]:
        (tmp_path / name).unlink()  # as Snakemake does before it starts the job again
    with caplog.at_level("INFO"):
        train(tmp_path, at={n: lambda: pytest.fail("trained again") for n in range(20)})
    assert "all 6 steps are done already" in caplog.text
    assert step_of(tmp_path / "last.pt") == step_of(tmp_path / "best.pt") == 6  # nothing was measured: the last is best
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_come_by_steps_by_time_and_at_the_end_and_the_best_puts_none_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 3.0)
    save = checkpoint.save

    def note(path: Path, state: Any, **options: bool) -> None:
        saved.append((path.name, state["steps"]))
        save(path, state, **options)

    monkeypatch.setattr(checkpoint, "save", note)

    def tick() -> None:
        clock[0] += 1

    scores = {step: float(step) for step in range(1, 9)}
    train(tmp_path / "time", total_steps=8, at=dict.fromkeys(range(1, 9), tick), scores=scores)
    assert [step for name, step in saved if name == "last.pt"] == [3, 6, 8]
    assert [step for name, step in saved if name == "best.pt"] == list(range(1, 9))
    saved.clear()
    train(tmp_path / "steps", total_steps=5, checkpoint_steps=2)
    assert saved == [("last.pt", 2), ("last.pt", 4), ("last.pt", 5), ("best.pt", 5)]
    assert step_of(tmp_path / "steps" / "state" / "last.pt.previous") == 4


@pytest.mark.parametrize("own_steps", [None, 2, 5])
def test_of_the_own_and_a_given_state_the_one_that_is_further_is_taken(own_steps: int | None, tmp_path: Path) -> None:
    given = tmp_path / "given" / "last.pt"
    with pytest.raises(SystemExit):
        train(tmp_path / "given", at={4: kill}, scores={1: 9.0})
    if own_steps is not None:
        with pytest.raises(SystemExit):
            train(tmp_path / "run", at={own_steps: kill}, scores={1: 7.0})
    with start(tmp_path / "run", str(given)) as run:
        stage = Counting(run)
        assert run.resume(stage)
    assert stage.steps == max(4, own_steps or 0)
    assert stage.best == (7.0 if own_steps == 5 else None)  # the best of the other folder stays there
    assert step_of(tmp_path / "run" / "state" / "last.pt") == stage.steps
    with start(tmp_path / "given", str(given)) as run:
        stage = Counting(run)
        assert run.resume(stage) and stage.best == 9.0  # by its path, but its own


def test_a_state_that_cannot_be_resumed_is_named_before_the_folder_is_touched(tmp_path: Path) -> None:
    train(tmp_path / "run")
    checkpoint.save(tmp_path / "weights.pt", {"model": {}})
    (tmp_path / "broken.pt").write_bytes(b"PK")
    new = tmp_path / "new"
    for name, message in {
        "absent.pt": "absent.pt: no such file",
        "weights.pt": "holds no training state",
        "broken.pt": "start from scratch with --resume never --on-conflict archive",
    }.items():
        with pytest.raises(UserError, match=message):
            start(new, str(tmp_path / name))
    with pytest.raises(UserError, match="seed is 0 there, 1 here"):
        start(new, str(tmp_path / "run" / "last.pt"), seed=1)
    assert not new.exists()
    with pytest.raises(UserError, match="--resume must, but there is no checkpoint to resume from"):
        start(new, "must")
    with pytest.raises(UserError, match="not to be resumed"):
        start(tmp_path / "run", "never")


def test_several_losses_in_a_row_that_are_not_finite_end_a_run(tmp_path: Path) -> None:
    with start(tmp_path) as run:
        run.check_losses(training.MAX_BAD_LOSSES - 1, 5, "lower lr")
        with pytest.raises(UserError, match="3 losses in a row were not finite, by step 5; lower lr, in a new"):
            run.check_losses(training.MAX_BAD_LOSSES, 5, "lower lr")


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_loader_process_that_dies_is_an_error_unless_a_signal_ended_it(
    is_asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SIGNAL_LAG_S", 0.0)

    def die(stage: Counting) -> Iterator[int]:
        yield 0
        if is_asked:
            kill()
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(Counting, "batches", die)
    with pytest.raises(
        SystemExit if is_asked else UserError, match="75" if is_asked else "lower --dataset-num-workers"
    ):
        train(tmp_path)
    assert step_of(tmp_path / "last.pt") == 1 if is_asked else not (tmp_path / "last.pt").exists()


def test_several_processes_agree_on_a_stop_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 10 steps where steps are short, at every step where the slowest process takes 5 s for one."""
    asked: list[int] = []
    slowest_s = [0.1]

    def agree(mine: torch.Tensor) -> torch.Tensor:
        asked.append(stage.steps)
        return torch.tensor([float(mine[0]), slowest_s[0]])

    monkeypatch.setattr(training.distributed, "all_reduce_max", agree)
    for slowest_s[0], total_steps, expected in ((0.1, 25, [1, 11, 21]), (5.0, 4, [1, 2, 3, 4])):
        with start(tmp_path / str(total_steps)) as run, stop_on_signal() as stop:
            run.world = World(0, 2, torch.device("cpu"))
            stage = Counting(run, total_steps)
            run.train(stage, stop)
        assert asked == expected
        asked.clear()
    with start(tmp_path / "stopped") as run, stop_on_signal() as stop:
        run.world = World(0, 2, torch.device("cpu"))
        stage = Counting(run, 25)
        slowest_s[0], stage.at = 0.1, {4: kill}
        with pytest.raises(SystemExit):
            run.train(stage, stop)
    assert step_of(tmp_path / "stopped" / "last.pt") == 11
