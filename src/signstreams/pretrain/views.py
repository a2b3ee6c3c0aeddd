"""Multi-crop views of one crop (Caron et al. 2021): two global ones with a recipe each, and local ones.

Every view is cut from the decoded crop itself, not from another view. A JPEG is decoded at a half or a quarter of its
size where that still holds every pixel the views need. Views are uint8; the device normalises them and, where the
settings say so, also jitters colours, blurs and solarises (`DeviceViews`). The draws are the same either way; pixels
differ by rounding, as the CPU rounds after each operation.

First comes what a camera and a video do, always in the loader: the view is cut and turned, flipped, blurred by motion,
compressed again. Colours, Gaussian blur and solarising follow, in this order, wherever they are done.

Colour jitter is folded into one affine map of R, G, B, applied once. The reference applies brightness, contrast,
saturation, hue and grey one after the other and clips after each; here values are clipped once, at the end, and hue
turns in the YIQ plane instead of HSV: about ten times faster, and the same to a network that is to ignore colour. The
order is brightness, contrast, saturation, hue, grey.

Blur is by share of the view: sigma is .1 to 2 px of 224 px, and proportionally less of a smaller view. The reference
draws .1 to 2 px of any view's own pixels; 2 px blur a 56 px view of a hand as 8 px would one of 224 px.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.engine.device import to_device
from signstreams.formats.crops import Crop, CropReader
from signstreams.pretrain.settings import AugmentationConfig

T = TypeVar("T")

NUM_GLOBAL = 2
PARTNER_VIEW = 1  # the global view that may come from another crop
ASPECT = (3 / 4, 4 / 3)
BOX_TRIES = 10  # boxes drawn for a view; the first that fits into the crop counts, as in torchvision
BLUR_SIGMA_OF_PX = 224  # side of the view that `blur_sigma_px` and `motion_blur_px` are given for
MIN_BLUR_SIGMA_PX = 0.25  # below it a neighbour weighs 1 in 3,000: no pixel changes by a grey level
MAP_SIZE = 10
"""Values of a colour map: the 3 x 3 part row by row, then what each channel gains per unit of the view's mean luma."""
PARAMS = MAP_SIZE + 2
"""Values of a view's photometric parameters: colour map, blur sigma in px (0: none), solarise (0 or 1)."""
LUMA = np.array([0.299, 0.587, 0.114])

_NUM_DRAWS = 2 * BOX_TRIES + 12
_NUM_CAMERA_DRAWS = 6
_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_GRAY = np.tile(LUMA, (3, 1))
# A turn of hue by t is _GRAY + cos(t) _CHROMA + sin(t) _QUADRATURE: it leaves luma alone.
_CHROMA = _FROM_YIQ @ np.diag([0.0, 1.0, 1.0]) @ _TO_YIQ
_QUADRATURE = _FROM_YIQ @ np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]) @ _TO_YIQ
_INVERTED_ABOVE = np.array([value if value < 128 else 255 - value for value in range(256)], np.uint8)


class Draws(NamedTuple):
    """Random draws for the V views of a crop."""

    boxes: Ints  # (V, 4) int, top, left, height, width in px of the decoded crop
    is_flipped: Flags  # (V,) bool
    is_colored: Flags  # (V,) bool, whether the colour map changes anything
    params: Floats  # (V, PARAMS) float64
    camera: Floats | None
    """(V, 4) float64: clockwise turn in degrees, motion in px, its direction in degrees, JPEG quality; 0 for nothing.
    None where the settings are off."""


