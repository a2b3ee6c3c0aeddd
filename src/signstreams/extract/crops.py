"""Square crops cut from the full-resolution frame, encoded as JPEG and stored, behind the detector."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.box_tracks import FrameBoxes
from signstreams.extract.privacy import protect
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.crops import CropWriter
from signstreams.streams import BoxState

PAD_VALUE = 0  # colour beyond the frame's border
_MARGIN_PX = 2  # around the box, so that interpolation at its rim sees the frame


def cut(image: Pixels, box: Floats, crop_px: int) -> Pixels:
    """The content of a box (3,), centre and side in px, as (crop_px, crop_px, 3) uint8; black beyond the frame.

    The box is followed to half a pixel of the crop: rounding to source pixels would make enlarged crops jitter.
    Shrinking averages first, by halving and a Gaussian: as free of aliasing as area interpolation, in a third of its
    time.
    """
    x0, y0, side = (float(value) for value in (box[0] - box[2] / 2, box[1] - box[2] / 2, box[2]))
    most = 2.0 * max(*image.shape[:2], crop_px)
    while side > most:  # an outlier point: shrink the frame, a patch of that size may not fit into memory
        image = cv2.pyrDown(image)
        x0, y0, side = (x0 + 0.5) / 2, (y0 + 0.5) / 2, side / 2
    left, top = math.floor(x0) - _MARGIN_PX, math.floor(y0) - _MARGIN_PX
    patch = _padded(image, left, top, math.ceil(side) + 2 * _MARGIN_PX + 1)
    x, y = x0 - left, y0 - top  # of the box in the patch
    while side >= 2 * crop_px:
        patch = cv2.pyrDown(patch)
        x, y, side = (x + 0.5) / 2, (y + 0.5) / 2, side / 2  # its pixel i is centred on pixel 2i, not between two
    shrink = side / crop_px
    if shrink > 1:
        patch = cv2.GaussianBlur(patch, (3, 3), 0.5 * math.sqrt(shrink**2 - 1))
    scaled_px = round(patch.shape[0] / shrink)
    scaled = cv2.resize(patch, (scaled_px, scaled_px), interpolation=cv2.INTER_CUBIC)
    column, row = (min(round(start / shrink), scaled_px - crop_px) for start in (x, y))
    return scaled[row : row + crop_px, column : column + crop_px]


def encode(crop: Pixels, quality: int) -> bytes:
    """JPEG bytes of an RGB crop."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def _padded(image: Pixels, left: int, top: int, side: int) -> Pixels:
    """(side, side, 3) part of the image that starts at (left, top), which may lie outside."""
    height, width = image.shape[:2]
    inner = image[max(top, 0) : max(min(top + side, height), 0), max(left, 0) : max(min(left + side, width), 0)]
    if inner.shape[:2] == (side, side):
        return inner
    padded = np.full((side, side, 3), PAD_VALUE, np.uint8)
    row, column = max(-top, 0), max(-left, 0)
    padded[row : row + inner.shape[0], column : column + inner.shape[1]] = inner
    return padded


class BoxedFrame(NamedTuple):
    """A frame with final boxes."""

    number: int  # among the output frames, from 0
    time_s: float
    image: Pixels  # (H, W, 3) uint8 RGB
    keypoints: Floats  # (543, 3) points of the signer
    boxes: FrameBoxes


def store_crops(
    frame: BoxedFrame, archives: list[CropWriter], config: ExtractConfig
) -> tuple[Pixels, list[Pixels | None]]:
    """Store the crop of each stream (archives in the order of `STREAMS`) that has a box.

    Returns the frame as cropped, its face hidden, and the crops, None where there is no box.
    """
    image = protect(frame.image, frame.keypoints, frame.boxes, config.face_privacy)
    crops: list[Pixels | None] = []
    for box, state, archive in zip(frame.boxes.box, frame.boxes.state, archives, strict=True):
        if state == BoxState.MISSING:
            crops.append(None)
            continue
        crop = cut(image, box, config.crop_px)
        archive.add(frame.number, encode(crop, config.jpeg_quality))
        crops.append(crop)
    return image, crops
