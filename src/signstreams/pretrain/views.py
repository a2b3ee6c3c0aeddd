"""Multi-crop views of one crop (Caron et al. 2021): two global ones with a recipe each, and local ones.

Every view is cut from the same decoded crop, not from another view. A JPEG is decoded at a half or a quarter of its
size when that still holds every pixel the views need. Output is uint8: the device normalises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from signstreams.config.pretrain import AugmentationConfig
from signstreams.pretrain.color import LUMA, apply_color, blur, color_affine, solarize

ASPECT = (3 / 4, 4 / 3)
BLUR_SIGMA_OF_PX = 224
_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2), (1, cv2.IMREAD_COLOR))


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


class ViewMaker:
    """JPEG bytes and a generator to views; the same bytes and draws give the same views."""

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config
        self.recipes = recipes(config)
        # pixels of the source side that the most demanding view needs, were it cut at its smallest
        self.needed_px = max(recipe.side_px / math.sqrt(recipe.scale[0]) for recipe in self.recipes)

    def __call__(self, jpeg: bytes, rng: np.random.Generator) -> list[np.ndarray]:
        """Views as uint8 RGB (side, side, 3), in the order of `recipes`.

        Raises:
            ValueError: When the bytes are no JPEG.
        """
        image = decode(jpeg, self.needed_px)
        return [self._view(image, recipe, rng) for recipe in self.recipes]

    def _view(self, image: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
        config = self.config
        top, left, height, width = random_box(image.shape[0], image.shape[1], recipe.scale, rng)
        draws = rng.random(10)  # the same number for every view, so that one setting does not shift another's draws
        view = _resize(image[top : top + height, left : left + width], recipe.side_px)
        if draws[0] < config.flip_prob:
            view = np.ascontiguousarray(view[:, ::-1])
        is_jittered, is_gray = draws[1] < config.jitter_prob, bool(draws[2] < config.grayscale_prob)
        if is_jittered or is_gray:
            strength = float(is_jittered)
            change = strength * (2 * draws[3:7] - 1)  # each in -1..1
            affine = color_affine(
                float(LUMA @ cv2.mean(view)[:3]),
                brightness=max(0.0, 1 + change[0] * config.brightness),
                contrast=max(0.0, 1 + change[1] * config.contrast),
                saturation=max(0.0, 1 + change[2] * config.saturation),
                hue_turn=change[3] * config.hue,
                is_gray=is_gray,
            )
            view = apply_color(view, affine)
        if draws[7] < recipe.blur_prob:
            low, high = config.blur_sigma_px
            view = blur(view, (low + draws[8] * (high - low)) * recipe.side_px / BLUR_SIGMA_OF_PX)
        if draws[9] < recipe.solarize_prob:
            view = solarize(view)
        return view


def decode(jpeg: bytes, needed_px: float = math.inf) -> np.ndarray:
    """uint8 RGB (H, W, 3), at a quarter or half of the size where that leaves ``needed_px`` of the shorter side.

    Raises:
        ValueError: When the bytes are no JPEG.
    """
    shorter_px = min(jpeg_size(jpeg))
    flag = next((flag for factor, flag in _REDUCED if shorter_px / factor >= needed_px), cv2.IMREAD_COLOR)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag)
    if image is None:
        raise ValueError("is no readable JPEG")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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


def random_box(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """top, left, height, width of a random part: area share uniform in ``scale``, log-uniform aspect 3/4 to 4/3."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return (
                int(rng.integers(0, height - box_height + 1)),
                int(rng.integers(0, width - box_width + 1)),
                box_height,
                box_width,
            )
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def whole_view(jpeg: bytes, side_px: int) -> np.ndarray:
    """The crop as it is, uint8 RGB (side, side, 3): what evaluation and the probe look at."""
    return _resize(decode(jpeg, side_px), side_px)


def _resize(image: np.ndarray, side_px: int) -> np.ndarray:
    is_smaller = min(image.shape[:2]) < side_px
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_CUBIC if is_smaller else cv2.INTER_AREA)
