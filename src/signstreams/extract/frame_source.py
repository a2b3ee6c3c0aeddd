"""Sources of frames with times: the interface, folders of images, and sampling at a constant rate."""

from __future__ import annotations

import math
import re
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np

from signstreams.array_types import Pixels
from signstreams.errors import raise_if_of_machine
from signstreams.extract.damage import damage_text, is_damaged_jpeg, jpeg_segments
from signstreams.formats.video_metadata import LONGEST_GAP_S
from signstreams.formats.video_sources import IMAGE_SUFFIXES, VideoSource, natural_key


class Picture(NamedTuple):
    """Payload of a frame of a `Source`."""

    index: int  # type: ignore[assignment]  # in the source; hides tuple.index
    content: Any  # what `Source.image` takes
    is_damaged: bool  # whether it shows, at least in part, what was never filmed


class Timed(NamedTuple):
    """Anything shown from ``time_s`` on for ``duration_s``."""

    time_s: float
    duration_s: float
    payload: Any


class Sampled(NamedTuple):
    """An output frame: its time, what it shows, and whether the output frame before shows the same."""

    time_s: float
    payload: Any
    is_repeat: bool


class Gap(NamedTuple):
    """Frames follow each other by more than `LONGEST_GAP_S`."""

    start_s: float  # time of the last frame before it
    end_s: float  # time of the first one after it, or the end of the video


def sample_at_rate(
    frames: Iterable[Timed], fps: float, source_fps: float, gaps: list[Gap] | None = None
) -> Iterator[Sampled]:
    """Constant output rate from any source rate, also a variable one.

    Output frame k, at ``t0 + k / fps``, shows the last source frame at or before that time, with a tolerance of half a
    source frame (at most half an output frame): at a constant source rate the nearest frame is taken, and rounded
    timestamps (29.97 in milliseconds) never show a frame twice by accident. A source slower than ``fps`` repeats
    frames; the last frame counts for its own duration: 60 frames at 30 Hz give 50 at 25 Hz. ``frames`` rise in time;
    ``source_fps`` is the mean rate of the source, Hz, 0 when unknown.

    A frame before a `Gap` is shown once and not repeated until the next one: a wrong timestamp may be days ahead. These
    gaps are appended to ``gaps``.
    """
    early_s = 0.5 / max(fps, source_fps)
    shown: Timed | None = None
    start_s, num_out, was_shown = 0.0, 0, False
    for frame in frames:
        if shown is None:
            start_s = frame.time_s
        else:
            is_gap = frame.time_s - shown.time_s > LONGEST_GAP_S
            until_s = shown.time_s + 1 / fps if is_gap else frame.time_s
            while start_s + num_out / fps + early_s < until_s:
                yield Sampled(start_s + num_out / fps, shown.payload, was_shown)
                num_out, was_shown = num_out + 1, True
            if is_gap:
                num_out = max(num_out, math.ceil((frame.time_s - early_s - start_s) * fps))
                if gaps is not None:
                    gaps.append(Gap(shown.time_s, frame.time_s))
        shown, was_shown = frame, False
    if shown is None:
        return
    end_s = shown.time_s + shown.duration_s
    if shown.duration_s > LONGEST_GAP_S:
        if gaps is not None:
            gaps.append(Gap(shown.time_s, end_s))
        end_s = shown.time_s + 1 / fps
    # By the tolerance, an output frame may be before the last source frame's time; and there is always one.
    while num_out == 0 or start_s + num_out / fps < end_s - 1e-3 / fps:
        yield Sampled(start_s + num_out / fps, shown.payload, was_shown)
        num_out, was_shown = num_out + 1, True


def sample_every(frames: Iterable[Timed]) -> Iterator[Sampled]:
    """Every source frame at its own time."""
    for frame in frames:
        yield Sampled(frame.time_s, frame.payload, False)


def within(frames: Iterable[Sampled], spans_s: Sequence[tuple[float, float]]) -> Iterator[Sampled]:
    """Frames with start <= time < end of one of the spans (rising, apart), as a pass over all frames has them."""
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


MIN_SIDE_PX, MAX_SIDE_PX = 2, 16_384
MAX_PIXELS = 2**26  # 8192x8192, twice 8K video; a frame of it takes 200 MB


class UnreadableVideoError(Exception):
    """The video holds nothing to extract; the message states why."""


