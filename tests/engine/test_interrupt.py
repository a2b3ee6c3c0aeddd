"""Signals become a request, processes are told apart, and one rank's error reaches all."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from signstreams.engine import distributed
from signstreams.engine.interrupt import stop_on_signal
from signstreams.errors import UserError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_the_earlier_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert signal.getsignal(number) is before


def test_ctrl_c_is_noted_once_and_does_not_ask_for_another_try(capfd: pytest.CaptureFixture[str]) -> None:
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 75
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_code == 130
        assert capfd.readouterr().err.count("\n") == 2  # the first ends the line that ^C stands in
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_process_needs_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = distributed.start(device="cpu")
    assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
    tensor = torch.tensor([2.0])
    assert distributed.all_reduce_sum(tensor) is tensor
    assert distributed.all_reduce_sum(tensor).item() == distributed.all_reduce_max(tensor).item() == 2.0
    assert distributed.from_main("x") == "x"
    assert distributed.world_size() == 1
    distributed.barrier()
    distributed.close()


def test_asking_for_several_processes_without_torchrun_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun"):
        distributed.start(distributed=True, device="cpu")


def test_a_gpu_that_is_not_there_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device auto or cpu"):
        distributed.start(device="cuda")


def test_a_user_error_of_the_main_rank_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = distributed.start(device="cpu")
    with pytest.raises(UserError, match="folder"), distributed.main_first(world):
        raise UserError("folder: in the way")
