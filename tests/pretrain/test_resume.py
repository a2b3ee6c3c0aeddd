"""Which checkpoint a run goes on from, and what it keeps of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.engine import checkpoint
from signstreams.engine.training_run import Stage, TrainingRun
from signstreams.errors import UserError
from signstreams.pretrain.run import HEALTH, pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer
from signstreams.processes import StopRequest

Make = Callable[..., PretrainConfig]
STREAM = "hand_r"


def _stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TrainingRun._leave_if_asked

    def ask(self: TrainingRun, stage: Stage[Any], stop: StopRequest, step_s: float) -> None:
        if stage.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, stage, stop, step_s)

    monkeypatch.setattr(TrainingRun, "_leave_if_asked", ask)


def test_a_run_that_was_given_a_checkpoint_goes_on_from_its_own_when_it_is_further(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    straight = pretrain(make(), STREAM)
    first = make(output_dir=str(tmp_path / "first"))
    config = make(output_dir=str(tmp_path / "second"), resume=str(first.output_dir / "checkpoint_last.pt"))
    for one, step in ((first, 3), (config, 6)):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            _stop_at(step, patch)
            pretrain(one, STREAM)
    with caplog.at_level("INFO"):
        assert pretrain(config, STREAM).read_bytes() == straight.read_bytes()
    assert "going on from step 6 of 10" in caplog.text


@pytest.mark.parametrize("name", ["checkpoint_last.pt", "state/checkpoint_last.pt"])
def test_the_folders_own_checkpoint_by_its_path_keeps_the_best(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(resume="auto")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        _stop_at(5, patch)
        patch.setattr(Trainer, "probe", lambda *_: {HEALTH: 10.0})
        pretrain(config, STREAM)
    monkeypatch.setattr(Trainer, "probe", lambda *_: {HEALTH: 1.0})
    pretrain(make(resume=str(config.output_dir / name)), STREAM)
    assert checkpoint.load(config.output_dir / "checkpoint_best.pt")["best"]["step"] == 4


def test_a_job_that_slurm_puts_back_goes_on_though_it_was_not_to_resume(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(resume="never")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        _stop_at(5, patch)
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