class Source(Protocol):
    """A container or a folder of images."""

    width_px: int  # of the upright frame with square pixels
    height_px: int
    fps: float  # mean rate as declared, Hz; 0 when unknown
    duration_s: float | None  # length as declared; None when unknown
    assumed_matrix: Literal["bt601", "bt709"] | None  # of YUV that does not state its own
    end_s: float | None  # end of the last frame; None until it was reached

    @property
    def note(self) -> str | None:
        """What was lost so far; None if nothing."""

    def timed(self, ranges_s: Sequence[tuple[float, float]] | None) -> Iterator[Timed]:
        """Frames in rising time; the payload is a `Picture`.

        With ``ranges_s`` (rising, apart), frames that no range needs may be left out. A range (a, b) needs the last
        frame at or before a, all within, and the first after b. The first frame of the video is always included.
        """
        ...

    def image(self, frame: Any) -> Pixels:
        """(H, W, 3) uint8 RGB of the content of a `Picture`."""
        ...

    def close(self) -> None:
        """Close files."""
        ...


def check_size(width_px: int, height_px: int) -> None:
    """Raise `UnreadableVideoError` for an impossible size."""
    if not (MIN_SIDE_PX <= width_px <= MAX_SIDE_PX and MIN_SIDE_PX <= height_px <= MAX_SIDE_PX):
        raise UnreadableVideoError(
            f"frames are {width_px}x{height_px} px, expected sides of {MIN_SIDE_PX} to {MAX_SIDE_PX}"
        )
    if width_px * height_px > MAX_PIXELS:
        raise UnreadableVideoError(f"frames are {width_px}x{height_px} px, expected at most {MAX_PIXELS:,} pixels")


def add_note(note: str | None, text: str) -> str:
    """Both, the earlier one first."""
    return text if note is None else f"{note}; {text}"


_MAX_NAMED = 5


class FolderSource:
    """Images of a folder, in natural order at a constant rate; see `Source`.

    The numbers in their names give their times: with 1, 2, 5 two frames are missing, and the third is at 4 / rate. An
    image that cannot be decoded is missing, too. All are scaled to the size of the first.
    """

    assumed_matrix: Literal["bt601", "bt709"] | None = None  # a JPEG's is that of JFIF, other images are RGB

    def __init__(self, source: VideoSource, fps: float) -> None:
        files = source.image_files()
        if not files:
            raise UnreadableVideoError(f"the folder holds no images ({', '.join(IMAGE_SUFFIXES)})")
        left_out = stray_images([file.name for file in files])
        self._files = [file for file in files if file.name not in left_out]
        self._left_out = sorted(left_out, key=natural_key)
        places, self._numbering = frame_places([file.stem for file in self._files])
        self._times_s = [place / fps for place in places]
        self._bad: dict[int, str] = {}
        self._scaled: set[int] = set()
        self._damaged: set[int] = set()
        self._num_given = 0
        self.fps = fps
        self.duration_s: float | None = self._times_s[-1] + 1 / fps
        self.end_s: float | None = None
        first = next((image for index in range(len(self._files)) if (image := self._decode(index)) is not None), None)
        if first is None:
            raise UnreadableVideoError(f"none of the folder's {len(self._files)} images can be decoded")
        self._first_index = len(self._bad)
        self.height_px, self.width_px = first.shape[:2]
        check_size(self.width_px, self.height_px)

    @property
    def note(self) -> str | None:
        """What was lost so far."""
        note = self._numbering
        if self._left_out:
            text = f"left out, as they are not named like the other images: {_named(self._left_out)}"
            note = add_note(note, text)
        if self._bad:
            note = add_note(note, f"cannot be decoded: {_named([self._bad[index] for index in sorted(self._bad)])}")
        if self._damaged:
            names = [self._files[index].name for index in sorted(self._damaged)]
            note = add_note(note, f"{damage_text(len(names), self._num_given)} ({_named(names)})")
        if self._scaled:
            size = f"{self.width_px}x{self.height_px} px"
            note = add_note(note, f"{len(self._scaled)} images are not of {size} as the first, and were scaled")
        return note

    def timed(self, ranges_s: Sequence[tuple[float, float]] | None) -> Iterator[Timed]:
        """Frames in rising time; images that no range needs are not opened."""
        for index in range(len(self._files)) if ranges_s is None else self._needed(ranges_s):
            if index == len(self._files) - 1:
                self.end_s = self.duration_s
            if (image := self._decode(index)) is None:
                continue
            if image.shape[:2] != (self.height_px, self.width_px):
                self._scaled.add(index)
                image = cv2.resize(image, (self.width_px, self.height_px), interpolation=cv2.INTER_AREA)
            self._num_given += 1
            yield Timed(self._times_s[index], 1 / self.fps, Picture(index, image, index in self._damaged))

    def image(self, frame: Pixels) -> Pixels:
        """See `Source`; the content is the image."""
        return frame

    def close(self) -> None:
        """See `Source`; no file is open."""

    def _needed(self, ranges_s: Sequence[tuple[float, float]]) -> Iterator[int]:
        yield self._first_index
        done = self._first_index
        for start_s, stop_s in ranges_s:
            low = max(done, bisect_right(self._times_s, start_s) - 1)
            while low > done and self._decode(low) is None:  # the image before is still shown
                low -= 1
            high = bisect_right(self._times_s, stop_s)
            yield from range(max(low, done + 1), min(high + 1, len(self._files)))
            done = max(done, high)

    def _decode(self, index: int) -> Pixels | None:
        """(H, W, 3) uint8 RGB, transparent parts over black; None for a file that is not a whole image."""
        data = self._files[index].read_bytes()
        flag = cv2.IMREAD_UNCHANGED if _has_alpha(data) else cv2.IMREAD_COLOR
        width_px, height_px = claimed_px(data) or (0, 0)
        is_absurd = not data or width_px * height_px > MAX_PIXELS
        try:
            image = None if is_absurd else cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        except cv2.error as error:
            raise_if_of_machine(error, self._files[index])
            image = None
        if image is None:
            self._bad[index] = self._files[index].name
            return None
        if data[:2] == b"\xff\xd8" and index not in self._damaged and is_damaged_jpeg(data):
            self._damaged.add(index)
        if image.dtype == np.uint16:
            image = np.right_shift(image, 8).astype(np.uint8)
        if image.ndim == 3 and image.shape[2] == 4:
            image = (image[..., :3] * (image[..., 3:] / 255.0)).astype(np.uint8)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"


