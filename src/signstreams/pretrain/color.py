"""Colour changes of a view, folded into a single affine map of R, G, B, applied to its pixels once.

The reference applies brightness, contrast, saturation, hue and grey one after the other, clipping after each. Folding
them clips once at the end and turns hue in the YIQ plane in place of HSV: about ten times faster, and the same to a
network that is to ignore colour. Order here: brightness, contrast, saturation, hue, grey.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Pixels

LUMA = np.array([0.299, 0.587, 0.114])
MAP_SIZE = 10
"""Values of a colour map: the 3 x 3 part row by row, then what each channel gains per unit of the view's mean luma."""
MIN_BLUR_SIGMA_PX = 0.25
"""Below it a neighbour weighs 1 in 3,000: no pixel changes by a grey level."""

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_GRAY = np.tile(LUMA, (3, 1))
# A turn of hue by t is _GRAY + cos(t) _CHROMA + sin(t) _QUADRATURE: it leaves luma alone.
_CHROMA = _FROM_YIQ @ np.diag([0.0, 1.0, 1.0]) @ _TO_YIQ
_QUADRATURE = _FROM_YIQ @ np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) @ _TO_YIQ
_INVERTED_ABOVE = np.array([value if value < 128 else 255 - value for value in range(256)], np.uint8)


def color_maps(brightness: Floats, contrast: Floats, saturation: Floats, hue_turn: Floats, is_gray: Flags) -> Floats:
    """(V, MAP_SIZE) maps of V views, values 0..255; all arguments (V,).

    Args:
        brightness: Factor; 1 changes nothing, as for the next two.
        contrast: Factor of the distance to the mean luma.
        saturation: Factor of the distance to the pixel's own luma.
        hue_turn: Turn of hue, in full circles.
        is_gray: Luma in all three channels.
    """
    maps = np.empty((len(brightness), MAP_SIZE))
    turn = 2 * math.pi * hue_turn
    chroma = saturation * ~is_gray
    maps[:, :9] = _GRAY.ravel()
    maps[:, :9] += np.multiply.outer(chroma * np.cos(turn), _CHROMA.ravel())
    maps[:, :9] += np.multiply.outer(chroma * np.sin(turn), _QUADRATURE.ravel())
    maps[:, :9] *= (brightness * contrast)[:, None]
    maps[:, 9] = (1 - contrast) * brightness
    return maps


def apply_color(view: Pixels, color_map: Floats) -> None:
    """Change a uint8 RGB view (H, W, 3) by a map (MAP_SIZE,), in place; rounded and clipped."""
    affine = np.empty((3, 4))
    affine[:, :3] = color_map[:9].reshape(3, 3)
    # a change of contrast is about the mean luma; the grey image's mean costs half of that of three channels
    affine[:, 3] = color_map[9] * cv2.mean(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))[0] if color_map[9] else 0.0
    cv2.transform(view, affine, view)


def solarize(view: Pixels) -> None:
    """Invert the values from 128 on of a uint8 view, in place."""
    cv2.LUT(view, _INVERTED_ABOVE, view)


def blur(view: Pixels, sigma_px: float) -> None:
    """Gaussian blur of a uint8 view, in place; mirrored at the rim without doubling it."""
    taps = gaussian_taps(sigma_px)
    cv2.sepFilter2D(view, -1, taps, taps, view, borderType=cv2.BORDER_REFLECT_101)


def blur_radius(sigma_px: float) -> int:
    """Taps to either side: three sigma."""
    return max(1, math.ceil(3 * sigma_px))


def gaussian_taps(sigma_px: float) -> Floats:
    """(2 radius + 1,) float64 weights with sum 1."""
    radius = blur_radius(sigma_px)
    return np.asarray(cv2.getGaussianKernel(2 * radius + 1, sigma_px)[:, 0], np.float64)
