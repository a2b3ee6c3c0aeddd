"""Frames by timestamp: a constant output rate from any source rate, variable ones included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Timed(NamedTuple):
    """Anything shown from ``time_s`` on for ``duration_s``."""

    time_s: float
    duration_s: float
    payload: Any


class Sampled(NamedTuple):
    """An output frame: its time, what is shown, and whether the output frame before shows the same."""

    time_s: float
    payload: Any
    is_repeat: bool


def sample_at_rate(frames: Iterable[Timed], fps: float, source_fps: float) -> Iterator[Sampled]:
    """Output frame k, at ``t0 + k / fps``, shows the last source frame at or before that time.

    "Before" has a tolerance of half a source frame (at most half an output frame), so that at a constant source rate
    the nearest frame is taken, and rounded timestamps (29.97 in milliseconds) never show a frame twice by accident. A
    source slower than ``fps`` repeats frames; the last frame counts for its own duration: 60 frames at 30 Hz give 50
    at 25 Hz.

    Args:
        frames: Source frames in rising time.
        fps: Output rate, Hz.
        source_fps: Mean rate of the source, Hz; 0 when unknown.
    """
    early_s = 0.5 / max(fps, source_fps)
    shown: Timed | None = None
    start_s, num_out, was_shown = 0.0, 0, False
    for frame in frames:
        if shown is None:
            start_s = frame.time_s
        else:
            while start_s + num_out / fps + early_s < frame.time_s:
                yield Sampled(start_s + num_out / fps, shown.payload, was_shown)
                num_out, was_shown = num_out + 1, True
        shown, was_shown = frame, False
    if shown is None:
        return
    end_s = shown.time_s + shown.duration_s
    # One output frame may lie before the last source frame's time within the tolerance; and one frame is always given.
    while num_out == 0 or start_s + num_out / fps < end_s - 1e-3 / fps:
        yield Sampled(start_s + num_out / fps, shown.payload, was_shown)
        num_out, was_shown = num_out + 1, True


def sample_every(frames: Iterable[Timed]) -> Iterator[Sampled]:
    """Every source frame at its own time."""
    for frame in frames:
        yield Sampled(frame.time_s, frame.payload, False)


def within(frames: Iterable[Sampled], spans_s: Sequence[tuple[float, float]]) -> Iterator[Sampled]:
    """Those with start <= time < end of one of the spans, which rise and lie apart: what a pass over all would pick."""
    spans = iter(spans_s)
    start_s, end_s = next(spans, (0.0, 0.0))
    last = None
    for frame in frames:
        while frame.time_s >= end_s:
            if (span := next(spans, None)) is None:
                return
            start_s, end_s = span
        if frame.time_s >= start_s:
            yield frame._replace(is_repeat=frame.payload is last)
            last = frame.payload
