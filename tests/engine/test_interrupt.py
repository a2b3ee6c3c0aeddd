"""Signals become a request to stop."""

from __future__ import annotations

import os
import signal

import pytest

from signstreams.engine.interrupt import stop_on_signal


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
