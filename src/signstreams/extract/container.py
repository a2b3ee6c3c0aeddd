"""A video file as a source of frames, decoded by PyAV (FFmpeg's libraries): mp4, mkv, webm, mov, avi, GIF alike."""

from __future__ import annotations

import errno
import io
import struct
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Colorspace, VideoReformatter

from signstreams.array_types import Pixels
from signstreams.errors import raise_if_of_machine
from signstreams.extract.damage import WITHOUT_KEYFRAMES, DamageWatch, Decoded, damage_text
from signstreams.extract.frame_source import Picture, Timed, UnreadableVideoError, add_note, check_size

WITHOUT_PTS = "avi"  # this format does not store when a frame is shown, only the order of decoding


class _File(io.FileIO):
    """A file as FFmpeg reads it, which would take an error of disk or network for the end of the video."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.absolute())
        self._error: OSError | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Nothing from the first error on: `check` raises it, outside of FFmpeg."""
        try:
            return b"" if self._error else super().read(size) or b""
        except OSError as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """The new position; below zero where there is none, as FFmpeg's own files say it.

        FFmpeg asks for the last byte to learn the size, and a file that is being copied over may have none.
        """
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                self._error = self._error or error
            return -(error.errno or errno.EIO)

    def check(self) -> None:
        """Raise the error that was met, if any."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self.name)) from self._error

    def open(self) -> av.container.InputContainer:
        """The file as a container.

        Raises:
            OSError: The machine could not read it.
            FFmpegError: It is no video.
        """
        try:
            return av.open(self, "r", metadata_errors="replace")
        except FFmpegError as error:
            self.check()
            _raise_if_no_memory(error, Path(str(self.name)))
            raise


class Keyframe(NamedTuple):
    """A frame from which decoding can start."""

    index: int  # type: ignore[assignment]  # among all frames in order of display; hides tuple.index
    position: int  # among all packets in order of decoding
    pts: int  # timestamp of its packet, in units of the stream's time base
    seek_to: int
    """Timestamp that leads to it or to an earlier keyframe: mp4 seeks by decoding time, Matroska by display."""


@dataclass(frozen=True)
class PacketTable:
    """Every frame of a stream in order of display, known without decoding: to jump over frames not needed."""

    pts: list[int]  # timestamps, rising
    keyframes: list[Keyframe]
    tick: tuple[int, int]

    @classmethod
    def read(cls, path: Path, stream_index: int) -> PacketTable | None:
        """Read through a file (a GB in seconds); None when its packets do not tell what is shown when.

        Raises:
            OSError: The file cannot be opened.
        """
        shown: list[tuple[int, int | None, int, bool]] = []
        with _File(path) as file, file.open() as container:
            stream = container.streams[stream_index]
            is_unordered = stream.codec_context.name in WITHOUT_KEYFRAMES or container.format.name == WITHOUT_PTS
            if is_unordered or stream.time_base is None:
                return None
            tick = (stream.time_base.numerator, stream.time_base.denominator)
            try:
                for position, packet in enumerate(container.demux(stream)):
                    if packet.size == 0 or packet.is_discard:  # the end; what an edit list cuts off
                        continue
                    if packet.pts is None:
                        return None
                    shown.append((packet.pts, packet.dts, position, packet.is_keyframe))
            except FFmpegError as error:  # the file ends early: keep what is there
                _raise_if_no_memory(error, path)
            file.check()
        shown.sort(key=lambda entry: entry[0])
        pts = [entry[0] for entry in shown]
        if not pts or len(set(pts)) < len(pts):
            return None
        keyframes = [
            Keyframe(index, position, own_pts, own_pts if own_dts is None else min(own_pts, own_dts))
            for index, (own_pts, own_dts, position, is_key) in enumerate(shown)
            if is_key
        ]
        return cls(pts, keyframes, tick) if keyframes and keyframes[0].index == 0 else None

    def last_at(self, time_s: float) -> int:
        """Index of the last frame at or before a time of the file; of the first frame when there is none."""
        numerator, denominator = self.tick  # as PyAV computes a frame's time
        return max(0, bisect_right(self.pts, time_s, key=lambda pts: float(pts) * numerator / denominator) - 1)

    def keyframe_before(self, index: int) -> Keyframe:
        """Last keyframe at or before a frame."""
        return self.keyframes[bisect_right(self.keyframes, index, key=lambda key: key.index) - 1]


@lru_cache(maxsize=1)
def _read_packet_table(path: Path, stream_index: int, stamp: tuple[int, int]) -> PacketTable | None:
    """`PacketTable.read`, once for a file that is read in many parts; the ``stamp`` is another one if it changes."""
    return PacketTable.read(path, stream_index)


if TYPE_CHECKING:
    Packet = av.Packet[av.VideoStream]  # generic in its stubs alone

_EARLY_END_S = 0.5  # declared and decoded end may differ by a few frames without anything being lost
_MIN_JUMP_FRAMES = 24
"""Fewer frames are decoded rather than jumped over: a jump flushes the decoder and may read the file again."""
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_EPS_S = 1e-6  # the sum may be rounded differently from the times it is compared with


HD_LINES = 720
"""From here on a video that does not say how its YUV was made is taken for BT.709, as players do; below for BT.601."""


class ContainerSource:
    """The video stream of a file; see `frame_source.Source`. Of several, the one that a player shows.

    Raises:
        UnreadableVideoError: There is no frame to read.
        OSError: The file cannot be opened at all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note: str | None = None
        self._num_given = self._num_interlaced = self._num_damaged = 0
        self.assumed_matrix: Literal["bt601", "bt709"] | None = None
        self.end_s: float | None = None
        if path.stat().st_size == 0:
            raise UnreadableVideoError("the file is empty (0 bytes)")
        self._open()
        try:
            self._read_first()
        except BaseException:
            self.close()
            raise

    @property
    def note(self) -> str | None:
        """What was lost so far, which stream was read, and whether frames are interlaced."""
        note = self._note
        if self._num_damaged:
            note = add_note(note, damage_text(self._num_damaged, self._num_given))
        if self._streams_note:
            note = add_note(note, self._streams_note)
        if self._num_interlaced:
            note = add_note(
                note,
                f"{self._num_interlaced} of {self._num_given} frames are marked as interlaced: where hands move they "
                "show combs; deinterlace the video first (docs/extraction.md)",
            )
        return note

    def timed(self, ranges_s: Sequence[tuple[float, float]] | None) -> Iterator[Timed]:
        """Frames with rising times; a frame that does not advance (a broken timestamp) is dropped.

        Reading stops after the last range.
        """
        step_s = 1 / self.fps if self.fps else 0.04
        stop_s = float("inf") if ranges_s is None else ranges_s[-1][1] if ranges_s else 0.0
        last_s, num_dropped = None, 0
        for index, (frame, is_damaged) in self._all(None) if ranges_s is None else self._needed(ranges_s):
            time_s = self._time_s(frame)
            if time_s is None:
                time_s = 0.0 if last_s is None else last_s + step_s
            if last_s is not None and time_s <= last_s:
                num_dropped += 1
                continue
            tick = frame.time_base
            duration_s = float(frame.duration * tick) if frame.duration and tick is not None else step_s
            self._num_given += 1
            self._num_interlaced += frame.interlaced_frame
            self._num_damaged += is_damaged
            yield Timed(time_s, duration_s, Picture(index, frame, is_damaged))
            last_s, end_s = time_s, time_s + duration_s
            if time_s > stop_s:
                return
        self.end_s = end_s
        if num_dropped:
            text = f"{num_dropped} frames without a later timestamp than the one before were dropped"
            self._note = add_note(self._note, text)
        declared_s = self._declared_end_s()
        if declared_s is not None and end_s < declared_s - _EARLY_END_S:
            self._note = add_note(self._note, f"ends at {end_s:.2f} s of the {declared_s:.2f} s that it declares")

    def image(self, frame: av.VideoFrame) -> Pixels:
        """(H, W, 3) uint8 RGB, upright, square pixels, transparent parts over black."""
        width, height = self._stored_px  # a stream that changes its size midway is scaled to its first
        has_alpha = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
        # One context for all frames, in this thread: PyAV would set up swscale and its threads for each frame.
        format_ = "rgba" if has_alpha else "rgb24"
        matrix = Colorspace.ITU709 if self.assumed_matrix == "bt709" and _is_untagged_yuv(frame) else None
        converted = self._reformatter.reformat(frame, width, height, format_, src_colorspace=matrix, threads=1)
        pixels = converted.to_ndarray()
        if has_alpha:  # over black, like the padding of crops
            alpha = pixels[..., 3:]
            pixels = pixels[..., :3] if alpha.min() == 255 else (pixels[..., :3] * (alpha / 255.0)).astype(np.uint8)
        return self._turn.apply(pixels)

    def measured_s(self) -> float | None:
        """End of the last frame by the timestamps of all packets, without decoding; None when they do not tell it."""
        table = self._packet_table()
        if table is None:
            return None
        numerator, denominator = table.tick
        return table.pts[-1] * numerator / denominator - self._start_s + (1 / self.fps if self.fps else 0.0)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def _open(self) -> None:
        self._file = _File(self._path)
        try:
            self._container = self._file.open()
        except FFmpegError as error:
            self._file.close()
            kind = _other_kind(self._path)
            raise UnreadableVideoError(kind or f"is not a video that FFmpeg can open ({_reason(error)})") from error
        except BaseException:
            self._file.close()
            raise
        # The cover picture of a song is a video stream of one frame, marked as such.
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if streams and not (streams := [s for s in streams if s.codec_context is not None]):
            self.close()
            raise UnreadableVideoError("is in a format that FFmpeg has no decoder for")
        if not streams:
            has_others = bool(self._container.streams)
            self.close()
            raise UnreadableVideoError("has no video stream" + (" (only sound)" if has_others else ""))
        self._stream = max(streams, key=_preference)  # of equals the first
        self._streams_note = None
        decoder = self._stream.codec_context
        if len(streams) > 1:
            place = streams.index(self._stream) + 1
            size = f"{decoder.width}x{decoder.height} px"
            self._streams_note = f"holds {len(streams)} video streams: number {place} ({size}) was read"
        try:
            if decoder.width and decoder.height:  # before there is memory for it
                check_size(decoder.width, decoder.height)
        except UnreadableVideoError:
            self.close()
            raise
        if decoder.name == "h264":
            decoder.thread_count = 1  # with several, FFmpeg neither conceals faults nor tells of them
        decoder.copy_opaque = True  # for `DamageWatch`
        self._reformatter = VideoReformatter()
        self._num_read = 0  # packets given to the decoder
        self._decoded = self._decode(self._packets())

    def _read_first(self) -> None:
        self.fps = self._rate_hz()
        duration, tick = self._stream.duration, self._stream.time_base
        self.duration_s = None if duration is None or tick is None else float(duration * tick)
        if self.duration_s is None and self._container.duration is not None:
            self.duration_s = self._container.duration / av.time_base
        try:
            self._decoded_first = next(self._decoded)
        except StopIteration:
            raise UnreadableVideoError(f"no frame can be decoded{f' ({self._note})' if self._note else ''}") from None
        self._first = self._decoded_first.frame
        # For some Matroska files FFmpeg has no start time, and for some with sound one after the first frames.
        start, first_s = self._container.start_time, self._first.time
        self._start_s = (first_s or 0.0) if start is None else start / av.time_base
        if first_s is not None and self._container.format.name != WITHOUT_PTS:
            self._start_s = min(self._start_s, first_s)
        frame, ratio = self._first, self._stream.sample_aspect_ratio
        wide = float(ratio) if ratio and 0.1 < ratio < 10 else 1.0  # of a pixel: old TV formats have no square ones
        self._stored_px = (max(1, round(frame.width * wide)), frame.height)
        self._turn = _upright(frame)
        self.width_px, self.height_px = self._stored_px[::-1] if self._turn.is_transposed else self._stored_px
        check_size(self.width_px, self.height_px)
        if _is_untagged_yuv(frame):
            self.assumed_matrix = "bt709" if min(frame.width, frame.height) >= HD_LINES else "bt601"

    def _rate_hz(self) -> float:
        """Mean rate as declared, Hz; 0 when unknown. AVI counts frames, which FFmpeg may take for fields of H.264."""
        rate, tick = self._stream.average_rate, self._stream.time_base
        if rate and tick and self._container.format.name == WITHOUT_PTS:
            rate = min(rate, 1 / tick)
        return float(rate or 0)

    def _time_s(self, frame: av.VideoFrame) -> float | None:
        """Seconds from the start of the file; None when the frame has no timestamp."""
        if self._container.format.name != WITHOUT_PTS:
            return None if frame.time is None else frame.time - self._start_s
        if frame.dts is None or self._first.dts is None or frame.time_base is None:
            return None
        first = self._stream.start_time or 0  # the decoder gives the first frame some packets late
        return float((frame.dts - self._first.dts + first) * frame.time_base) - self._start_s

    def _declared_end_s(self) -> float | None:
        """Declared end of the pictures; None when unknown.

        Matroska declares the length of the whole file only, and sound may go on. For a cut AVI FFmpeg guesses a length,
        but the header counts frames.
        """
        if self._container.format.name == WITHOUT_PTS and self._stream.frames and self.fps:
            return self._stream.frames / self.fps
        if self._stream.duration is not None and self._stream.time_base is not None:
            ticks = (self._stream.start_time or 0) + self._stream.duration
            return float(ticks * self._stream.time_base) - self._start_s
        if self._container.duration is None or self._container.streams.audio:
            return None
        return self._container.duration / av.time_base - self._start_s

    def _packets(self) -> Iterator[Packet]:
        """Packets of the stream in order of the file; ends, with a note, where reading breaks off."""
        try:
            yield from self._container.demux(self._stream)
        except FFmpegError as error:
            self._file.check()
            _raise_if_no_memory(error, self._path)
            self._note = f"reading broke off: {_reason(error)}"
        self._file.check()

    def _decode(self, packets: Iterator[Packet]) -> Generator[Decoded, None, None]:
        """Frames in order of display; a packet that cannot be decoded is skipped and noted.

        Raises:
            OSError: The machine failed, not the video: disk, network, memory.
        """
        num_bad, first_error = 0, ""
        watch = DamageWatch(self._stream.codec_context.name)
        for packet in packets:
            self._file.check()
            self._num_read += 1
            watch.feed(packet)
            try:
                frames = packet.decode()
            except FFmpegError as error:
                _raise_if_no_memory(error, self._path)
                watch.lost()
                num_bad, first_error = num_bad + 1, first_error or _reason(error)
                self._note = f"{num_bad} packets could not be decoded, the first with: {first_error}"
                continue
            yield from watch.frames(frames)
        yield from watch.rest()

    def _all(self, after_pts: int | None) -> Iterator[tuple[int, Decoded]]:
        """Every frame with its index, the first included; those up to ``after_pts`` are left out."""
        decoded: Decoded | None = self._decoded_first
        index = 0
        while decoded is not None:
            pts = decoded.frame.pts
            if after_pts is None or pts is None or pts > after_pts:
                yield index, decoded
            decoded, index = next(self._decoded, None), index + 1

    def _needed(self, ranges_s: Sequence[tuple[float, float]]) -> Iterator[tuple[int, Decoded]]:
        """Frames that the ranges need, with their indices, jumping over long stretches between them.

        Each decoded frame is checked against a table of all packets; at any difference everything is decoded from the
        start: slow but correct.
        """
        table = self._packet_table()
        if table is None or self._first.pts != table.pts[0]:
            yield from self._all(after_pts=None)
            return
        yield 0, self._decoded_first
        index = 0
        for start_s, stop_s in ranges_s:
            low = table.last_at(start_s + self._start_s - _EPS_S)
            high = min(table.last_at(stop_s + self._start_s + _EPS_S) + 1, len(table.pts) - 1)
            if high <= index:
                continue
            key = table.keyframe_before(low)
            if key.index > index and key.position - self._num_read >= _MIN_JUMP_FRAMES:
                self._jump(key)
                index = key.index - 1
            while index < high:
                decoded = next(self._decoded, None)
                pts = None if decoded is None else decoded.frame.pts
                if pts is not None and pts < table.pts[index + 1]:
                    continue  # shown before the keyframe although decoded after it
                if decoded is None or pts != table.pts[index + 1]:
                    after_pts = table.pts[index]
                    self._restart()
                    yield from self._all(after_pts)
                    return
                index += 1
                yield index, decoded

    def _packet_table(self) -> PacketTable | None:
        found = self._path.stat()
        return _read_packet_table(self._path, self._stream.index, (found.st_size, found.st_mtime_ns))

    def _jump(self, key: Keyframe) -> None:
        """Continue at this keyframe: by seeking if the container does that well, else by reading up to it."""
        self._decoded.close()
        try:
            self._container.seek(key.seek_to, stream=self._stream)
            packets = self._from(key)
        except FFmpegError as error:
            self._file.check()
            _raise_if_no_memory(error, self._path)
            packets = None
        if packets is None:  # not a seekable file, or it led past the keyframe
            self.close()
            self._open()
            self._decoded.close()
            packets = self._from(key)
        self._num_read = key.position
        self._decoded = self._decode(packets if packets is not None else iter(()))

    def _from(self, key: Keyframe) -> Iterator[Packet] | None:
        """Packets from the keyframe on, without decoding those before; None if it is not found."""
        packets = self._packets()
        for packet in packets:
            if packet.pts == key.pts:
                return chain([packet], packets)
            if packet.pts is not None and packet.pts > key.pts and packet.is_keyframe:
                return None
        return None

    def _restart(self) -> None:
        """Decode from the start again."""
        self.close()
        self._note = None
        self._open()
        self._decoded_first = next(self._decoded)
        self._first = self._decoded_first.frame


