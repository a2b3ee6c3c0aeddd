"""Progress of long work: a bar on a terminal, a plain line now and then in a log; both with rate and time left."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from signstreams.ids import printable

BAR_WIDTH = 24
MAX_EVERY_S = 60.0
LINES_BEFORE_SLOWER = 60
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
    times a second.
    """

    def __init__(
        self, total: int | None, unit: str, label: str, *, every_s: float = 10.0, stream: TextIO | None = None
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
        if self.total is not None and self.done < self.total and rate_hz > 0:
            parts.append(f"{duration((self.total - self.done) / rate_hz)} left")
        elif self.done == self.total:
            parts.append(f"took {duration(elapsed_s)}")
        parts += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._shown.items()
        ]
        return printable(", ".join(parts))

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


def duration(seconds: float) -> str:
    """``"8 s"``, ``"3 min 20 s"``, ``"5 h 02 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
