"""One picture of a video: frames spread over it with what was found in them, and the crops that were cut.

Made while extracting, from frames as they pass: how many there will be is not known, so every n-th is kept, and n
doubles when too many are held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Floats, Ints, Pixels
from signstreams.extract.boxes import corners
from signstreams.extract.skeleton import STATE_COLOURS, draw_box, draw_skeleton
from signstreams.extract.tracks import FrameBoxes
from signstreams.files import write_bytes
from signstreams.streams import STREAMS, BoxState

NUM_TILES, NUM_COLUMNS = 8, 4
FRAME_PX = (320, 240)
"""Most that a frame takes of a tile, width and height."""
QUALITY = 70
_CROP_PX, _BORDER_PX, _GAP_PX = 100, 3, 8
_GROUND, _INK, _REGION = (24, 28, 36), (235, 238, 244), (255, 224, 130)


class _Kept(NamedTuple):
    """A frame that may be shown.

    Attributes:
        time_s: Its time.
        image: (h, w, 3) scaled down.
        scale: Over the size of the frame.
        keypoints: (543, 3).
        boxes: Of the streams.
        crops: As they were stored, scaled down; None where missing.
    """

    time_s: float
    image: Pixels
    scale: float
    keypoints: Floats
    boxes: FrameBoxes
    crops: list[Pixels | None]


class Preview:
    """Collects frames of one video and draws some of them.

    Args:
        expected: Frames to expect; None when unknown. A wrong number costs some scaling, nothing else.
    """

    def __init__(self, expected: int | None) -> None:
        self._stride = max(1, (expected or 0) // NUM_TILES)
        self._num_offered = 0
        self._kept: list[_Kept] = []

    def offer(
        self,
        time_s: float,
        image: Pixels,
        keypoints: Floats,
        boxes: FrameBoxes,
        crops: Sequence[Pixels | None],
    ) -> None:
        """Take the next frame, or pass it over.

        Args:
            time_s: Its time.
            image: (H, W, 3) uint8 RGB, faces hidden as in the crops.
            keypoints: (543, 3).
            boxes: Of the streams.
            crops: Crop of each stream; None where missing.
        """
        self._num_offered += 1
        if (self._num_offered - 1) % self._stride:
            return
        if len(self._kept) == 2 * NUM_TILES:
            self._kept = self._kept[::2]
            self._stride *= 2
            if (self._num_offered - 1) % self._stride:
                return
        scale = min(limit / side for limit, side in zip(FRAME_PX, image.shape[1::-1], strict=True))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        shown = [None if crop is None else _scaled(crop) for crop in crops]
        self._kept.append(_Kept(time_s, small, scale, keypoints, boxes, shown))

    def write(self, path: Path, region_px: tuple[int, int, int, int] | None = None) -> None:
        """Write the picture as a JPEG.

        Args:
            path: Where.
            region_px: Part of the frame in which the signer was looked for.
        """
        number = min(NUM_TILES, len(self._kept))
        places: Ints | list[int] = np.linspace(0, len(self._kept) - 1, number).round().astype(int) if number else []
        tiles = [_tile(self._kept[place], region_px) for place in places]
        _write(path, _grid(tiles) if tiles else _notice("no frame"))


def write_notice(path: Path, text: str) -> None:
    """A small picture in place of frames that are not there."""
    _write(path, _notice(text))


def _tile(kept: _Kept, region_px: tuple[int, int, int, int] | None) -> Pixels:
    """A frame with what was found in it, and its crops below."""
    image = kept.image.copy()
    if region_px is not None:
        draw_box(image, np.multiply(region_px, kept.scale), _REGION, 1)
    draw_skeleton(image, kept.keypoints)
    for box, state in zip(kept.boxes.box, kept.boxes.state, strict=True):
        if state != BoxState.MISSING:
            draw_box(image, corners(box) * kept.scale, STATE_COLOURS[state])
    _put_text(image, f"{kept.time_s:.1f} s", (6, image.shape[0] - 8))
    height_px = image.shape[0]
    tile = np.full((height_px + _GAP_PX // 2 + _CROP_PX, FRAME_PX[0], 3), _GROUND, np.uint8)
    left = (FRAME_PX[0] - image.shape[1]) // 2
    tile[:height_px, left : left + image.shape[1]] = image
    step = (FRAME_PX[0] - _CROP_PX) // (len(STREAMS) - 1)
    # The signer's right hand is on the left of the picture, as in the frame above.
    for place, stream in enumerate(("hand_r", "face", "hand_l")):
        index = STREAMS.index(stream)
        cell = tile[height_px + _GAP_PX // 2 :, place * step : place * step + _CROP_PX]
        cell[:] = STATE_COLOURS[kept.boxes.state[index]]
        crop = kept.crops[index]
        inner = cell[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]
        if crop is None:
            inner[:] = _GROUND
            _put_text(inner, "missing", (14, inner.shape[0] // 2 + 5))
        else:
            inner[:] = crop
    return tile


def _scaled(crop: Pixels) -> Pixels:
    side = _CROP_PX - 2 * _BORDER_PX
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA if crop.shape[0] > side else cv2.INTER_LINEAR)


def _grid(tiles: list[Pixels]) -> Pixels:
    columns = min(NUM_COLUMNS, len(tiles))
    height_px, width_px = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    grid = np.full((rows * (height_px + _GAP_PX) + _GAP_PX, columns * (width_px + _GAP_PX) + _GAP_PX, 3), _GROUND)
    for number, tile in enumerate(tiles):
        top = _GAP_PX + number // columns * (height_px + _GAP_PX)
        left = _GAP_PX + number % columns * (width_px + _GAP_PX)
        grid[top : top + height_px, left : left + width_px] = tile
    return grid


def _notice(text: str) -> Pixels:
    picture = np.full((FRAME_PX[1] // 2, FRAME_PX[0], 3), _GROUND, np.uint8)
    _put_text(picture, text, (16, picture.shape[0] // 2 + 6))
    return picture


def _put_text(image: Pixels, text: str, at: tuple[int, int]) -> None:
    for colour, thickness in ((_GROUND, 3), (_INK, 1)):
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)


def _write(path: Path, picture: Pixels) -> None:
    bgr = cv2.cvtColor(picture.astype(np.uint8), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    write_bytes(path, data.tobytes())