@dataclass(frozen=True)
class _Turn:
    """One of the eight symmetries of a rectangle: transposed first, then flipped."""

    is_transposed: bool
    flips_x: bool
    flips_y: bool

    def apply(self, image: Pixels) -> Pixels:
        """A contiguous copy, in one pass where OpenCV can: frames of 4K are 25 MB."""
        if self.is_transposed:
            if self.flips_x != self.flips_y:
                return cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE if self.flips_x else cv2.ROTATE_90_COUNTERCLOCKWISE)
            image = cv2.transpose(image)
        if self.flips_x or self.flips_y:
            return cv2.flip(image, -1 if self.flips_x and self.flips_y else int(self.flips_x))
        return np.ascontiguousarray(image)


def _upright(frame: av.VideoFrame) -> _Turn:
    """How a phone's display matrix (ISO 14496-12, 6.2.2) turns or mirrors the stored frame.

    It maps the stored (x, y) to the shown (a x + c y, b x + d y); quarter turns and mirrors occur in practice.
    """
    side_data = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]  # its keys are no text alone
    if side_data is None:
        return _Turn(False, False, False)
    a, b, _, c, d = struct.unpack_from("=5i", bytes(side_data))
    if abs(b) + abs(c) > abs(a) + abs(d):
        return _Turn(True, flips_x=c < 0, flips_y=b < 0)
    return _Turn(False, flips_x=a < 0, flips_y=d < 0)


