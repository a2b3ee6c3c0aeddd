"""Read a video once, frame by frame: by timestamp, upright, with square pixels, as RGB.

Decoding is PyAV's (FFmpeg's libraries): mp4, mkv, webm, mov, avi and animated GIF alike.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData

from signstreams.extract.sampling import Timed, sample_at_rate, sample_every

MIN_SIDE_PX, MAX_SIDE_PX = 2, 16_384
_EARLY_END_S = 0.5  # declared and decoded end may differ by a few frames without anything being lost


class UnreadableVideoError(Exception):
    """The video holds nothing to extract; the message says why."""


@dataclass(frozen=True)
class Frame:
    """One output frame.

    Attributes:
        time_s: Seconds from the start of the video, as a player counts.
        image: (H, W, 3) uint8 RGB, upright.
        is_repeat: Whether the output frame before shows the same image.
        source_index: Which frame of the source is shown, counting all that the video decodes to from 0.
    """

    time_s: float
    image: np.ndarray
    is_repeat: bool
    source_index: int


class VideoReader:
    """One pass over a video.

    Attributes:
        width_px, height_px: Size of the upright frame with square pixels.
        fps: Mean rate of the source as declared, Hz; 0 when the file does not say.
        duration_s: Length as declared; None when the file does not say.
        note: After reading: what was lost (the file ends early, packets could not be decoded); None when nothing was.

    Raises:
        UnreadableVideoError: When there is no frame to read.
        OSError: When the file cannot be opened at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note: str | None = None
        if path.stat().st_size == 0:
            raise UnreadableVideoError("the file is empty (0 bytes)")
        try:
            self._container = av.open(str(path.absolute()), metadata_errors="replace")
        except FFmpegError as error:
            raise UnreadableVideoError(f"is not a video that FFmpeg can open ({_reason(error)})") from error
        try:
            self._open_stream()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._container.close()

    def num_frames(self, fps: float | None) -> int | None:
        """Output frames to expect at a target rate, for showing progress; None when the file does not say."""
        rate_hz = self.fps if fps is None else fps
        if self.duration_s is None or not rate_hz:
            return None
        return max(1, round(self.duration_s * rate_hz))

    def frames(self, fps: float | None = None) -> Iterator[Frame]:
        """Frames at the target rate (see `sampling`), or every frame of the source."""
        source = self._timed()
        chosen = sample_every(source) if fps is None else sample_at_rate(source, fps, self.fps)
        index, image = 0, None
        for sampled in chosen:
            if image is None or not sampled.is_repeat:
                index, image = sampled.payload[0], self._image(sampled.payload[1])
            yield Frame(sampled.time_s, image, sampled.is_repeat, index)

    def _open_stream(self) -> None:
        # A song's cover picture is a video stream of one frame, marked as such.
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise UnreadableVideoError("has no video stream" + (" (only sound)" if self._container.streams else ""))
        self._stream = streams[0]
        self.fps = float(self._stream.average_rate or 0)
        duration = self._stream.duration
        self.duration_s = None if duration is None else float(duration * self._stream.time_base)
        if self.duration_s is None and self._container.duration is not None:
            self.duration_s = self._container.duration / av.time_base
        self._start_s = (self._container.start_time or 0) / av.time_base
        self._decoded = self._decode()
        try:
            self._first = next(self._decoded)
        except StopIteration:
            raise UnreadableVideoError(f"no frame can be decoded{f' ({self.note})' if self.note else ''}") from None
        frame, ratio = self._first, self._stream.sample_aspect_ratio
        wide = 1.0 if not ratio or not 0.1 < ratio < 10 else float(ratio)  # of one pixel: old TV formats are not square
        self._stored_px = (max(1, round(frame.width * wide)), frame.height)
        self._turn = _upright(frame)
        self.width_px, self.height_px = self._stored_px[::-1] if self._turn.is_transposed else self._stored_px
        if not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in self._stored_px):
            raise UnreadableVideoError(
                f"frames are {self.width_px}x{self.height_px} px, expected sides of {MIN_SIDE_PX} to {MAX_SIDE_PX}"
            )

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Frames in order of display; a packet that cannot be decoded is passed over and noted."""
        num_bad, first_error = 0, ""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                self.note = f"reading broke off: {_reason(error)}"
                return
            if packet is None:
                break
            try:
                frames = packet.decode()
            except FFmpegError as error:
                num_bad, first_error = num_bad + 1, first_error or _reason(error)
                self.note = f"{num_bad} packets could not be decoded, the first with: {first_error}"
                continue
            yield from frames

    def _timed(self) -> Iterator[Timed]:
        """Decoded frames with rising times; one that does not advance (a broken timestamp) is dropped."""
        step_s = 1 / self.fps if self.fps else 0.04
        last_s, num_dropped, index = None, 0, -1
        frame: av.VideoFrame | None = self._first
        while frame is not None:
            index += 1
            time_s = frame.time
            if time_s is None:
                time_s = self._start_s if last_s is None else last_s + self._start_s + step_s
            time_s -= self._start_s
            if last_s is not None and time_s <= last_s:
                num_dropped += 1
            else:
                duration_s = float(frame.duration * frame.time_base) if frame.duration else step_s
                yield Timed(time_s, duration_s, (index, frame))
                last_s, end_s = time_s, time_s + duration_s
            frame = next(self._decoded, None)
        if num_dropped:
            self._add_note(f"{num_dropped} frames without a later timestamp than the one before were dropped")
        declared = self._stream.duration
        if declared is not None:
            declared_s = float(((self._stream.start_time or 0) + declared) * self._stream.time_base) - self._start_s
            if end_s < declared_s - _EARLY_END_S:
                self._add_note(f"ends at {end_s:.2f} s of the {declared_s:.2f} s that it declares")

    def _image(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._stored_px  # a stream that changes its size midway is scaled to its first
        has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
        pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24", width=width, height=height)
        if has_alpha:  # over black, as the crops' padding
            alpha = pixels[..., 3:]
            pixels = pixels[..., :3] if alpha.min() == 255 else (pixels[..., :3] * (alpha / 255.0)).astype(np.uint8)
        return self._turn.apply(np.ascontiguousarray(pixels))

    def _add_note(self, text: str) -> None:
        self.note = text if self.note is None else f"{self.note}; {text}"


@dataclass(frozen=True)
class _Turn:
    """One of the eight ways to lay a rectangle on itself: transposed first, then flipped."""

    is_transposed: bool
    flips_x: bool
    flips_y: bool

    def apply(self, image: np.ndarray) -> np.ndarray:
        if self.is_transposed:
            image = cv2.transpose(image)
        if self.flips_x or self.flips_y:
            image = cv2.flip(image, -1 if self.flips_x and self.flips_y else int(self.flips_x))
        return image


def _upright(frame: av.VideoFrame) -> _Turn:
    """How a phone's display matrix (ISO 14496-12, 6.2.2) turns or mirrors the stored frame.

    The matrix takes the stored (x, y) to the shown (a x + c y, b x + d y); quarter turns and mirrors occur in practice.
    """
    side_data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if side_data is None:
        return _Turn(False, False, False)
    a, b, _, c, d = struct.unpack_from("=5i", bytes(side_data))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return _Turn(True, flips_x=c < 0, flips_y=b < 0)
    return _Turn(False, flips_x=a < 0, flips_y=d < 0)


def _reason(error: FFmpegError) -> str:
    return (error.strerror or str(error)).rstrip(".")