class ViewMaker:
    """JPEG bytes and a generator to views 1 and 2 and the local ones; the same bytes and draws give the same views.

    Colours, Gaussian blur and solarising are left to `DeviceViews`, which does them by the parameters, unless
    ``is_photometric``.
    """

    def __init__(self, config: AugmentationConfig, *, is_photometric: bool = True) -> None:
        self.config, self.is_photometric = config, is_photometric
        num_local, (blur_1, blur_2, blur_local) = config.num_local, config.blur_probs
        self.sides_px = np.array([config.global_px] * NUM_GLOBAL + [config.local_px] * num_local)  # (V,)
        self._scales = np.array([config.global_scale] * NUM_GLOBAL + [config.local_scale] * num_local)  # (V, 2)
        self.blur_probs = np.array([blur_1, blur_2, *[blur_local] * num_local])
        self._solarize_probs = np.array([0.0, config.solarize_prob, *[0.0] * num_local])
        self._has_camera = bool(config.turn_deg or config.motion_blur_prob or config.recompress_prob)
        # pixels of the source side that the most demanding view needs, were it cut at its smallest and narrowest
        self.needed_px = float((self.sides_px / np.sqrt(self._scales[:, 0] * ASPECT[0])).max())

    def __call__(self, jpeg: bytes, rng: np.random.Generator) -> list[Pixels]:
        """As `fill`, into views of its own, uint8 RGB (side, side, 3), of a crop that is not mirrored."""
        views: list[Pixels] = [np.empty((side, side, 3), np.uint8) for side in self.sides_px]
        self.fill(jpeg, rng, views, is_mirrored=False)
        return views

    def fill(
        self,
        jpeg: bytes,
        rng: np.random.Generator,
        views: Sequence[Pixels],
        partner: Pixels | None = None,
        *,
        is_mirrored: bool,
    ) -> Draws:
        """Write the views into these arrays, uint8 (side, side, 3) each, contiguous, by the draws that it returns.

        They are those of the mirrored crop, where `Crop.is_mirrored` says so. View 2 is cut from the ``partner``,
        another crop decoded for `needed_px` (and mirrored, where it is to be), where there is one; the draws are the
        same, of the box as a share of the crop.

        Raises:
            ValueError: When the bytes are no image.
        """
        image = decode(jpeg, self.needed_px, is_mirrored=is_mirrored)
        draws = self.draw(image.shape[0], image.shape[1], rng)
        pyramid = [image]
        camera = None if draws.camera is None else draws.camera.tolist()
        for i, view in enumerate(views):
            turn_deg = camera[i][0] if camera else 0.0
            if i == PARTNER_VIEW and partner is not None:
                scale = np.tile(np.divide(partner.shape[:2], image.shape[:2]), 2)
                box = np.maximum(draws.boxes[i] * scale, (0, 0, 1, 1)).astype(np.intp)
                cut([partner], box, view, turn_deg)
            else:
                cut(pyramid, draws.boxes[i], view, turn_deg)
            if draws.is_flipped[i]:
                cv2.flip(view, 1, view)
        if camera:
            for view, (_, motion_px, motion_deg, quality) in zip(views, camera, strict=True):
                if motion_px:
                    motion_blur(view, motion_px, motion_deg)
                if quality:
                    recompress(view, int(quality))
        if self.is_photometric:
            for i, view in enumerate(views):
                color_map, (sigma_px, is_solarized) = draws.params[i, :MAP_SIZE], draws.params[i, MAP_SIZE:]
                if draws.is_colored[i]:
                    apply_color(view, color_map)
                if sigma_px:
                    blur(view, sigma_px)
                if is_solarized:
                    solarize(view)
        return draws

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Draws:
        """Draw for all views of a crop of this size; one setting does not shift another's draws."""
        config = self.config
        # (V, _NUM_DRAWS) in 0..1: area and aspect of each try; place; flip, jitter, grey; colours; blur; solarise
        uniform = rng.random((len(self.sides_px), _NUM_DRAWS))
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
        params[:, MAP_SIZE] = sigma_px * ((rest[:, 7] < self.blur_probs) & (sigma_px >= MIN_BLUR_SIGMA_PX))
        params[:, MAP_SIZE + 1] = rest[:, 9] < self._solarize_probs
        camera = self._draw_camera(rng) if self._has_camera else None
        return Draws(boxes, rest[:, 0] < config.flip_prob, is_jittered | is_gray, params, camera)

    def _draw_camera(self, rng: np.random.Generator) -> Floats:
        """`Draws.camera`, drawn last and in one piece, so that the other draws stay."""
        config = self.config
        camera = np.empty((len(self.sides_px), 4))
        # (V, 6) in 0..1: turn; whether it moves, how far, where to; whether it is compressed, how well
        uniform = rng.random((len(camera), _NUM_CAMERA_DRAWS))
        camera[:, 0] = (2 * uniform[:, 0] - 1) * config.turn_deg
        low, high = config.motion_blur_px
        length_px = (low + uniform[:, 2] * (high - low)) * self.sides_px / BLUR_SIGMA_OF_PX
        camera[:, 1] = length_px * (uniform[:, 1] < config.motion_blur_prob)
        camera[:, 2] = 180 * uniform[:, 3]  # there is there and back
        worst, best = config.recompress_quality
        quality = worst + np.floor(uniform[:, 5] * (best - worst + 1))
        camera[:, 3] = quality * (uniform[:, 4] < config.recompress_prob)
        return camera


