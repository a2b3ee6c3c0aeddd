"""Signals become a request to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from signstreams.processes import stop_on_signal


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Also where the tests themselves run under `nohup`."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_noted_and_the_earlier_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_stays_so(number: signal.Signals) -> None:
    """As under `nohup`, and in the background of a shell."""
    earlier = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), number)
            assert not stop
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, earlier)


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
