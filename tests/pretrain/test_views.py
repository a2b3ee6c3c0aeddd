"""Views: each kind by its own recipe, reproducible, never flipped for hands."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.engine.seeding import numpy_rng
from signstreams.errors import UserError
from signstreams.pretrain.settings import AugmentationConfig, PretrainConfig
from signstreams.pretrain.views import (
    LUMA,
    MAP_SIZE,
    MIN_BLUR_SIGMA_PX,
    ViewMaker,
    apply_color,
    blur,
    color_maps,
    cut,
    decode,
    jpeg_size,
    random_boxes,
    solarize,
    whole_view,
)

PLAIN = {"grayscale_prob": 0.0, "gaussian_blur_prob": 0.0, "solarize_prob": 0.0}


def _without_jitter(**settings: Any) -> AugmentationConfig:
    return AugmentationConfig(**settings).model_copy(update={"jitter_prob": 0.0})


def _jpeg(side_px: int = 96) -> bytes:
    ramp = np.linspace(0, 255, side_px).astype(np.uint8)
    image = np.stack([np.tile(ramp, (side_px, 1)), np.tile(ramp[:, None], (1, side_px)), np.full((side_px,) * 2, 90)])
    return cv2.imencode(".jpg", image.transpose(1, 2, 0).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[
        1
    ].tobytes()


def _colored(view: np.ndarray, **changes: float) -> np.ndarray:
    """A view in other colours; by default nothing changes."""
    settings = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue_turn": 0.0, "is_gray": False} | changes
    view = view.copy()
    apply_color(view, color_maps(**{name: np.array([value]) for name, value in settings.items()})[0])
    return view


def test_every_view_has_its_size_and_the_draws_decide_everything() -> None:
    make_views = ViewMaker(AugmentationConfig(global_px=32, local_px=16, num_local=3))
    first, again = (make_views(_jpeg(), numpy_rng(1, 2)) for _ in range(2))
    assert [view.shape for view in first] == [(32, 32, 3)] * 2 + [(16, 16, 3)] * 3
    assert all(view.dtype == np.uint8 for view in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], make_views(_jpeg(), numpy_rng(1, 3))[0])


def test_blur_and_solarisation_happen_as_often_as_said() -> None:
    maker, rng = ViewMaker(AugmentationConfig(global_px=224, local_px=224, num_local=1)), numpy_rng(0)
    params = np.stack([maker.draw(96, 96, rng).params[:, MAP_SIZE:] for _ in range(800)])  # (800, 3, 2)
    blurred, solarized = (params[..., i].astype(bool).mean(axis=0) for i in range(2))
    effective = (2.0 - MIN_BLUR_SIGMA_PX) / 1.9  # the others are too weak to change a pixel
    assert np.allclose(blurred / effective, (1.0, 0.1, 0.5), atol=0.06)  # DINOv2's code blurs view 1 never
    assert np.allclose(solarized, (0.0, 0.2, 0.0), atol=0.06)
    assert params[:, 0, 0].max() <= 2.0


def test_one_blur_probability_replaces_the_three() -> None:
    assert ViewMaker(AugmentationConfig(num_local=1)).blur_probs.tolist() == [1.0, 0.1, 0.5]
    assert ViewMaker(AugmentationConfig(num_local=1, gaussian_blur_prob=0.7)).blur_probs.tolist() == [0.7] * 3
    with pytest.raises(ValueError, match="blur_view_1_prob has no effect"):
        AugmentationConfig(gaussian_blur_prob=0.7, blur_view_1_prob=0.2)


def test_left_stays_left() -> None:
    """A ramp that rises to the right rises in every view, unless a flip is asked for."""
    maker = ViewMaker(_without_jitter(global_px=32, local_px=16, num_local=4, **PLAIN))
    flipping = ViewMaker(_without_jitter(global_px=32, local_px=16, num_local=4, flip_prob=1.0, **PLAIN))
    for seed in range(20):
        for view in maker(_jpeg(), numpy_rng(seed)):
            assert view[:, -1, 0].mean() > view[:, 0, 0].mean()
        for view in flipping(_jpeg(), numpy_rng(seed)):
            assert view[:, -1, 0].mean() < view[:, 0, 0].mean()


def test_a_box_has_the_area_and_aspect_it_may_have() -> None:
    rng = numpy_rng(0)
    boxes = np.stack([random_boxes(100, 80, np.array([[0.2, 0.5]]), rng.random((1, 22)))[0] for _ in range(300)])
    top, left, height, width = boxes.T
    assert (top.min(), left.min()) == (0, 0)
    assert (top + height).max() == 100
    assert (left + width).max() == 80
    share, aspect = height * width / 8000, width / height
    assert 0.19 < share.min() < 0.23 < 0.47 < share.max() < 0.51
    assert 0.72 < aspect.min() < 0.8 < 1.25 < aspect.max() < 1.38
    middle = random_boxes(100, 10, np.array([[1.0, 1.0]]), rng.random((1, 22)))
    assert middle.tolist() == [[45, 0, 10, 10]]  # no such part fits: the middle square


def test_a_setting_does_not_shift_the_draws_of_another() -> None:
    plain, other = (
        ViewMaker(config).draw(96, 96, numpy_rng(3))
        for config in (
            AugmentationConfig(num_local=2),
            _without_jitter(num_local=2, flip_prob=1.0, solarize_prob=1.0),
        )
    )
    assert np.array_equal(plain.boxes, other.boxes)
    assert np.array_equal(plain.params[:, MAP_SIZE], other.params[:, MAP_SIZE])


def test_a_view_is_the_part_it_says_at_any_size() -> None:
    """Against the exact mean over each pixel's area: enlarged, shrunk a little, and from the pyramid."""
    image = cv2.resize(decode(_jpeg(160)), (160, 160))
    for side_px, box in ((96, (10, 20, 60, 50)), (48, (8, 16, 80, 64)), (24, (16, 8, 120, 144)), (8, (0, 0, 160, 160))):
        view, pyramid = np.empty((side_px, side_px, 3), np.uint8), [image]
        cut(pyramid, np.array(box), view)
        top, left, height, width = box
        exact = cv2.resize(image[top : top + height, left : left + width], (side_px, side_px), interpolation=3)
        assert np.abs(view.astype(int) - exact).mean() < 1.5
    assert [len(level) for level in pyramid] == [160, 80, 40, 20, 10]


