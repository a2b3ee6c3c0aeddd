"""Crops as the images that a backbone takes: decoded and resized."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signstreams.array_types import Pixels
from signstreams.backbones.load import Backbone
from signstreams.errors import UserError
from signstreams.formats.crops import Crop, CropReader


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


class ImageReader:
    """Reads crops as images of a stream's side; archives stay open."""

    def __init__(self, sides_px: dict[str, int]) -> None:
        self._sides_px = sides_px
        self._reader = CropReader()

    def __call__(self, stream: str, crops: Sequence[Crop]) -> Pixels:
        """Crops to uint8 RGB (N, px, px, 3).

        Raises:
            UserError: When a crop cannot be decoded; names file and frame.
        """
        import cv2

        side = self._sides_px[stream]
        images = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
        for row, crop in enumerate(crops):
            try:
                image = cv2.imdecode(np.frombuffer(self._reader.read(crop), dtype=np.uint8), cv2.IMREAD_COLOR)
            except (OSError, ValueError, cv2.error):
                image = None
            if image is None:
                raise UserError(f"{crop.path}: frame {crop.frame} is no readable JPEG; extract the video again")
            if image.shape[:2] != (side, side):
                shrinks = image.shape[0] > side
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            images[row] = image[..., ::-1]  # OpenCV decodes to blue, green, red
        return images
