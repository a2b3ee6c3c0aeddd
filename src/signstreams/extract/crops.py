"""Square crops from the full-resolution frame, as JPEG bytes."""

from __future__ import annotations

import cv2
import numpy as np

PAD_VALUE = 0
"""Constant colour beyond the frame's border."""


def cut(image: np.ndarray, box: np.ndarray, crop_px: int) -> np.ndarray:
    """The box's content, scaled to ``crop_px``; what lies beyond the frame is black.

    Args:
        image: (H, W, 3) uint8.
        box: (3,) centre and side, px.
        crop_px: Side of the result.

    Returns:
        (crop_px, crop_px, 3) uint8.
    """
    x0, y0, side = box[0] - box[2] / 2, box[1] - box[2] / 2, box[2]
    if side > crop_px:  # area averaging: no aliasing; half a source pixel of rounding is less than half a crop pixel
        return cv2.resize(
            _padded(image, round(x0), round(y0), round(side)), (crop_px, crop_px), interpolation=cv2.INTER_AREA
        )
    # Enlarged crops are placed to a fraction of a pixel: rounding would make them tremble.
    step = side / crop_px
    matrix = np.array([[step, 0, x0 + step / 2 - 0.5], [0, step, y0 + step / 2 - 0.5]])  # pixel centres lie at halves
    return cv2.warpAffine(
        image,
        matrix,
        (crop_px, crop_px),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PAD_VALUE,) * 3,
    )


def encode(crop: np.ndarray, quality: int) -> bytes:
    """JPEG bytes of an RGB crop."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def _padded(image: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    x1, y1 = x0 + side, y0 + side
    inner = image[max(y0, 0) : max(min(y1, height), 0), max(x0, 0) : max(min(x1, width), 0)]
    if inner.shape[:2] == (side, side):
        return inner
    padded = np.full((side, side, 3), PAD_VALUE, np.uint8)
    top, left = max(-y0, 0), max(-x0, 0)
    padded[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return padded