def random_boxes(height: int, width: int, scales: Floats, uniform: Floats) -> Ints:
    """(V, 4) int: top, left, height, width of a random part for each view of a crop of this size, px.

    Area share uniform in the view's ``scales`` (V, 2), log-uniform aspect 3/4 to 4/3; the middle square where no try
    fits. All by the draws ``uniform`` (V, 2 * BOX_TRIES + 2), in 0..1.
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


MAX_PIXELS = 2**26  # 200 MB decoded; a crop has 12,544, a photo that is pretrained on some 10 million
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(jpeg: bytes, needed_px: float = math.inf, *, is_mirrored: bool = False) -> Pixels:
    """uint8 RGB (H, W, 3), at a quarter or half of the size where that leaves ``needed_px`` of the shorter side.

    The only place of pretraining where a crop is mirrored.

    Raises:
        ValueError: When the bytes are no image, or claim to be an absurdly large one.
    """
    flag = cv2.IMREAD_COLOR
    size_px = None
    if jpeg[:2] == b"\xff\xd8":  # other formats are decoded whole
        size_px = jpeg_size(jpeg)
        flag = next((flag for factor, flag in _REDUCED if min(size_px) / factor >= needed_px), flag)
    elif jpeg[:8] == _PNG and len(jpeg) >= 24:
        size_px = int.from_bytes(jpeg[20:24], "big"), int.from_bytes(jpeg[16:20], "big")
    if size_px is not None and size_px[0] * size_px[1] > MAX_PIXELS:  # before memory is taken for what it claims
        raise ValueError(f"claims {size_px[1]}x{size_px[0]} px, expected at most {MAX_PIXELS:,} pixels")
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag) if jpeg else None
    if image is None:
        raise ValueError("is not a readable image")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    return cv2.flip(image, 1, image) if is_mirrored else image


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
    raise ValueError("is not a readable JPEG")


def whole_view(jpeg: bytes, side_px: int, *, is_mirrored: bool = False) -> Pixels:
    """The crop without augmentation, uint8 RGB (side, side, 3): input of evaluation and of the probe."""
    image = decode(jpeg, side_px, is_mirrored=is_mirrored)
    is_smaller = min(image.shape[:2]) < side_px
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_CUBIC if is_smaller else cv2.INTER_AREA)


def cut(pyramid: list[Pixels], box: Ints, view: Pixels, turn_deg: float = 0.0) -> None:
    """Write the part of the crop in a box (4,), top, left, height, width in px, into ``view`` (side, side, 3), resized.

    By ``turn_deg`` the view shows the crop turned clockwise, about the middle of the box (`_cut_turned`).

    Enlarged bicubically, as in the reference. Shrunk bilinearly by less than two, which leaves out no pixel; by more,
    from a level of the ``pyramid`` (the crop, uint8 (H, W, 3), and its halves by area as far as they were needed so
    far): OpenCV's own area resize costs six times as much.
    """
    top, left, height, width = box.tolist()
    side_px, level = len(view), 0
    while min(height, width) >= 2 * side_px * 2**level:
        level += 1
        if level == len(pyramid):
            above = pyramid[-1]
            pyramid.append(cv2.resize(above, (above.shape[1] // 2, above.shape[0] // 2), interpolation=cv2.INTER_AREA))
    if turn_deg:
        down, across = (np.array(pyramid[level].shape[:2]) / pyramid[0].shape[:2]).tolist()
        _cut_turned(pyramid[level], (top * down, left * across, height * down, width * across), turn_deg, view)
        return
    if level:
        top, left, height, width = top >> level, left >> level, height >> level, width >> level
    part = pyramid[level][top : top + height, left : left + width]
    is_enlarged = min(part.shape[:2]) < side_px
    cv2.resize(part, (side_px, side_px), view, interpolation=cv2.INTER_CUBIC if is_enlarged else cv2.INTER_LINEAR)


def _cut_turned(image: Pixels, box: tuple[float, float, float, float], turn_deg: float, view: Pixels) -> None:
    """As `cut`, from one level of the pyramid, ``box`` in its pixels; cut, turned and resized by one bilinear map.

    What lies beyond the image is its mirror image: a black corner, or the stripes that repeated rim pixels make, would
    tell the angle. To be enlarged, the part is first doubled bicubically: three times as fast as a bicubic map, and
    nearly as exact (docs/experiments.md).
    """
    top, left, height, width = box
    side_px = len(view)
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    y, x = top + height / 2, left + width / 2
    # the upright part about the turned box, and the two pixels beyond it that bicubic doubling reads
    reach_y = (abs(cos) * height + abs(sin) * width) / 2 + 2
    reach_x = (abs(sin) * height + abs(cos) * width) / 2 + 2
    first_y, first_x = max(0, math.floor(y - reach_y)), max(0, math.floor(x - reach_x))
    part = image[first_y : math.ceil(y + reach_y), first_x : math.ceil(x + reach_x)]
    factor = 1
    if min(height, width) < side_px:
        factor = 2
        part = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    # pixel (column, row) of the view to that of the part, both by their middles
    across, down = width / side_px * factor, height / side_px * factor
    rows = np.array([[cos * across, sin * down, 0.0], [-sin * across, cos * down, 0.0]])
    rows[:, 2] = (x - first_x) * factor - 0.5, (y - first_y) * factor - 0.5
    rows[:, 2] -= (rows[:, 0] + rows[:, 1]) * ((side_px - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(part, rows, (side_px, side_px), view, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def convert_crops(crops: Iterable[Crop], convert: Callable[[bytes], T]) -> Iterator[T]:
    """Result of ``convert`` on the image of each crop, such as `decode`.

    Raises:
        DamagedFile: A crop cannot be read or converted.
        OSError: Disk, memory or a permission is at fault.
    """
    with contextlib.closing(CropReader()) as reader:
        for crop in crops:
            try:
                converted = convert(reader.read(crop))
            except (OSError, ValueError, cv2.error) as error:
                raise crop.damage(error) from None
            yield converted


def color_maps(brightness: Floats, contrast: Floats, saturation: Floats, hue_turn: Floats, is_gray: Flags) -> Floats:
    """(V, MAP_SIZE) maps of V views, values 0..255; all arguments (V,).

    Factors of brightness, of the distance to the mean luma, and of that to the pixel's own luma, 1 changing nothing; a
    turn of hue, in full circles; and whether luma is in all three channels.
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
    taps = gaussian_kernel(sigma_px)
    cv2.sepFilter2D(view, -1, taps, taps, view, borderType=cv2.BORDER_REFLECT_101)