def test_hands_are_not_flipped_under_another_name() -> None:
    for folder, stream in (("x/hand_l", None), ("x/crops", "hand_l"), ("x/hand_l", "face")):
        config = PretrainConfig(
            train_dir=[Path(folder)],
            output_dir=Path("o"),
            stream=stream,
            augmentation=AugmentationConfig(flip_prob=0.5),
        )
        with pytest.raises(UserError, match="a flipped hand_l is the other hand"):
            config.named_stream(("face", "hand_l", "hand_r"))


def test_what_an_image_claims_is_checked_before_memory_is_taken() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    jpeg, png = (bytearray(cv2.imencode(suffix, image)[1].tobytes()) for suffix in (".jpg", ".png"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 30_000, 30_000)
    png[16:24] = struct.pack(">II", 30_000, 30_000)
    for damaged in (jpeg, png):
        with pytest.raises(ValueError, match="claims 30000x30000 px, expected at most 67,108,864 pixels"):
            decode(bytes(damaged))


def test_a_large_crop_is_decoded_small_when_the_views_need_no_more() -> None:
    jpeg = _jpeg(224)
    assert jpeg_size(jpeg) == (224, 224)
    assert decode(jpeg).shape == (224, 224, 3)
    assert decode(jpeg, 100.0).shape == (112, 112, 3)
    assert decode(jpeg, 50.0).shape == (56, 56, 3)
    assert decode(jpeg, 150.0).shape == (224, 224, 3)
    assert whole_view(jpeg, 48).shape == (48, 48, 3)
    assert abs(whole_view(jpeg, 48).astype(int) - cv2.resize(decode(jpeg), (48, 48), interpolation=3)).max() < 8


def test_no_view_is_enlarged_because_its_crop_was_decoded_small() -> None:
    maker = ViewMaker(AugmentationConfig())
    side_px = math.ceil(maker.needed_px)  # of what may be left of a crop of twice the size
    boxes = np.concatenate([maker.draw(side_px, side_px, numpy_rng(seed)).boxes for seed in range(500)])
    sides_px = np.tile(maker.sides_px, 500)
    assert (boxes[:, 2:].min(axis=1) >= sides_px - 1).all()  # boxes are whole pixels


def test_a_png_is_an_image_too() -> None:
    image = decode(_jpeg(40))
    assert np.array_equal(decode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()), image)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"GIF89a....................", b"\xff\xd8\xff\xe0\x00\x04ab\x00\x00"]
)
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable"):
        decode(data)


def test_the_folded_colours_equal_the_steps_one_by_one() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(90, 160, (8, 8, 3), dtype=np.uint8)
    x = view.astype(float) * 1.1  # brightness, then contrast about the mean luma, then saturation about each luma
    x = 0.8 * x + 0.2 * 1.1 * float((view @ LUMA).mean())
    x = 1.3 * x - 0.3 * (x @ LUMA)[..., None]
    assert np.abs(_colored(view, brightness=1.1, contrast=0.8, saturation=1.3) - x).max() <= 0.56


def test_neutral_colours_change_nothing_and_grey_is_grey() -> None:
    view = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(_colored(view), view)
    gray = _colored(view, is_gray=True).astype(int)
    assert np.array_equal(gray[..., 0], gray[..., 1])
    assert np.abs(gray[..., 0] - view @ LUMA).max() <= 0.55
    soft = view // 4 + 96
    turned = _colored(soft, hue_turn=0.1)
    assert np.abs(turned @ LUMA - soft @ LUMA).max() < 1.5  # a turn of hue keeps luma
    assert np.abs(turned.astype(int) - soft).max() > 5
    assert np.abs(_colored(turned, hue_turn=-0.1).astype(int) - soft).max() <= 2


def test_solarising_inverts_the_bright_half() -> None:
    view = np.array([[[0, 127, 128], [200, 255, 10]]], np.uint8)
    solarize(view)
    assert view.tolist() == [[[0, 127, 127], [55, 0, 10]]]


@pytest.mark.parametrize("sigma_px", [MIN_BLUR_SIGMA_PX, 0.8, 2.0])
def test_the_blur_is_the_gaussian_of_its_sigma(sigma_px: float) -> None:
    view = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    at = np.arange(-8, 9)
    taps = np.exp(-(at**2) / (2 * sigma_px**2)) * (np.abs(at) <= max(1, np.ceil(3 * sigma_px)))
    taps /= taps.sum()
    padded = np.pad(view.astype(float), ((8, 8), (8, 8), (0, 0)), mode="reflect")
    rows = sum(tap * padded[i : i + 32] for i, tap in enumerate(taps))
    exact = sum(tap * rows[:, i : i + 40] for i, tap in enumerate(taps))
    before = view.copy()
    blur(view, sigma_px)
    assert np.abs(view - exact).max() < 0.51
    if sigma_px == MIN_BLUR_SIGMA_PX:  # weaker ones are left out
        assert np.abs(view.astype(int) - before).max() <= 1
