"""Which checkpoint a run goes on from, and what it keeps of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.engine.run_folder import recorded_fingerprint
from signstreams.errors import UserError
from signstreams.pretrain import derived_settings, settings
from signstreams.pretrain.run import HEALTH, pretrain, with_batch_of_folder
from signstreams.pretrain.sampler import BatchPlan
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
STREAM = "hand_r"


def test_a_run_that_was_given_a_checkpoint_goes_on_from_its_own_when_it_is_further(
    make: Make, stopped_at: StoppedAt, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight = pretrain(make(), STREAM)
    first = make(output_dir=str(tmp_path / "first"))
    config = make(output_dir=str(tmp_path / "second"), resume=str(first.output_dir / "checkpoint_last.pt"))
    for one, step in ((first, 3), (config, 6)):
        with stopped_at(step):
            pretrain(one, STREAM)
    with caplog.at_level("INFO"):
        assert pretrain(config, STREAM).read_bytes() == straight.read_bytes()
    assert "going on from step 6 of 10" in caplog.text


@pytest.mark.parametrize("name", ["checkpoint_last.pt", "state/checkpoint_last.pt"])
def test_the_folders_own_checkpoint_by_its_path_keeps_the_best(
    name: str, make: Make, stopped_at: StoppedAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(resume="auto")
    with monkeypatch.context() as patch, stopped_at(5):
        patch.setattr(Trainer, "probe", lambda *_: {HEALTH: 10.0})
        pretrain(config, STREAM)
    monkeypatch.setattr(Trainer, "probe", lambda *_: {HEALTH: 1.0})
    pretrain(make(resume=str(config.output_dir / name)), STREAM)
    assert checkpoint.load(config.output_dir / "checkpoint_best.pt")["best"]["step"] == 4


def test_a_job_that_slurm_puts_back_goes_on_though_it_was_not_to_resume(
    make: Make, stopped_at: StoppedAt, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(resume="never")
    with stopped_at(5):
        pretrain(config, STREAM)
    assert "asked to stop at step 5 of 10; run again with --resume auto to go on" in caplog.text
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with caplog.at_level("INFO"):
        pretrain(config, STREAM)
    assert "going on from step 5 of 10" in caplog.text


def test_resume_never_and_must_mean_what_they_say(make: Make) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        pretrain(make(resume="must"), STREAM)
    pretrain(make(), STREAM)
    pretrain(make(resume="must"), STREAM)
    with pytest.raises(UserError, match="not to be resumed"):
        pretrain(make(resume="never"), STREAM)


# ---------------------------------------------------------------- another number of processes


def _crops_of_steps(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
    """Which crops each step of later runs in this process draws."""
    drawn: dict[int, list[int]] = {}
    original = BatchPlan.batches

    def note(self: BatchPlan, rank: int, first: int, last: int) -> Iterator[list[tuple[int, int]]]:
        for keys in original(self, rank, first, last):
            drawn[keys[0][0]] = [index for _, index in keys]
            yield keys

    monkeypatch.setattr(BatchPlan, "batches", note)
    return drawn


def _run_with_two(
    make: Make, project: Path, folder: Path, run_two: Callable[..., None], batch_size: int
) -> PretrainConfig:
    """The run of this folder by two processes, with this batch in their config."""
    two = make(output_dir=str(folder), distributed=True, dataset={"batch_size": batch_size})
    path = folder.parent / "two.json"
    path.write_text(two.model_dump_json())
    run_two(folder.parent, project / "scripts" / "pretrain_dino_hands.py", "--config", str(path))
    return two


def _back_to(step: int, folder: Path) -> None:
    """As a run killed at this step leaves its folder."""
    best = checkpoint.load(folder / "state" / "checkpoint_best.pt")
    assert best["trainer"]["step"] == step
    checkpoint.save(folder / "state" / "checkpoint_last.pt", best)
    for path in folder.glob("*.*"):
        path.unlink()


@pytest.mark.parametrize("is_old", [False, True], ids=["new record", "record of an earlier version"])
def test_a_profile_edited_to_another_number_of_processes_goes_on(
    is_old: bool,
    make: Make,
    project: Path,
    tmp_path: Path,
    run_two: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Begun by two processes with a batch of 4, continued by one, whose config still says 4: it equals a run by one."""
    straight = make(output_dir=str(tmp_path / "straight"), dataset={"batch_size": 8})
    drawn = _crops_of_steps(monkeypatch)
    pretrain(straight, STREAM)
    expected = dict(drawn)
    two = _run_with_two(make, project, tmp_path / "run", run_two, 4)
    best = checkpoint.load(two.output_dir / "state" / "checkpoint_best.pt")["trainer"]["step"]
    _back_to(best, two.output_dir)
    if is_old:
        _as_an_earlier_version_recorded(two.output_dir, batch_size=4, world_size=2)
    drawn.clear()
    one = make(output_dir=str(two.output_dir), on_conflict="archive", dataset={"batch_size": 4})
    with caplog.at_level("INFO"):
        pretrain(one, STREAM)
    assert "keeps its joint batch of 8 crops (2 processes of 4 before): now 1 of 8, in 2 parts" in caplog.text
    assert not (two.output_dir / "previous").exists()
    assert drawn == {step: crops for step, crops in expected.items() if step >= best}
    ours, theirs = (read_metrics(config.output_dir / "metrics.jsonl") for config in (straight, one))
    assert [record["step"] for record in theirs if record["step"] > best][-1] == ours[-1]["step"] == 10
    for a, b in zip(ours, theirs, strict=True):
        for key in ("schedule/lr", "schedule/momentum", "schedule/weight_decay", "schedule/teacher_temp"):
            assert a[key] == b[key], key
        for key in ("train/loss", "teacher/entropy_sample"):
            assert a[key] == pytest.approx(b[key], rel=2e-3), key
    _assert_equal_weights(straight.output_dir, one.output_dir)


