"""One picture per video for people: frames with points and boxes, and the crops below them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.crops import encode
from signstreams.extract.frame_boxes import corners
from signstreams.extract.privacy import protect
from signstreams.extract.results import VideoJob
from signstreams.extract.video import Frame, UnreadableVideoError, VideoReader
from signstreams.files import write_bytes
from signstreams.formats.arrays import Tracks, keypoint_pieces, read_tracks
from signstreams.formats.crops import CropReader, evenly_spread, list_crops
from signstreams.formats.skeleton import LINES, Colour
from signstreams.formats.video_metadata import VideoMetadata
from signstreams.streams import SIDE_BY_SIDE, STREAMS, BoxState

# -- Drawing points and boxes; colours tell the sides apart

STATE_COLOURS: dict[int, Colour] = {
    BoxState.MISSING: (112, 120, 134),
    BoxState.DETECTED: (46, 144, 250),
    BoxState.TRACKED: (247, 144, 9),
    BoxState.FILLED: (155, 138, 251),
}
"""As on the page of the contract."""
_SHIFT = 3  # fractional bits of cv2's coordinates


def draw_skeleton(image: Pixels, keypoints: Floats) -> None:
    """Draw those of the (543, 3) keypoints that were found into an (H, W, 3) uint8 RGB image."""
    points = keypoints[:, :2] * (image.shape[1], image.shape[0])
    present = keypoints[:, 2] > 0
    for rows, colour, thickness in LINES:
        for start, end in pairwise(rows):
            if present[start] and present[end]:
                first, last = (
                    tuple(int(v) for v in np.clip(points[p] * 2**_SHIFT, -(2**20), 2**20)) for p in (start, end)
                )
                cv2.line(image, first, last, colour, thickness, cv2.LINE_AA, _SHIFT)


def draw_box(image: Pixels, corners: Sequence[float] | Floats, colour: Colour, thickness: int = 2) -> None:
    """Draw a rectangle x0, y0, x1, y1 px in place; a dark outline keeps it visible on any background."""
    x0, y0, x1, y1 = (round(float(np.clip(value, -(2**14), 2**14))) for value in corners)
    cv2.rectangle(image, (x0, y0), (x1, y1), (20, 22, 28), thickness + 2)
    cv2.rectangle(image, (x0, y0), (x1, y1), colour, thickness)


# -- The picture

NUM_TILES, NUM_COLUMNS = 8, 4
FRAME_PX = (320, 240)  # largest width and height of a frame in a tile
QUALITY = 70
_CROP_PX, _BORDER_PX, _GAP_PX = 100, 3, 8
_GROUND, _INK, _REGION = (24, 28, 36), (235, 238, 244), (255, 224, 130)


class _Kept(NamedTuple):
    """A frame that may be shown."""

    time_s: float
    image: Pixels  # (h, w, 3), scaled down
    scale: float  # of the image over the frame
    keypoints: Floats  # (543, 3)
    boxes: FrameBoxes
    crops: list[Pixels | None]  # scaled down; None where missing


class Preview:
    """Collects frames of one video as they pass and draws some of them.

    Their number is not known for sure: every n-th is kept, and n doubles when too many are held. A wrong ``expected``
    number, None when unknown, only costs some scaling.
    """

    def __init__(self, expected: int | None) -> None:
        self._stride = max(1, (expected or 0) // NUM_TILES)
        self._num_offered = 0
        self._kept: list[_Kept] = []

    def offer(
        self, time_s: float, image: Pixels, keypoints: Floats, boxes: FrameBoxes, crops: Sequence[Pixels | None]
    ) -> None:
        """Keep the next frame, or skip it. The image is (H, W, 3) uint8 RGB, its face hidden as in the crops."""
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
        """Write the picture as a JPEG; ``region_px`` is the part of the frame that was searched for the signer."""
        if not self._kept:
            write_notice(path, "no frame")
            return
        places = evenly_spread(min(NUM_TILES, len(self._kept)), len(self._kept), with_ends=True)
        tiles = [_tile(self._kept[place], region_px) for place in places]
        write_bytes(path, encode(_grid(tiles), QUALITY))


def shown_image(frame: Frame) -> Pixels:
    """The image of a frame; black for a damaged one, in which no face can be hidden as it has no points."""
    return np.zeros_like(frame.image) if frame.is_damaged else frame.image


def write_notice(path: Path, text: str) -> None:
    """Write a small picture of a text, for a video without frames."""
    picture = np.full((FRAME_PX[1] // 2, FRAME_PX[0], 3), _GROUND, np.uint8)
    _put_text(picture, text, (16, picture.shape[0] // 2 + 6))
    write_bytes(path, encode(picture, QUALITY))


def _tile(kept: _Kept, region_px: tuple[int, int, int, int] | None) -> Pixels:
    """A frame with its points and boxes, and its crops below."""
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
    for place, stream in enumerate(SIDE_BY_SIDE):
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
    down_px, across_px = height_px + _GAP_PX, width_px + _GAP_PX
    grid = np.full((rows * down_px + _GAP_PX, columns * across_px + _GAP_PX, 3), _GROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = _GAP_PX + number // columns * down_px, _GAP_PX + number % columns * across_px
        grid[top : top + height_px, left : left + width_px] = tile
    return grid


def _put_text(image: Pixels, text: str, at: tuple[int, int]) -> None:
    for colour, thickness in ((_GROUND, 3), (_INK, 1)):
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)


# -- Again later, from the results of a video


def restore_preview(job: VideoJob, metadata: VideoMetadata) -> bool:
    """Draw the preview of current results where it is missing; only the frames shown are decoded.

    Returns whether it is there now. If frames do not decode as they did before, the video has to be extracted again.

    Raises:
        OSError: The video cannot be opened, or the preview not be written.
    """
    path = job.layout.preview(job.video_id)
    if path.is_file():
        return True
    if metadata.status == "quarantined":
        write_notice(path, "quarantined")
        return True
    try:
        preview = _redrawn(job)
    except (UnreadableVideoError, ValueError):
        return False
    preview.write(path, metadata.signer.region_px)
    return True


def _redrawn(job: VideoJob) -> Preview:
    layout, video_id, config = job.layout, job.video_id, job.config
    tracks = read_tracks(layout.tracks(video_id))
    num_frames = len(tracks.times_s)
    rows = evenly_spread(min(NUM_TILES, num_frames), num_frames, with_ends=True)
    times_s = tracks.times_s[rows].tolist()
    keypoints = _keypoints(layout.keypoints(video_id), rows)
    crops = [_crops(layout.crops(stream, video_id), rows) for stream in STREAMS]
    preview = Preview(None)
    spans_s = [(time_s, float(np.nextafter(time_s, np.inf))) for time_s in times_s]  # one frame each
    with VideoReader(job.source.path, frames_fps=config.frames_fps, spans_s=spans_s) as reader:
        for row, time_s, frame in zip(rows, times_s, reader.frames(config.fps), strict=True):
            if frame.time_s != time_s:
                raise ValueError(f"no frame at {time_s} s any more")
            boxes = _boxes(tracks, row)
            image = protect(shown_image(frame), keypoints[row], boxes, config.face_privacy)
            preview.offer(time_s, image, keypoints[row], boxes, [own.get(row) for own in crops])
    return preview


def _keypoints(path: Path, rows: list[int]) -> dict[int, Floats]:
    """Row to its (543, 3) points."""
    found: dict[int, Floats] = {}
    start = 0
    for piece in keypoint_pieces(path):
        found |= {row: piece[row - start] for row in rows if start <= row < start + len(piece)}
        start += len(piece)
    return found


def _crops(path: Path, rows: list[int]) -> dict[int, Pixels]:
    """Row to its RGB crop, where there is one."""
    reader = CropReader()
    try:
        data = {crop.frame: reader.read(crop) for crop in list_crops(path) if crop.frame in rows}
    finally:
        reader.close()
    bgr = {row: cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for row, jpeg in data.items()}
    return {row: cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for row, crop in bgr.items() if crop is not None}


def _boxes(tracks: Tracks, row: int) -> FrameBoxes:
    own = [tracks.streams[stream] for stream in STREAMS]
    corners = np.array([track.box[row] for track in own], np.float64)  # (S, 4)
    state = np.array([track.state[row] for track in own], np.uint8)
    boxes = np.column_stack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2] - corners[:, 0]])
    boxes[state == BoxState.MISSING] = np.nan
    return FrameBoxes(boxes, state, np.array([track.confidence[row] for track in own]))
