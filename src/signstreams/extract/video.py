"""Read a video once, frame by frame: by timestamp, upright, with square pixels, as RGB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from signstreams.array_types import Pixels
from signstreams.extract.container import ContainerSource
from signstreams.extract.frame_source import (
    FolderSource,
    Gap,
    Source,
    UnreadableVideoError,
    add_note,
    sample_at_rate,
    sample_every,
    within,
)
from signstreams.formats.video_sources import VideoSource

__all__ = ["Frame", "UnreadableVideoError", "VideoReader"]


@dataclass(frozen=True)
class Frame:
    """One output frame."""

    time_s: float  # seconds from the start of the video, as a player counts
    image: Pixels  # (H, W, 3) uint8 RGB, upright
    is_repeat: bool  # whether the output frame before shows the same image
    source_index: int  # of the frame shown, among all that the video decodes to, or among the images of a folder
    is_damaged: bool = False  # whether it shows, at least in part, what was never filmed
    head: tuple[float, float, float] | None = None
    """x, y and radius, px of the image, of the circle in which the signer's nose is; None where nobody else is known.
    """


class VideoReader:
    """One pass over a video: a file of any format that FFmpeg reads, or a folder of images at ``frames_fps``, Hz.

    With ``spans_s`` (rising, apart), only frames with start <= time < end of one of them are read. Size, rate and
    length are those of `frame_source.Source`.

    Raises:
        UnreadableVideoError: There is no frame to read; from `frames` if none is in the spans.
        OSError: The file cannot be opened at all.
    """

    def __init__(
        self, path: Path, *, frames_fps: float = 25.0, spans_s: Sequence[tuple[float, float]] | None = None
    ) -> None:
        self.path, self.spans_s = path, spans_s
        video = VideoSource.at(path)
        self._source: Source = FolderSource(video, frames_fps) if video.is_folder else ContainerSource(path)
        self.width_px, self.height_px = self._source.width_px, self._source.height_px
        self.fps, self.duration_s = self._source.fps, self._source.duration_s
        self.assumed_matrix = self._source.assumed_matrix
        self._gaps: list[Gap] = []  # that were not filled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._source.close()

    @property
    def note(self) -> str | None:
        """What was lost so far (the file ends early, packets could not be decoded); None when nothing was."""
        note, gaps = self._source.note, self._gaps
        if self.spans_s is not None:  # between spans nothing is read
            gaps = [gap for gap in gaps if any(gap.start_s < end and start < gap.end_s for start, end in self.spans_s)]
        if not gaps:
            return note
        first = f"{gaps[0].end_s - gaps[0].start_s:.1f} s after {gaps[0].start_s:.2f} s"
        more = f", and {len(gaps) - 1} more" if gaps[1:] else ""
        return add_note(note, f"no frame for {first}{more}: such gaps are not filled")

    @property
    def end_s(self) -> float | None:
        """End of the video once its last frame was read, which spans may not reach."""
        return self._source.end_s

    def length_s(self) -> float | None:
        """Length as declared, else from the timestamps of all packets, s; None when these do not tell it."""
        if self.duration_s is not None or not isinstance(self._source, ContainerSource):
            return self.duration_s
        return self._source.measured_s()

    def num_frames(self, fps: float | None) -> int | None:
        """Output frames to expect at a target rate, for the progress; None when unknown."""
        rate_hz = self.fps if fps is None else fps
        if not rate_hz or (self.duration_s is None and self.spans_s is None):
            return None
        end_s = float("inf") if self.duration_s is None else self.duration_s
        spans_s = [(0.0, end_s)] if self.spans_s is None else self.spans_s
        return max(1, round(sum(max(0.0, min(end, end_s) - start) for start, end in spans_s) * rate_hz))

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        """Frames at the target rate (see `sample_at_rate`), or every frame of the source. To be read once."""
        ranges_s = None
        if self.spans_s is not None:  # the rate's grid shows a frame up to half an output frame early
            ranges_s = [(start, end + (0.5 / fps if fps else 0.0)) for start, end in self.spans_s]
        source = self._source.timed(ranges_s)
        sampled = sample_every(source) if fps is None else sample_at_rate(source, fps, self.fps, self._gaps)
        if self.spans_s is not None:
            sampled = within(sampled, self.spans_s)
        image = None
        for item in sampled:
            index, content, is_damaged = item.payload
            if image is None or not item.is_repeat:
                image = self._source.image(content)
            yield Frame(item.time_s, image, item.is_repeat, index, is_damaged)
        if image is None:
            spans = ", ".join(f"{start:g} to {end:g} s" for start, end in self.spans_s or ())
            end = f" of {self.end_s:.2f} s" if self.end_s is not None else ""
            raise UnreadableVideoError(f"no frame{end} lies in its annotated spans ({spans})")