def _assert_equal_weights(first: Path, second: Path) -> None:
    ours, theirs = (checkpoint.load(folder / "checkpoint_last.pt")["trainer"] for folder in (first, second))
    assert ours["step"] == theirs["step"]
    for name, tensor in ours["student"].items():
        torch.testing.assert_close(theirs["student"][name], tensor, rtol=5e-3, atol=5e-4)


def test_a_run_begun_by_one_process_goes_on_with_two(
    make: Make, stopped_at: StoppedAt, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """Each has half of the joint batch, though the config says the whole."""
    straight, one = make(output_dir=str(tmp_path / "straight")), make(output_dir=str(tmp_path / "run"))
    pretrain(straight, STREAM)
    with stopped_at(5):
        pretrain(one, STREAM)
    _run_with_two(make, project, one.output_dir, run_two, 8)
    assert json.loads((one.output_dir / "params.json").read_text())["config"]["dataset"]["batch_size"] == 4
    _assert_equal_weights(straight.output_dir, one.output_dir)


def _as_an_earlier_version_recorded(folder: Path, *, batch_size: int, world_size: int) -> None:
    """The fingerprint of folder and checkpoint with the batch of a process and the number of processes."""

    def older(config: dict[str, Any]) -> dict[str, Any]:
        dataset = {key: value for key, value in config["dataset"].items() if key != "joint_batch"}
        dataset["batch_size"] = batch_size
        left = {key: value for key, value in config.items() if key not in ("derived_by", "budget")}
        return left | {"dataset": dataset, "optim": config["optim"] | {"accumulate": 1}, "world_size": world_size}

    record = json.loads((folder / "state" / "fingerprint.json").read_text())
    (folder / "state" / "fingerprint.json").write_text(json.dumps(record | {"config": older(record["config"])}))
    (folder / "state" / "joint_batch.json").unlink()
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        state = checkpoint.load(folder / "state" / name)
        state["fingerprint"]["config"] = older(state["fingerprint"]["config"])
        checkpoint.save(folder / "state" / name, state)


def test_an_old_finished_run_is_still_of_this_experiment(make: Make) -> None:
    first = pretrain(make(), STREAM).read_bytes()
    folder = make().output_dir
    _as_an_earlier_version_recorded(folder, batch_size=8, world_size=1)
    assert pretrain(make(resume="must"), STREAM).read_bytes() == first
    given = make(output_dir=str(folder.parent / "other"), resume=str(folder / "state" / "checkpoint_best.pt"))
    assert pretrain(given, STREAM).read_bytes() == first


def test_a_run_of_an_earlier_version_goes_on_by_its_own_rule(
    make: Make, stopped_at: StoppedAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head would not fit today's choice: above 20,000 crops (here 10) it had no batch norm."""
    monkeypatch.setattr(derived_settings, "EARLIER_SMALL_CROPS", 10)
    opened = {"dino": {"batch_norm": None}, "sinkhorn": {"use": None}}
    config = make(**opened)

    def chosen(folder: Path) -> tuple[bool, bool]:
        found = json.loads((folder / "params.json").read_text())["chosen"]
        return found["batch_norm"], found["use_sinkhorn"]

    with stopped_at(5):
        pretrain(config, STREAM)
    assert chosen(config.output_dir) == (True, True)  # by the rule of now
    _as_an_earlier_version_recorded(config.output_dir, batch_size=8, world_size=1)
    for path in (config.output_dir / "state").glob("*.pt*"):
        path.unlink()  # as begun and not yet saved
    with stopped_at(5):
        pretrain(config, STREAM)
    assert chosen(config.output_dir) == (False, False)
    pretrain(make(resume="must", **opened), STREAM)
    given = make(output_dir=str(config.output_dir.parent / "x"), resume=str(config.output_dir / "checkpoint_last.pt"))
    given = given.model_copy(update={"dino": config.dino, "sinkhorn": config.sinkhorn})
    pretrain(given, STREAM)
    assert chosen(given.output_dir) == (False, False)
    pretrain(make(seed=1, on_conflict="archive", **opened), STREAM)
    assert chosen(config.output_dir) == (True, True)  # another experiment is of today


def test_a_large_run_of_an_earlier_version_keeps_its_rate(
    make: Make, stopped_at: StoppedAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 1,024 crops (here 4) its rate was in proportion to the batch, and was recorded so."""
    monkeypatch.setattr(derived_settings, "LINEAR_BATCH", 4)
    monkeypatch.setattr(settings, "LINEAR_BATCH", 4)

    def peak(folder: Path) -> float:
        return float(json.loads((folder / "params.json").read_text())["chosen"]["peak_learning_rate"])

    straight = make(output_dir=str(make().output_dir.parent / "straight"), optim={"learning_rate_scaling": "linear"})
    pretrain(straight, STREAM)
    begun = make(optim={"learning_rate_scaling": "linear"})
    with stopped_at(5):
        pretrain(begun, STREAM)
    pretrain(make(resume="must"), STREAM)
    _assert_equal_weights(straight.output_dir, begun.output_dir)
    new = make(output_dir=str(begun.output_dir.parent / "new"))
    pretrain(new, STREAM)
    assert peak(new.output_dir) == pytest.approx(peak(begun.output_dir) / 2**0.5)
    with pytest.raises(UserError, match=r"learning_rate_scaling is 'auto' there, 'linear' here"):
        pretrain(make(output_dir=str(new.output_dir), optim={"learning_rate_scaling": "linear"}), STREAM)


def test_what_differs_in_more_than_processes_has_the_batch_of_its_own_config(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(make(), STREAM)
    folder = make().output_dir
    _as_begun_by(folder, num_processes=2, batch_size=4)
    other = make(seed=1, on_conflict="archive", dataset={"batch_size": 4})
    pretrain(other, STREAM)
    assert "seed is 0 there, 1 here" in caplog.text and "dataset.joint_batch is 8 there, 4 here" in caplog.text
    assert "(it was logged up to step 10), starting at step 0" in caplog.text
    assert checkpoint.load(folder / "checkpoint_last.pt")["fingerprint"]["config"]["dataset"]["joint_batch"] == 4


def test_a_batch_of_a_process_that_was_edited_is_another_experiment(make: Make) -> None:
    pretrain(make(), STREAM)
    with pytest.raises(UserError, match=r"dataset\.joint_batch is 8 there, 4 here"):
        pretrain(make(dataset={"batch_size": 4}), STREAM)


@pytest.mark.parametrize(("num_processes", "koleo"), [(3, 0.0), (8, 0.1)], ids=["uneven", "one crop each"])
def test_a_joint_batch_that_cannot_be_shared_is_refused_and_nothing_is_moved(
    num_processes: int, koleo: float, make: Make
) -> None:
    config = make(koleo={"weight": koleo}, on_conflict="archive")
    pretrain(config, STREAM)
    world = World(0, num_processes, torch.device("cpu"))
    recorded = recorded_fingerprint(config.output_dir)
    assert recorded is not None
    with pytest.raises(UserError, match=f"{num_processes} processes cannot share its joint batch of 8 crops"):
        with_batch_of_folder(config, world, lambda _, **__: copy.deepcopy(recorded))
    assert (config.output_dir / "state" / "checkpoint_last.pt").exists()


def _as_begun_by(folder: Path, **joint: int) -> None:
    (folder / "state" / "joint_batch.json").write_text(json.dumps(joint))
