"""Progress of long work: a bar on a terminal, a plain line now and then in a log; both with rate and time left."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from signstreams.ids import printable

BAR_WIDTH = 24
MAX_EVERY_S = 60.0
LINES_BEFORE_SLOWER = 60
BASIS_S = 5.0  # of work behind the first unit, which waits for models and files, before the time left is told
_num_silenced = 0


@contextmanager
def silenced() -> Iterator[None]:
    """Within the block progress is counted and not shown: a longer work around it has a bar of its own."""
    global _num_silenced
    _num_silenced += 1
    try:
        yield
    finally:
        _num_silenced -= 1


class Progress:
    """Count ``total`` units of work (None if unknown), such as ``"frames"``; the label says of what: ``"extract"``.

    ``every_s`` seconds are between two log lines, more over hours of work, up to a minute; a terminal is refreshed ten
    times a second. ``left_s`` tells the time left (None while it cannot) of units that take unlike times.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str,
        *,
        every_s: float = 10.0,
        stream: TextIO | None = None,
        left_s: Callable[[], float | None] | None = None,
    ) -> None:
        self.total = total
        self.unit = unit
        self.label = label
        self.done = 0
        self._shown: dict[str, float | int | str] = {}
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every_s = 0.1 if self._is_terminal else every_s
        self._started_s = time.monotonic()
        self._resumed_at = 0
        self._first: tuple[float, int] | None = None  # time and count when the first unit was done
        self._left_s = self._left_by_rate_s if left_s is None else left_s
        self._last_s = self._started_s
        self._is_end_said = False
        self._is_silent = _num_silenced > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._print(last=True)

    def skip(self, units: int) -> None:
        """Count work of an earlier run, which does not enter the rate."""
        self.done += units
        self._resumed_at += units

    def advance(self, units: int = 1, **shown: float | int | str) -> None:
        """Count ``units`` more; ``shown`` are a few numbers worth watching."""
        self.done += units
        self._shown.update(shown)
        now_s = time.monotonic()
        if units and self._first is None:
            self._first = now_s, self.done
        every_s = self._every_s
        if not self._is_terminal:
            every_s = max(every_s, min(MAX_EVERY_S, (now_s - self._started_s) / LINES_BEFORE_SLOWER))
        if now_s - self._last_s >= every_s:
            self._print(last=False)

    def line(self) -> str:
        """What is shown now, such as ``extract: 120/480 frames, 24.1/s, 15 s left, loss 3.21``."""
        elapsed_s = max(time.monotonic() - self._started_s, 1e-9)
        rate_hz = (self.done - self._resumed_at) / elapsed_s
        count = f"{self.done}/{self.total}" if self.total is not None else str(self.done)
        parts = [f"{self.label}: {count} {self.unit}", f"{rate_hz:.3g}/s"]
        if self.done == self.total:
            parts.append(f"took {duration(elapsed_s)}")
        elif self.total is not None and self.done < self.total and (left_s := self._left_s()) is not None:
            parts.append(f"{duration(left_s)} left")
        parts += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._shown.items()
        ]
        return printable(", ".join(parts))

    def _left_by_rate_s(self) -> float | None:
        """By the rate since the first unit was done; None where that is too short a time."""
        if self.total is None or self._first is None:
            return None
        first_s, first_done = self._first
        since_s = time.monotonic() - first_s
        if since_s < BASIS_S or self.done == first_done:
            return None
        return (self.total - self.done) * since_s / (self.done - first_done)

    def _print(self, *, last: bool) -> None:
        self._last_s = time.monotonic()
        if self._is_silent:
            return
        text, end = self.line(), "\n"
        if self._is_terminal:
            share = min(1.0, self.done / self.total) if self.total else 0.0
            filled = round(share * BAR_WIDTH)
            text = f"{'█' * filled}{'·' * (BAR_WIDTH - filled)} {text}"
            if not last:  # a line that wraps could not be replaced
                text, end = text[: shutil.get_terminal_size().columns - 1], ""
            text = f"\r\x1b[K{text}"
        elif last and self._is_end_said:
            return
        self._is_end_said = self.done == self.total
        try:
            print(text, end=end, file=self._stream, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal was closed; SIGHUP follows
                raise


class UnlikeParts:
    """The time left of parts of different sizes, several at once, by the time that the finished ones took."""

    def __init__(self, sizes: dict[str, float], at_once: int) -> None:
        """Name of each part to its size, in any unit that all have."""
        self._due, self._at_once = dict(sizes), at_once
        self._done_size = self._done_s = 0.0
        self._last_s = time.monotonic()

    def leave_out(self, name: str) -> None:
        """Count a part neither as done nor as due."""
        self._due.pop(name)

    def finish(self, name: str, work_s: float) -> None:
        """Count a part as done, in so many seconds."""
        self._done_size += self._due.pop(name)
        self._done_s += work_s
        self._last_s = time.monotonic()

    def left_s(self) -> float | None:
        """Seconds left; None before a part is done."""
        if not self._done_size:
            return None
        due_s = sum(self._due.values()) * self._done_s / self._done_size / self._at_once
        return max(0.0, due_s - (time.monotonic() - self._last_s))


def duration(seconds: float) -> str:
    """``"8 s"``, ``"3 min 20 s"``, ``"5 h 02 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