def _preference(stream: av.VideoStream) -> tuple[bool, bool, int]:
    """Orders the video streams of a file: a film before a thumbnail, then as FFmpeg's tools and players choose."""
    return (
        stream.frames != 1,
        bool(stream.disposition & stream.disposition.default),
        stream.codec_context.width * stream.codec_context.height,
    )


def _is_untagged_yuv(frame: av.VideoFrame) -> bool:
    """Whether its colours depend on a matrix that it does not state."""
    return frame.colorspace == _UNSPECIFIED and frame.format.name.startswith(("yuv", "nv", "p0", "uyvy", "yuyv"))


def _other_kind(path: Path) -> str:
    """What a file is that was taken for a video, and what to do about it; empty when it is something else."""
    with path.open("rb") as file:
        head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a Git LFS pointer, not the video itself; fetch it with: git lfs pull"
    if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page (HTML), as a failed download leaves it, not a video; download it again"
    return ""


def _raise_if_no_memory(error: FFmpegError, path: Path) -> None:
    """Raise an `OSError` for lack of memory.

    Other errors of the machine are with `_File`: FFmpeg gives EIO for faults of the video as well.
    """
    if isinstance(error, MemoryError):
        raise_if_of_machine(error, path)


def _reason(error: FFmpegError) -> str:
    return (error.strerror or str(error)).rstrip(".")
