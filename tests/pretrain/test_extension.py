"""A run by constant_decay: its schedules, and that a longer one goes on from where the shorter one began to decay."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.run import architecture, pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
STREAM = "hand_r"
CONSTANT: dict[str, Any] = {"schedule": "constant_decay", "learning_rate": 1e-2}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "backbone.pt", weights_only=True)["model"]
    return found


def _assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(one[name], other[name]) for name in other)


def _chosen(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "params.json").read_text())["chosen"]
    return found


def test_the_rate_stays_after_the_warm_up_and_decays_over_the_last_fifth(make: Make) -> None:
    config = make(epochs=10, optim=CONSTANT | {"warmup_ratio": 0.1, "weight_decay": 0.05})
    derived = derive_settings(config, num_crops=80, global_batch=8)
    trainer = Trainer(config, derived, architecture(config), World(0, 1, torch.device("cpu")))
    now = [trainer.scheduled(step) for step in range(101)]
    peak = derived.peak_learning_rate
    assert [now[step]["lr"] / peak for step in (0, 4, 9, 10, 50, 80)] == pytest.approx([0.1, 0.5, 1, 1, 1, 1])
    assert [now[step]["lr"] / peak for step in (85, 90, 100)] == pytest.approx(
        [0.5, 1 - 0.5**0.5, 1e-6 / peak], abs=1e-2
    )
    assert {one["weight_decay"] for one in now} == {0.05}
    assert {one["momentum"] for one in now} == {derived.momentum}
    longer = make(epochs=20, optim=CONSTANT | {"warmup_ratio": 0.1, "weight_decay": 0.05})
    extended = derive_settings(longer, num_crops=80, global_batch=8, begun_steps=100)
    assert (extended.total_steps, extended.decay_steps) == (200, 40)
    same = ("warmup_steps", "momentum", "teacher_temp", "num_prototypes", "teacher_temp_warmup_steps")
    assert [getattr(extended, name) for name in same] == [getattr(derived, name) for name in same]


def test_the_length_is_no_part_of_the_experiment_and_a_cosines_is(make: Make) -> None:
    one, other = make(epochs=2, optim=CONSTANT), make(epochs=None, budget={"views": 900}, optim=CONSTANT)
    assert one.identity() == other.identity() and "epochs" not in one.identity()
    assert make(epochs=2).identity() != make(epochs=3).identity()
    assert "schedule" not in make().identity()["optim"]
    with pytest.raises(ValueError, match="final_weight_decay has no effect: schedule is 'constant_decay'"):
        make(optim=CONSTANT | {"final_weight_decay": 0.2})


def test_a_finished_run_goes_on_as_if_it_had_been_made_longer_before_its_decay(
    make: Make, stopped_at: StoppedAt, caplog: pytest.LogCaptureFixture
) -> None:
    finished, stopped = make(optim=CONSTANT), make(optim=CONSTANT, output_dir=str(make().output_dir.parent / "other"))
    pretrain(finished, STREAM)
    folder, short = finished.output_dir, _weights(finished.output_dir)
    momentum = _chosen(folder)["momentum"]
    with stopped_at(6):
        pretrain(stopped, STREAM)

    with caplog.at_level(logging.INFO):
        pretrain(make(epochs=4, optim=CONSTANT), STREAM)
    assert "has decayed for 10 steps; goes on from step 8, before that; its end is kept in" in caplog.text
    pretrain(make(epochs=4, optim=CONSTANT, output_dir=str(stopped.output_dir)), STREAM)
    _assert_equal(_weights(folder), _weights(stopped.output_dir))
    assert (_chosen(folder)["total_steps"], _chosen(folder)["momentum"]) == (20, momentum)
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == 20

    kept = folder / "previous" / "steps_10"
    _assert_equal(_weights(kept), short)
    assert checkpoint.load(kept / "checkpoint_last.pt")["trainer"]["step"] == 10
    assert read_metrics(kept / "metrics.jsonl")[-1]["step"] == 10
    best = checkpoint.load(folder / "checkpoint_best.pt")["trainer"]["step"]
    assert best > 8  # of the longer run, not of the decay that it left out
    first = (folder / "backbone.pt").read_bytes()
    assert pretrain(make(epochs=4, optim=CONSTANT), STREAM).read_bytes() == first  # all done


def test_a_longer_run_that_was_stopped_goes_on_and_a_shorter_one_is_refused(make: Make, stopped_at: StoppedAt) -> None:
    pretrain(make(optim=CONSTANT), STREAM)
    folder = make().output_dir
    with stopped_at(13):
        pretrain(make(epochs=4, optim=CONSTANT), STREAM)
    state = checkpoint.load(folder / "state" / "checkpoint_last.pt")
    assert (state["trainer"]["step"], state["length"]) == (13, {"begun_steps": 10, "total_steps": 20})
    with pytest.raises(UserError, match=r"and one of 15 steps begins to decay at step 12; give more epochs or budget"):
        pretrain(make(epochs=3, optim=CONSTANT), STREAM)
    pretrain(make(epochs=4, optim=CONSTANT, resume="must"), STREAM)
    straight = make(optim=CONSTANT, output_dir=str(folder.parent / "straight"))
    pretrain(straight, STREAM)
    pretrain(make(epochs=4, optim=CONSTANT, output_dir=str(straight.output_dir)), STREAM)
    _assert_equal(_weights(folder), _weights(straight.output_dir))


def test_the_state_before_the_decay_goes_on_in_another_folder_and_one_that_decays_does_not(make: Make) -> None:
    pretrain(make(optim=CONSTANT), STREAM)
    state = make().output_dir / "state"
    other = {"epochs": 4, "optim": CONSTANT, "output_dir": str(state.parent.parent / "other")}
    with pytest.raises(UserError, match=r"holds step 10 of a run of 10 steps, and one of 20 steps begins to decay at"):
        pretrain(make(**other, resume=str(state / "checkpoint_last.pt")), STREAM)
    pretrain(make(**other, resume=str(state / "checkpoint_before_decay.pt")), STREAM)
    pretrain(make(epochs=4, optim=CONSTANT), STREAM)
    _assert_equal(_weights(state.parent), _weights(Path(other["output_dir"])))


def test_two_processes_make_longer_what_one_began(
    make: Make, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """The joint batch is the same, so that it is the same run; the state before the decay is put back once for both."""
    pretrain(make(optim=CONSTANT), STREAM)
    folder, alone = make().output_dir, tmp_path / "alone"
    shutil.copytree(folder, alone)
    pretrain(make(epochs=4, optim=CONSTANT, output_dir=str(alone)), STREAM)
    batch_size = make().dataset.batch_size
    two = make(epochs=4, optim=CONSTANT, distributed=True, dataset={"batch_size": batch_size // 2})
    path = tmp_path / "two.json"
    path.write_text(two.model_dump_json(exclude_unset=True))
    run_two(tmp_path, project / "scripts" / "pretrain_dino_hands.py", "--config", str(path))
    assert checkpoint.load(folder / "previous" / "steps_10" / "checkpoint_last.pt")["trainer"]["step"] == 10
    ours, theirs = (read_metrics(one / "metrics.jsonl") for one in (folder, alone))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] and ours[-1]["step"] == 20
    for a, b in zip(ours, theirs, strict=True):
        if "train/loss" in b:
            assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-2), a["step"]