def gaussian_kernel(sigma_px: float) -> Floats:
    """(2 radius + 1,) float64 weights with sum 1: three sigma to either side."""
    radius = max(1, math.ceil(3 * sigma_px))
    return np.asarray(cv2.getGaussianKernel(2 * radius + 1, sigma_px)[:, 0], np.float64)


def motion_blur(view: Pixels, length_px: float, direction_deg: float) -> None:
    """Smear a uint8 view along a line, in place; mirrored at the rim without doubling it.

    Each value becomes the mean over ``length_px``, with the pixel in the middle; 0 degrees is along a row, 90 along a
    column, between them clockwise. Both halves of the line are filtered apart: OpenCV takes five times as long with a
    kernel of 130 weights or more, which a slanting line has from 15 px on.
    """
    half = line_kernel(length_px / 2, direction_deg)
    rows, columns = half.shape
    # the half line starts at the left or, beyond 90 degrees, at the right of the kernel's first row
    start, end = (0, columns - 1) if direction_deg <= 90 else (columns - 1, 0)
    border = cv2.BORDER_REFLECT_101
    ahead = cv2.filter2D(view, -1, half, anchor=(start, 0), borderType=border)
    behind = cv2.filter2D(view, -1, np.ascontiguousarray(half[::-1, ::-1]), anchor=(end, rows - 1), borderType=border)
    cv2.addWeighted(ahead, 0.5, behind, 0.5, 0, view)


def line_kernel(length_px: float, direction_deg: float) -> Floats:
    """Float64 weights with sum 1 of a line that leaves the pixel in the first row, 0 to 180 degrees clockwise.

    It starts in the first column up to 90 degrees, else in the last. Points along the line, at most a quarter of a
    pixel apart, each share their weight among the four pixels about them.
    """
    num_points = math.ceil(4 * length_px) + 1
    along = (np.arange(num_points) + 0.5) * (length_px / num_points)  # (P,)
    x, y = along * abs(math.cos(math.radians(direction_deg))), along * math.sin(math.radians(direction_deg))
    columns, rows = (np.arange(math.ceil(part[-1]) + 1) for part in (x, y))
    weights_x = np.maximum(0.0, 1 - np.abs(x[:, None] - columns))  # (P, columns)
    weights_y = np.maximum(0.0, 1 - np.abs(y[:, None] - rows))  # (P, rows)
    kernel: Floats = weights_y.T @ weights_x / num_points
    return kernel if direction_deg <= 90 else np.ascontiguousarray(kernel[:, ::-1])


