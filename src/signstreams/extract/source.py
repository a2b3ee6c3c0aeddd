"""What a video is to its reader: frames with times, one after the other; and the error when there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from signstreams.array_types import Pixels
from signstreams.extract.sampling import Timed

MIN_SIDE_PX, MAX_SIDE_PX = 2, 16_384


class UnreadableVideoError(Exception):
    """The video holds nothing to extract; the message says why."""


class Source(Protocol):
    """A container or a folder of images.

    Attributes:
        width_px, height_px: Size of the upright frame with square pixels.
        fps: Mean rate as declared, Hz; 0 when unknown.
        duration_s: Length as declared; None when unknown.
        end_s: Where the last frame ends; None until it was reached.
        note: What was lost so far; None when nothing was.
    """

    width_px: int
    height_px: int
    fps: float
    duration_s: float | None
    end_s: float | None

    @property
    def note(self) -> str | None: ...

    def timed(self, ranges_s: Sequence[tuple[float, float]] | None) -> Iterator[Timed]:
        """Frames in rising time; the payload is the index in the source and what `image` takes.

        With ``ranges_s`` (rising, apart) those that no range needs may be left out. A range (a, b) needs the last frame
        at or before a, all within, and the first after b. The first frame of the video is always given.
        """
        ...

    def image(self, frame: Any) -> Pixels:
        """(H, W, 3) uint8 RGB of a frame that `timed` gave."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


def check_size(width_px: int, height_px: int) -> None:
    """Raise `UnreadableVideoError` for a size that is none."""
    if not (MIN_SIDE_PX <= width_px <= MAX_SIDE_PX and MIN_SIDE_PX <= height_px <= MAX_SIDE_PX):
        raise UnreadableVideoError(
            f"frames are {width_px}x{height_px} px, expected sides of {MIN_SIDE_PX} to {MAX_SIDE_PX}"
        )


def add_note(note: str | None, text: str) -> str:
    """Both, the earlier one first."""
    return text if note is None else f"{note}; {text}"
