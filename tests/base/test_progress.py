"""Progress in a log and on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import time

import pytest

from signstreams.progress import BASIS_S, Progress, UnlikeParts, duration, silenced


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds as `signstreams.progress` reads it, to be changed by a test."""
    clock = [0.0]
    monkeypatch.setattr("signstreams.progress.time.monotonic", lambda: clock[0])
    return clock


def test_progress_in_a_log_is_plain_lines_with_rate() -> None:
    log = io.StringIO()
    with Progress(10, "frames", "extract", every_s=0.0, stream=log) as progress:
        progress.skip(4)
        progress.advance(2, loss=1.23456, stage="a")
        progress.advance(4)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("extract: 6/10 frames, ")
    assert lines[0].endswith("loss 1.235, stage a")
    assert lines[-1].startswith("extract: 10/10 frames")
    assert len(lines) == 2  # the end is said once
    assert "\r" not in log.getvalue()


def test_work_within_a_longer_one_counts_and_says_nothing() -> None:
    log = io.StringIO()
    with Progress(2, "frames", "translate", every_s=0.0, stream=log) as outer:
        with silenced(), Progress(5, "crops", "embed", every_s=0.0, stream=log) as inner:
            inner.advance(5)
        outer.advance(2)
    assert inner.done == 5 and "embed" not in log.getvalue()
    assert log.getvalue().startswith("translate: 2/2 frames")
    with Progress(1, "crops", "embed", every_s=0.0, stream=log) as after:
        after.advance(1)
    assert "embed: 1/1 crops" in log.getvalue()


def test_a_terminal_that_was_closed_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w")
    with Progress(2, "steps", "train", every_s=0.0, stream=stream) as progress:
        os.close(ours)
        time.sleep(0.2)
        progress.advance(2)
    assert progress.done == 2
    with contextlib.suppress(OSError):  # of what it could not write
        stream.close()


def test_a_name_in_a_line_cannot_steer_the_terminal() -> None:
    progress = Progress(2, "videos", "extract")
    progress.advance(1, last="\x1b[2J\n")
    assert progress.line().endswith(r"last \x1b[2J\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_a_bar() -> None:
    terminal = Terminal()
    with Progress(2, "frames", "extract", stream=terminal) as progress:
        progress.advance(2)
    assert terminal.getvalue().startswith("\r\x1b[K█")
    assert terminal.getvalue().endswith("\n")


def test_a_bar_never_wraps_and_a_terminal_without_codes_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    with Progress(2, "frames", "a rather long label", stream=terminal) as progress:
        progress._last_s = 0.0
        progress.advance(1)
    first, last = terminal.getvalue().split("\r\x1b[K")[1:]
    assert len(first) == 39 and "frames" in last
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    with Progress(2, "frames", "extract", stream=dumb) as progress:
        progress.advance(2)
    assert dumb.getvalue().startswith("extract: 2/2 frames")


def test_work_of_hours_prints_a_line_a_minute(now: list[float]) -> None:
    log = io.StringIO()
    progress = Progress(None, "steps", "train", stream=log)
    counts = []
    for _ in range(3):
        for _ in range(3600):
            now[0] += 1
            progress.advance()
        counts.append(log.getvalue().count("\n") - sum(counts))
    assert counts[1:] == [60, 60] and 90 < counts[0] < 360


def test_durations_read_naturally() -> None:
    assert [duration(s) for s in (8, 200, 18120)] == ["8 s", "3 min 20 s", "5 h 02 min"]


def test_what_an_earlier_run_did_does_not_enter_the_rate(now: list[float]) -> None:
    progress = Progress(100, "frames", "extract", stream=io.StringIO())
    progress.skip(50)
    now[0] = 10.0
    progress.advance(20)
    now[0] = 20.0
    progress.advance(20)
    assert progress.line() == "extract: 90/100 frames, 2/s, 5 s left"
    now[0] = 25.0
    progress.advance(10)
    assert progress.line() == "extract: 100/100 frames, 2/s, took 25 s"


def test_the_wait_for_the_first_unit_does_not_enter_the_time_left(now: list[float]) -> None:
    progress = Progress(1000, "frames", "extract", stream=io.StringIO())
    now[0] = 30.0  # models were loaded
    progress.advance(1)
    assert progress.line() == "extract: 1/1000 frames, 0.0333/s"
    now[0] = 30.0 + BASIS_S - 0.1
    progress.advance(48)
    assert "left" not in progress.line()  # too little to tell
    now[0] = 40.0
    progress.advance(52)
    assert progress.line() == "extract: 101/1000 frames, 2.52/s, 1 min 30 s left"


def test_parts_of_unlike_sizes_are_told_by_what_the_finished_ones_took(now: list[float]) -> None:
    parts = UnlikeParts({"short": 10, "long": 300, "old": 500, "other": 90}, at_once=2)
    progress = Progress(4, "videos", "extract", stream=io.StringIO(), left_s=parts.left_s)
    parts.leave_out("old")
    progress.skip(1)
    assert "left" not in progress.line()
    now[0] = 25.0  # of which models took 20 to load
    parts.finish("short", 5.0)
    progress.advance(1)
    assert progress.line().endswith("1 min 38 s left")  # 390 / 10 x 5 s, by two at once
    now[0] = 65.0
    assert parts.left_s() == 57.5
    parts.finish("other", 45.0)
    assert parts.left_s() == 75.0
    now[0] = 999.0
    assert parts.left_s() == 0.0


def test_work_of_unknown_length_has_no_end_to_tell() -> None:
    progress = Progress(None, "steps", "train", stream=io.StringIO())
    progress.advance(3)
    assert progress.line().startswith("train: 3 steps, ") and "left" not in progress.line()
