"""Metrics to TensorBoard, Weights & Biases and MLflow, by stand-ins of their packages: what they get, and no harm."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from signstreams.engine.experiment import Experiment, Fingerprint
from signstreams.engine.metrics import read_metrics
from signstreams.engine.trackers import TrackedLog
from signstreams.integrate.settings import IntegrateConfig
from signstreams.pretrain.settings import PretrainConfig

ALL = {"tensorboard": True, "wandb": "señas", "mlflow": "señas"}


class Calls(list[tuple[Any, ...]]):
    """What the stand-ins were asked; ``fails`` names the call that raises."""

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
    """The three packages as stand-ins."""
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
        assert not sys.stdin.read()  # nobody is asked anything
        calls.note("wandb open", words["project"], words["id"], words["name"], words["tags"], words["config"]["seed"])
        return SimpleNamespace(
            id=words["id"],
            offline=True,
            log=lambda numbers, step: calls.note("wandb log", numbers, step),
            finish=lambda exit_code: calls.note("wandb close", exit_code),
        )

    class Client:
        tracking_uri = "https://me:secret@host/mlflow"

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return f"id of {name}"

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
            calls.note("mlflow open", experiment, run_name, tags)
            return SimpleNamespace(info=SimpleNamespace(run_id="run 7"))

        def update_run(self, run_id: str, status: str) -> None:
            calls.note("mlflow again", run_id, status)

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            if metrics:
                calls.note("mlflow log", run_id, [(m[0], m[1], m[3]) for m in metrics])
            for key, value in params:
                calls.note("mlflow param", key, value)

        def set_terminated(self, run_id: str, status: str) -> None:
            calls.note("mlflow close", run_id, status)

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    entities = SimpleNamespace(Metric=lambda *words: words, Param=lambda *words: words)
    module("torch.utils.tensorboard", SummaryWriter=Writer)
    module("wandb", init=init, Settings=lambda **words: words)
    module("mlflow", MlflowClient=Client, entities=entities, exceptions=SimpleNamespace(MlflowException=KeyError))
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING", "MLFLOW_LOGGING_LEVEL", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    return calls


def settings(**tracking: Any) -> dict[str, Any]:
    told = {"name": "cara", "tags": ["a", "b"], "notes": "una nota"}
    return IntegrateConfig.model_validate({"tracking": tracking, "experiment": told}).model_dump(mode="json")


@pytest.fixture
def experiment(tmp_path: Path) -> Any:
    with Experiment.claim(tmp_path / "run", Fingerprint({}, ""), files=[]) as claimed:
        yield claimed


def test_every_sink_gets_the_numbers_and_the_file_everything(calls: Calls, experiment: Experiment) -> None:
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        metrics.log({"train/loss": 2.5, "train/norm": float("nan"), "note": "x", "epoch": 1}, 10)
    assert read_metrics(metrics.path) == [{"step": 10, "train/loss": 2.5, "train/norm": None, "note": "x", "epoch": 1}]
    assert calls.named("tensorboard open") == [("tensorboard", None)]
    assert calls.named("tensorboard log") == [("train/loss", 2.5, 10), ("epoch", 1.0, 10)]
    assert calls.named("wandb log") == [({"train/loss": 2.5, "epoch": 1.0}, 10)]
    ((project, run_id, name, tags, seed),) = calls.named("wandb open")
    assert (project, name, tags, seed) == ("señas", "cara", ["a", "b"], 0)
    assert len(run_id) == 8
    assert calls.named("mlflow open") == [("id of señas", "cara", {"tags": "a, b", "mlflow.note.content": "una nota"})]
    assert ("optim.lr", "0.0005") in calls.named("mlflow param")
    assert calls.named("mlflow log") == [("run 7", [("train/loss", 2.5, 10), ("epoch", 1.0, 10)])]
    assert calls[-3:] == [("tensorboard close",), ("wandb close", 0), ("mlflow close", "run 7", "FINISHED")]


def test_a_resumed_run_goes_on_in_the_same_runs_and_repeats_no_step(calls: Calls, experiment: Experiment) -> None:
    with pytest.raises(SystemExit), TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        for step in (10, 20, 30):
            metrics.log({"loss": 1.0}, step)
        raise SystemExit(75)
    assert calls[-2:] == [("wandb close", 1), ("mlflow close", "run 7", "KILLED")]
    (first,) = calls.named("wandb open")
    assert "secret" not in (experiment.state / "tracking.json").read_text()
    calls.clear()
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 20) as metrics:
        for step in (30, 40):
            metrics.log({"loss": 1.0}, step)
    assert calls.named("wandb open") == [first]
    assert calls.named("mlflow open") == [] and calls.named("mlflow again") == [("run 7", "RUNNING")]
    assert [step for _, step in calls.named("wandb log")] == [40]
    assert [metrics[0][2] for _, metrics in calls.named("mlflow log")] == [40]
    assert calls.named("tensorboard open") == [("tensorboard", 21)]  # TensorBoard hides what came from there on
    assert [step for *_, step in calls.named("tensorboard log")] == [30, 40]
    calls.clear()
    with TrackedLog(experiment, "metrics.jsonl", settings(wandb="otro"), 20) as metrics:
        metrics.log({"loss": 1.0}, 30)
    assert calls.named("wandb open")[0][1] != first[1]  # another project knows nothing of it
    assert len(calls.named("wandb log")) == 1


@pytest.mark.parametrize("when", ["open", "log", "close"])
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
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
    for other in {"tensorboard", "wandb", "mlflow"} - {name}:
        assert len(calls.named(f"{other} log")) == 2


def test_packages_that_are_absent_are_named(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with TrackedLog(experiment, "metrics.jsonl", settings(**ALL), 0) as metrics:
        metrics.log({"loss": 1.0}, 1)
    assert [record.getMessage() for record in caplog.records] == [
        f"{name} gets no metrics (not installed, pip install {name}); training goes on, metrics.jsonl has them all"
        for name in ("tensorboard", "wandb", "mlflow")
    ]


def test_where_metrics_go_is_no_part_of_the_experiment() -> None:
    assert IntegrateConfig.model_validate({"tracking": ALL}).identity({}) == IntegrateConfig().identity({})
    plain = {"train_dir": ["hand_r"], "output_dir": "out"}
    tracked = PretrainConfig.model_validate(plain | {"tracking": ALL})
    assert tracked.identity() == PretrainConfig.model_validate(plain).identity()
