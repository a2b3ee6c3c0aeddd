"""Multi-crop views of one crop (Caron et al. 2021): geometry, colour, blur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.pretrain.settings import AugmentationConfig

# Colour changes of a view, folded into a single affine map of R, G, B, applied to its pixels once.
#
# The reference applies brightness, contrast, saturation, hue and grey one after the other, clipping after each. Folding
# them clips once at the end and turns hue in the YIQ plane in place of HSV: about ten times faster, and the same to a
# network that is to ignore colour. Order here: brightness, contrast, saturation, hue, grey.

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


# Multi-crop views of one crop (Caron et al. 2021): two global ones with a recipe each, and local ones.
#
# Every view is cut from the same decoded crop, not from another view. A JPEG is decoded at a half or a quarter of its
# size when that still holds every pixel the views need. Output is uint8: the device normalises, and on request changes
# colour, blurs and solarises as well (`signstreams.pretrain.device_views`).

ASPECT = (3 / 4, 4 / 3)
BLUR_SIGMA_OF_PX = 224
NUM_GLOBAL = 2
BOX_TRIES = 10
"""Boxes drawn for a view; the first that lies within the crop counts, as in torchvision."""
PARAMS = MAP_SIZE + 2
"""Values of a view's photometric parameters: colour map, blur sigma in px (0: none), solarise (0 or 1)."""
_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))
_NUM_DRAWS = 2 * BOX_TRIES + 12


@dataclass(frozen=True)
class Recipe:
    """How one kind of view is made."""

    side_px: int
    scale: tuple[float, float]
    blur_prob: float
    solarize_prob: float


def recipes(config: AugmentationConfig) -> list[Recipe]:
    """Of each view of a crop: view 1, view 2, then the local ones."""
    blur_1, blur_2, blur_local = config.blur_probs
    global_scale = (config.global_scale[0], config.global_scale[1])
    local_scale = (config.local_scale[0], config.local_scale[1])
    return [
        Recipe(config.global_px, global_scale, blur_1, 0.0),
        Recipe(config.global_px, global_scale, blur_2, config.solarize_prob),
        *[Recipe(config.local_px, local_scale, blur_local, 0.0)] * config.num_local,
    ]


class Draws(NamedTuple):
    """What chance decided for the V views of a crop.

    Attributes:
        boxes: (V, 4) int, top, left, height, width in px of the decoded crop.
        is_flipped: (V,) bool.
        is_colored: (V,) bool, whether the colour map changes anything.
        params: (V, PARAMS) float64.
    """

    boxes: Ints
    is_flipped: Flags
    is_colored: Flags
    params: Floats


class ViewMaker:
    """JPEG bytes and a generator to views; the same bytes and draws give the same views.

    Args:
        config: The recipe.
        is_photometric: Change colour, blur and solarise here; else the views' parameters say what is left to do.
    """

    def __init__(self, config: AugmentationConfig, *, is_photometric: bool = True) -> None:
        self.config = config
        self.is_photometric = is_photometric
        self.recipes = recipes(config)
        self.sides_px = np.array([recipe.side_px for recipe in self.recipes])
        self._scales = np.array([recipe.scale for recipe in self.recipes])
        self._blur_probs = np.array([recipe.blur_prob for recipe in self.recipes])
        self._solarize_probs = np.array([recipe.solarize_prob for recipe in self.recipes])
        # pixels of the source side that the most demanding view needs, were it cut at its smallest and narrowest
        self.needed_px = max(recipe.side_px / math.sqrt(recipe.scale[0] * ASPECT[0]) for recipe in self.recipes)

    def __call__(self, jpeg: bytes, rng: np.random.Generator) -> list[Pixels]:
        """Views as uint8 RGB (side, side, 3), in the order of `recipes`.

        Raises:
            ValueError: When the bytes are no image.
        """
        views: list[Pixels] = [np.empty((side, side, 3), np.uint8) for side in self.sides_px]
        self.fill(jpeg, rng, views)
        return views

    def fill(self, jpeg: bytes, rng: np.random.Generator, views: Sequence[Pixels]) -> Floats:
        """Write the views into these arrays, uint8 (side, side, 3) each, contiguous; (V, PARAMS) parameters.

        Raises:
            ValueError: When the bytes are no image.
        """
        image = decode(jpeg, self.needed_px)
        draws = self.draw(image.shape[0], image.shape[1], rng)
        pyramid = [image]
        for i, view in enumerate(views):
            cut(pyramid, draws.boxes[i], view)
            if draws.is_flipped[i]:
                cv2.flip(view, 1, view)
        if self.is_photometric:
            for i, view in enumerate(views):
                color_map, (sigma_px, is_solarized) = draws.params[i, :MAP_SIZE], draws.params[i, MAP_SIZE:]
                if draws.is_colored[i]:
                    apply_color(view, color_map)
                if sigma_px:
                    blur(view, sigma_px)
                if is_solarized:
                    solarize(view)
        return draws.params

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Draws:
        """Draw for all views of a crop of this size; one setting does not shift another's draws."""
        config = self.config
        # (V, _NUM_DRAWS) in 0..1: area and aspect of each try; place; flip, jitter, grey; colours; blur; solarise
        uniform = rng.random((len(self.recipes), _NUM_DRAWS))
        boxes = random_boxes(height, width, self._scales, uniform[:, : 2 * BOX_TRIES + 2])
        rest = uniform[:, 2 * BOX_TRIES + 2 :]  # (V, 10)
        is_jittered, is_gray = rest[:, 1] < config.jitter_prob, rest[:, 2] < config.grayscale_prob
        change = (2 * rest[:, 3:7] - 1) * is_jittered[:, None]  # (V, 4), each in -1..1
        params = np.empty((len(uniform), PARAMS))
        params[:, :MAP_SIZE] = color_maps(
            brightness=np.maximum(0.0, 1 + change[:, 0] * config.brightness),
            contrast=np.maximum(0.0, 1 + change[:, 1] * config.contrast),
            saturation=np.maximum(0.0, 1 + change[:, 2] * config.saturation),
            hue_turn=change[:, 3] * config.hue,
            is_gray=is_gray,
        )
        low, high = config.blur_sigma_px
        sigma_px = (low + rest[:, 8] * (high - low)) * self.sides_px / BLUR_SIGMA_OF_PX
        params[:, MAP_SIZE] = sigma_px * ((rest[:, 7] < self._blur_probs) & (sigma_px >= MIN_BLUR_SIGMA_PX))
        params[:, MAP_SIZE + 1] = rest[:, 9] < self._solarize_probs
        return Draws(boxes, rest[:, 0] < config.flip_prob, is_jittered | is_gray, params)