def claimed_px(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of an image claims; None for a header that is of none of our kinds, or cut."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"\xff\xd8"):
            for marker, place in jpeg_segments(data):
                if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
                    height, width = struct.unpack_from(">HH", data, place.start + 5)
                    return width, height
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _claimed_by_webp(data)
    except struct.error:
        pass
    return None


def _claimed_by_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _has_alpha(data: bytes) -> bool:
    """Whether a PNG or WebP declares transparency; OpenCV would show the colours hidden under it."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[33:2000]
    return data[8:16] == b"WEBPVP8X" and bool(data[20] & 0x10)


_MIN_ALIKE, _MAX_STRAY_RATIO = 3, 0.1


def stray_images(names: Sequence[str]) -> set[str]:
    """Images of a folder of frames that are none: ``thumbnail.jpg``, and ``0005.png`` beside ``0005.jpg``.

    A few (one, or up to a tenth) whose names, numbers aside, differ from those of all the others; and of two with one
    name the one whose ending is rarer.
    """
    stems = {name: name.rpartition(".")[0] for name in names}
    endings = Counter(name.rpartition(".")[2].lower() for name in names)
    twins = Counter(stems.values())
    best: dict[str, str] = {}
    for name in names:
        stem = stems[name]
        if (
            stem not in best
            or endings[name.rpartition(".")[2].lower()] > endings[best[stem].rpartition(".")[2].lower()]
        ):
            best[stem] = name
    strays = {name for name in names if twins[stems[name]] > 1 and best[stems[name]] != name}
    shapes = {name: re.sub(r"[0-9]+", "0", stems[name]) for name in names if name not in strays}
    shape, num_alike = Counter(shapes.values()).most_common(1)[0]
    others = {name for name in shapes if shapes[name] != shape}
    if "0" in shape and num_alike >= _MIN_ALIKE and len(others) <= max(1, _MAX_STRAY_RATIO * num_alike):
        strays |= others
    return strays


def frame_places(names: Sequence[str]) -> tuple[list[int], str | None]:
    """Place of each frame on the grid of the rate, by the last number in its name; and a note on missing frames.

    The median distance counts as one frame: in thinned video 0, 5, 10 are neighbours. Names without numbers, or with
    irregular ones (times in milliseconds), are taken one after the other.
    """
    in_order = list(range(len(names)))
    found = [re.search(r"([0-9]+)[^0-9]*$", name) for name in names]
    if len(names) < 3 or not all(found):
        return in_order, None
    numbers = [int(match[1]) for match in found if match]
    steps = [after - before for before, after in pairwise(numbers)]
    step = sorted(steps)[(len(steps) - 1) // 2]
    if step <= 0 or any(s <= 0 or s % step for s in steps):
        return in_order, None
    places = [(number - numbers[0]) // step for number in numbers]
    num_missing = places[-1] + 1 - len(places)
    if not num_missing:
        return places, None
    first = next(numbers[i] + step for i, s in enumerate(steps) if s > step)
    return places, f"{num_missing} of {places[-1] + 1} frames are missing by their numbers, the first is {first}"
