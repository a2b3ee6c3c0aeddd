"""Damaged bytes, and bounds on what reading them may cost: for tests that feed readers with random damage."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

MOST_BYTES, MOST_S = 1_900_000_000, 5
SLACK, WAIT_S = 5, 120
EXTREMES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\n",
    b'"',
    b"'",
    b"[",
    b"{",
    b"\xef\xbb\xbf",
    b"-1",
    b"nan",
    b"1e999",
    b"99999999",
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The same bytes after one to four damages, as of a bad disk, a cut transfer, an editor, or a hostile hand."""
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = min(rng.choice((1, 1, 2, 4, 16, 256)), len(data) - place)
        part = data[place : place + length]
        match rng.randrange(8):
            case 0:
                part = rng.randbytes(length)
            case 1:
                part = bytes(byte ^ 1 << rng.randrange(8) for byte in part)
            case 2:
                part = bytes(length)
            case 3:
                part = rng.choice(EXTREMES) * rng.choice((1, 1, 2, 300))
            case 4:
                part += part * rng.choice((1, 1, 50))
            case 5:
                part = b""
            case 6:  # another digit: of a shape, a size, a time
                digits = [index for index, byte in enumerate(data) if byte in b"0123456789"]
                place, length = (rng.choice(digits), 1) if digits else (0, 0)
                part = rng.choice((b"0", b"1", b"9", b"-1", b"77777")) if digits else b""
            case _:
                return data[:place]
        data = data[:place] + part + data[place + length :]
    return data


@contextlib.contextmanager
def bounded(most_s: float = MOST_S, most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Within it, more memory than this is a `MemoryError`, and far more time fails the test: neither is a user's error.

    Counted are `SLACK` times as many seconds of CPU, and `WAIT_S` of the clock: tests run side by side, and traced.
    """

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"far from done after {most_s:g} s")

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = {number: signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGVTALRM)}
    resource.setrlimit(resource.RLIMIT_AS, (now + most_bytes, hard))
    signal.setitimer(signal.ITIMER_REAL, WAIT_S)
    signal.setitimer(signal.ITIMER_VIRTUAL, SLACK * most_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