def recompress(view: Pixels, quality: int) -> None:
    """Replace a uint8 RGB view by what its JPEG of this quality decodes to, in place."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(view, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    view[:] = decode(jpeg.tobytes())


class DeviceViews:
    """The photometric half of the views, on the training device, a batch at a time: colour, blur, solarise, normalise.

    Computes in float32; a result in bfloat16 takes half the memory, where the first layer would round to it anyway.
    """

    def __init__(self, config: AugmentationConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self._luma = torch.tensor(LUMA, dtype=torch.float32, device=device)
        std = torch.tensor(config.std, device=device)[:, None, None]  # (3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = -torch.tensor(config.mean, device=device)[:, None, None] / std

    @torch.no_grad()
    def __call__(self, views: Tensor, params: Tensor) -> Tensor:
        """Views of one size, uint8 (V, B, side, side, 3), to normalised ones (V, B, 3, side, side) of ``dtype``.

        Never waits for the device: what depends on the draws is decided from ``params``, (V, B, PARAMS) float32, which
        stay on the CPU.
        """
        flat = params.flatten(0, 1)  # (N, PARAMS), N = V * B
        x = views.to(self.device, non_blocking=True).flatten(0, 1).movedim(-1, 1).float()  # (N, 3, side, side)
        x = self._color(x, flat[:, :MAP_SIZE])
        if len(chosen := flat[:, MAP_SIZE].nonzero()[:, 0]):
            there = to_device(chosen, self.device)
            x.index_copy_(0, there, self._blur(x.index_select(0, there), flat[chosen, MAP_SIZE]))
        if len(chosen := flat[:, MAP_SIZE + 1].nonzero()[:, 0]):
            there = to_device(chosen, self.device)
            some = x.index_select(0, there)
            x.index_copy_(0, there, torch.where(some < 127.5, some, 255 - some))
        x = torch.addcmul(self._shift, x, self._scale)
        done: Tensor = x.to(self.dtype).unflatten(0, params.shape[:2])
        return done

    def _color(self, x: Tensor, maps: Tensor) -> Tensor:
        """(N, 3, H, W) through maps (N, MAP_SIZE), clipped to 0..255."""
        maps = to_device(maps, self.device)
        linear = maps[:, :9].unflatten(1, (3, 3))  # (N, 3 out, 3 in)
        mean_luma = x.mean(dim=(2, 3)) @ self._luma  # (N,)
        offset = (maps[:, 9] * mean_luma)[:, None, None]  # (N, 1, 1)
        # sums instead of a matrix product, which may run in TF32, whose 10 bits are too few for 256 levels
        rows = [
            sum(linear[:, out, i, None, None] * x[:, i] for i in range(3)) + offset
            for out in range(3)  # (N, H, W) each
        ]
        return torch.stack(rows, dim=1).clamp_(0, 255)

    def _blur(self, x: Tensor, sigma_px: Tensor) -> Tensor:
        """(M, 3, H, W), each with its own Gaussian, sigma (M,) on the CPU; mirrored at the rim."""
        taps = gaussian_kernels(sigma_px)  # (M, K)
        num_taps, count = taps.shape[1], 3 * len(taps)
        weight = to_device(taps, self.device).repeat_interleave(3, dim=0)  # (3 M, K)
        x = F.pad(x, [num_taps // 2] * 4, mode="reflect").flatten(0, 1)[None]  # (1, 3 M, H + K - 1, W + K - 1)
        x = F.conv2d(x, weight[:, None, :, None], groups=count)  # (1, 3 M, H, W + K - 1)
        x = F.conv2d(x, weight[:, None, None, :], groups=count)  # (1, 3 M, H, W)
        blurred: Tensor = x[0].unflatten(0, (-1, 3))
        return blurred


def gaussian_kernels(sigma_px: Tensor) -> Tensor:
    """(M, K) float32 weights with sum 1 for sigmas (M,): three sigma to either side, zeros up to the widest's K."""
    radius = (3 * sigma_px.double()).ceil().clamp(min=1)[:, None]  # (M, 1)
    widest = math.ceil(float(radius.max()))
    at = torch.arange(-widest, widest + 1, dtype=torch.float64)  # (K,)
    taps = (-(at**2) / (2 * sigma_px.double()[:, None] ** 2)).exp() * (at.abs() <= radius)
    return (taps / taps.sum(dim=1, keepdim=True)).float()
