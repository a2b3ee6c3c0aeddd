"""Metrics to TensorBoard and Weights & Biases, with stand-ins for their packages: what they get, and no harm."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from signstreams.engine.metrics import read_metrics
from signstreams.engine.run_folder import Experiment, Fingerprint
from signstreams.engine.trackers import TrackedLog
from signstreams.integrate.settings import IntegrateConfig
from signstreams.pretrain.settings import PretrainConfig

ALL = {"tensorboard": True, "wandb": "señas"}


class Calls(list[tuple[Any, ...]]):
    """Calls of the stand-ins; ``fails`` names the one that raises."""

    fails = ""

    def note(self, *call: Any) -> None:
        random.random()
        self.append(call)
        if call[0] == self.fails:
            raise RuntimeError(f"{call[0]}: the server\nhas gone")

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self if call[0] == name]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Both packages as stand-ins."""
    calls = Calls()

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            calls.note("tensorboard open", Path(folder).name, purge_step)
            Path(folder).mkdir(exist_ok=True)

        def add_scalar(self, key: str, value: float, step: int) -> None:
            calls.note("tensorboard log", key, value, step)

        def flush(self) -> None: ...

        def close(self) -> None:
            calls.note("tensorboard close")

    def init(**words: Any) -> SimpleNamespace:
        assert not sys.stdin.read()  # no questions
        calls.note("wandb open", words["project"], words["id"], words["name"], words["tags"], words["config"]["seed"])
        return SimpleNamespace(
            id=words["id"],
            offline=True,
            log=lambda numbers, step: calls.note("wandb log", numbers, step),
            finish=lambda exit_code: calls.note("wandb close", exit_code),
        )

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    module("torch.utils.tensorboard", SummaryWriter=Writer)
    module("wandb", init=init, Settings=lambda **words: words)
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "true")
    return calls


def settings(**tracking: Any) -> dict[str, Any]:
    about = {"name": "cara", "tags": ["a", "b"], "notes": "una nota"}
    return IntegrateConfig.model_validate({"tracking": tracking, "experiment": about}).model_dump(mode="json")


@pytest.fixture
def experiment(tmp_path: Path) -> Any:
    with Experiment(tmp_path / "run", Fingerprint({}, ""), files=[]) as claimed:
        yield claimed


def test_every_tracker_gets_the_numbers_and_the_file_everything(calls: Calls, experiment: Experiment) -> None:
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        metrics.log({"train/loss": 2.5, "train/norm": float("nan"), "note": "x", "epoch": 1}, 10)
    assert read_metrics(metrics.path) == [{"step": 10, "train/loss": 2.5, "train/norm": None, "note": "x", "epoch": 1}]
    assert calls.named("tensorboard open") == [("tensorboard", None)]
    assert calls.named("tensorboard log") == [("train/loss", 2.5, 10), ("epoch", 1.0, 10)]
    assert calls.named("wandb log") == [({"train/loss": 2.5, "epoch": 1.0}, 10)]
    ((project, run_id, name, tags, seed),) = calls.named("wandb open")
    assert (project, name, tags, seed) == ("señas", "cara", ["a", "b"], 0)
    assert len(run_id) == 8
    assert calls[-2:] == [("tensorboard close",), ("wandb close", 0)]


def test_a_resumed_run_goes_on_in_the_same_runs_and_repeats_no_step(calls: Calls, experiment: Experiment) -> None:
    with pytest.raises(SystemExit), TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        for step in (10, 20, 30):
            metrics.log({"loss": 1.0}, step)
        raise SystemExit(75)
    assert calls[-1] == ("wandb close", 1)
    (first,) = calls.named("wandb open")
    calls.clear()
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 20) as metrics:
        for step in (30, 40):
            metrics.log({"loss": 1.0}, step)
    assert calls.named("wandb open") == [first]
    assert [step for _, step in calls.named("wandb log")] == [40]
    assert calls.named("tensorboard open") == [("tensorboard", 21)]  # hides what was logged from there on
    assert [step for *_, step in calls.named("tensorboard log")] == [30, 40]
    calls.clear()
    with TrackedLog(experiment, "metrics.jsonl", settings(wandb="otro"), 20) as metrics:
        metrics.log({"loss": 1.0}, 30)
    assert calls.named("wandb open")[0][1] != first[1]  # unknown to another project
    assert len(calls.named("wandb log")) == 1


@pytest.mark.parametrize("when", ["open", "log", "close"])
@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_fails_says_so_once_and_disturbs_nothing(
    name: str, when: str, calls: Calls, experiment: Experiment, caplog: pytest.LogCaptureFixture
) -> None:
    calls.fails = f"{name} {when}"
    random.seed(3)
    before = random.getstate()
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        for step in (10, 20):
            metrics.log({"loss": 1.0}, step)
    assert random.getstate() == before
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [
        f"{name} gets no metrics (RuntimeError: {name} {when}: the server has gone);"
        " training goes on, metrics.jsonl has them all"
    ]
    assert len(calls.named(f"{name} log")) == {"open": 0, "log": 1, "close": 2}[when]
    assert [record["step"] for record in read_metrics(metrics.path)] == [10, 20]
    for other in {"tensorboard", "wandb"} - {name}:
        assert len(calls.named(f"{other} log")) == 2


def test_packages_that_are_absent_are_named(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        metrics.log({"loss": 1.0}, 1)
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} gets no metrics (not installed, pip install {name}); training goes on, metrics.jsonl has them all"
        for name in ("tensorboard", "wandb")
    ]


def test_where_metrics_go_is_no_part_of_the_experiment() -> None:
    assert IntegrateConfig.model_validate({"tracking": ALL}).identity({}) == IntegrateConfig().identity({})
    plain = {"train_dir": ["hand_r"], "output_dir": "out"}
    tracked = PretrainConfig.model_validate(plain | {"tracking": ALL})
    assert tracked.identity() == PretrainConfig.model_validate(plain).identity()


def test_a_tracker_of_earlier_versions_is_no_setting_any_more() -> None:
    assert IntegrateConfig().model_dump(mode="json")["tracking"]["mlflow"] is None  # as best.pt of all versions has it
    with pytest.raises(ValueError, match="mlflow"):
        IntegrateConfig.model_validate({"tracking": {"mlflow": "señas"}})
