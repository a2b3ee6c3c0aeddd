"""Crops as the images that a backbone takes: decoded and resized."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from signstreams.array_types import Pixels
from signstreams.backbones.load import Backbone
from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader

MAX_OPEN = 256
"""Archives that all threads together keep open."""


def fitting_px(backbone: Backbone, crop_px: int | None, stream: str) -> int:
    """Side of the images a backbone gets: as set, or as it was trained.

    Raises:
        UserError: When the side is no multiple of its patch.
    """
    side = crop_px or backbone.image_px
    if backbone.patch_size and side % backbone.patch_size:
        lower = max(1, side // backbone.patch_size) * backbone.patch_size
        raise UserError(
            f"data.crop_px: {side} px do not divide into the {stream} backbone's patches of {backbone.patch_size} px;"
            f" set data.crop_px to {lower} or {lower + backbone.patch_size}"
        )
    return side


def decoding_threads(device: torch.device) -> int:
    """Threads that decode crops: a GPU takes them faster than one core decodes; a CPU needs its cores for the model."""
    return torch.get_num_threads() if device.type == "cuda" else 1


class ImageReader:
    """Reads crops as images of a stream's side; archives stay open.

    May be called from several threads at once.

    Args:
        sides_px: Stream to the side of its images.
        num_threads: Threads that share the crops of a call.
    """

    def __init__(self, sides_px: dict[str, int], *, num_threads: int = 1) -> None:
        self._sides_px, self._num_threads = sides_px, num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode") if num_threads > 1 else None
        self._own = threading.local()

    def __call__(self, stream: str, crops: Sequence[Crop]) -> Pixels:
        """Crops to uint8 RGB (N, px, px, 3).

        Raises:
            UserError: When a crop cannot be decoded; names file and frame.
        """
        side = self._sides_px[stream]
        images = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
        if self._pool is None:
            self._decode(crops, images)
            return images
        size = max(1, math.ceil(len(crops) / self._num_threads))
        starts = range(0, len(crops), size)
        for _ in self._pool.map(lambda at: self._decode(crops[at : at + size], images[at : at + size]), starts):
            pass  # an error comes out here
        return images

    def _decode(self, crops: Sequence[Crop], images: Pixels) -> None:
        """Crops into the rows of ``images``."""
        import cv2

        if not hasattr(self._own, "reader"):
            self._own.reader = CropReader(max(8, MAX_OPEN // self._num_threads))
        reader: CropReader = self._own.reader
        side = images.shape[1]
        for row, crop in enumerate(crops):
            try:
                image = cv2.imdecode(np.frombuffer(reader.read(crop), dtype=np.uint8), cv2.IMREAD_COLOR)
            except (OSError, ValueError, cv2.error):
                image = None
            if image is None:
                raise UserError(f"{crop.path}: frame {crop.frame} is no readable JPEG; extract the video again")
            if image.shape[:2] != (side, side):
                shrinks = image.shape[0] > side
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            images[row] = image[..., ::-1]  # OpenCV decodes to blue, green, red