def decode(jpeg: bytes, needed_px: float = math.inf) -> Pixels:
    """uint8 RGB (H, W, 3), at a quarter or half of the size where that leaves ``needed_px`` of the shorter side.

    Raises:
        ValueError: When the bytes are no image.
    """
    flag = cv2.IMREAD_COLOR
    if jpeg[:2] == b"\xff\xd8":  # other formats are decoded whole
        shorter_px = min(jpeg_size(jpeg))
        flag = next((flag for factor, flag in _REDUCED if shorter_px / factor >= needed_px), flag)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag) if jpeg else None
    if image is None:
        raise ValueError("is no readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width, from the frame header.

    Raises:
        ValueError: When there is none.
    """
    at = 2
    while jpeg[:2] == b"\xff\xd8" and at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame, of any coding
            return int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    raise ValueError("is no readable JPEG")


def random_boxes(height: int, width: int, scales: Floats, uniform: Floats) -> Ints:
    """(V, 4) int: top, left, height, width of a random part for each view.

    Area share uniform in the view's scale, log-uniform aspect 3/4 to 4/3; the middle square where no try fits.

    Args:
        height: Of the crop, px.
        width: Of the crop, px.
        scales: (V, 2) least and greatest share of the area.
        uniform: (V, 2 * BOX_TRIES + 2) in 0..1.
    """
    rows = np.arange(len(scales))
    low, high = scales[:, :1], scales[:, 1:]
    area = height * width * (low + (high - low) * uniform[:, :BOX_TRIES])  # (V, BOX_TRIES)
    stretch = np.exp((0.5 * math.log(ASPECT[1])) * (2 * uniform[:, BOX_TRIES : 2 * BOX_TRIES] - 1))  # root of aspect
    side = np.sqrt(area)
    widths, heights = np.rint(side * stretch), np.rint(side / stretch)
    fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
    first = fits.argmax(axis=1)
    boxes = np.empty((len(scales), 4))
    boxes[:, 2], boxes[:, 3] = heights[rows, first], widths[rows, first]
    boxes[:, :2] = np.floor(uniform[:, -2:] * ((height, width) - boxes[:, 2:] + 1))
    if not fits[rows, first].all():
        square = min(height, width)
        boxes[~fits[rows, first]] = ((height - square) // 2, (width - square) // 2, square, square)
    return boxes.astype(np.intp)


def cut(pyramid: list[Pixels], box: Ints, view: Pixels) -> None:
    """Write a part of the crop into ``view`` (side, side, 3), resized.

    Enlarged bicubically, as the reference does. Shrunk by less than two bilinearly, which then leaves out no pixel; by
    more, from a level of the pyramid, halved by area: OpenCV's own area resize costs six times as much.

    Args:
        pyramid: The crop, uint8 (H, W, 3), and its halves as far as they were needed; grows.
        box: (4,) top, left, height, width in px of the crop.
        view: Where to write.
    """
    top, left, height, width = box.tolist()
    side_px, level = len(view), 0
    while min(height, width) >= 2 * side_px * 2**level:
        level += 1
        if level == len(pyramid):
            above = pyramid[-1]
            pyramid.append(cv2.resize(above, (above.shape[1] // 2, above.shape[0] // 2), interpolation=cv2.INTER_AREA))
    if level:
        top, left, height, width = top >> level, left >> level, height >> level, width >> level
    part = pyramid[level][top : top + height, left : left + width]
    is_enlarged = min(part.shape[:2]) < side_px
    cv2.resize(part, (side_px, side_px), view, interpolation=cv2.INTER_CUBIC if is_enlarged else cv2.INTER_LINEAR)


def whole_view(jpeg: bytes, side_px: int) -> Pixels:
    """The crop as it is, uint8 RGB (side, side, 3): what evaluation and the probe look at."""
    image = decode(jpeg, side_px)
    is_smaller = min(image.shape[:2]) < side_px
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_CUBIC if is_smaller else cv2.INTER_AREA)
