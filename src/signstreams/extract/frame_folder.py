"""A folder of images as a source of frames."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from signstreams.array_types import Pixels
from signstreams.extract.sampling import Timed
from signstreams.extract.source import UnreadableVideoError, add_note, check_size
from signstreams.formats.frame_folders import IMAGE_SUFFIXES, image_files

_MAX_NAMED = 5


class FolderSource:
    """Images in natural order at a constant rate; see `source.Source`.

    The numbers in their names tell the time: with 1, 2, 5 two frames are missing, and the third is at 4 / rate. One
    that cannot be decoded is missing likewise. All are scaled to the size of the first.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._files = image_files(path)
        if not self._files:
            raise UnreadableVideoError(f"the folder holds no images ({', '.join(IMAGE_SUFFIXES)})")
        places, self._numbering = frame_places([file.stem for file in self._files])
        self._times_s = [place / fps for place in places]
        self._bad: dict[int, str] = {}
        self._scaled: set[int] = set()
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
        if self._bad:
            names = [self._bad[index] for index in sorted(self._bad)]
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            note = add_note(note, f"cannot be decoded: {', '.join(names[:_MAX_NAMED])}{more}")
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
            yield Timed(self._times_s[index], 1 / self.fps, (index, image))

    def image(self, frame: Pixels) -> Pixels:
        """It is decoded already."""
        return frame

    def close(self) -> None:
        """No file is open."""

    def _needed(self, ranges_s: Sequence[tuple[float, float]]) -> Iterator[int]:
        yield self._first_index
        done = self._first_index
        for start_s, stop_s in ranges_s:
            low = max(done, bisect_right(self._times_s, start_s) - 1)
            while low > done and self._decode(low) is None:  # what is on screen is the image before
                low -= 1
            high = bisect_right(self._times_s, stop_s)
            yield from range(max(low, done + 1), min(high + 1, len(self._files)))
            done = max(done, high)

    def _decode(self, index: int) -> Pixels | None:
        """(H, W, 3) uint8 RGB, over black where it is transparent; None for a file that is no whole image."""
        data = self._files[index].read_bytes()
        flag = cv2.IMREAD_UNCHANGED if _has_alpha(data) else cv2.IMREAD_COLOR
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
        except cv2.error:  # a header that claims an absurd size
            image = None
        if image is None:
            self._bad[index] = self._files[index].name
            return None
        if image.dtype == np.uint16:
            image = np.right_shift(image, 8).astype(np.uint8)
        if image.ndim == 3 and image.shape[2] == 4:
            image = (image[..., :3] * (image[..., 3:] / 255.0)).astype(np.uint8)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB)


def _has_alpha(data: bytes) -> bool:
    """Whether a PNG or WebP says that it has transparent pixels; OpenCV would show the colours hidden under them."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\4", b"\6") or b"tRNS" in data[33:2000]
    return data[8:16] == b"WEBPVP8X" and bool(data[20] & 0x10)


def frame_places(names: Sequence[str]) -> tuple[list[int], str | None]:
    """Place of each frame on the grid of the rate, from the last number in each name; and what is amiss.

    Their usual distance counts as one frame: of video that was thinned, 0, 5, 10 are neighbours. Names without numbers,
    or with irregular ones (times in milliseconds), are taken one after the other.
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
