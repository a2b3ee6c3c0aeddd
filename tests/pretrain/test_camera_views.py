"""Turns, motion blur and recompression of views: each does what it says, and off, all is as it was."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from signstreams.cli import parse
from signstreams.engine.seeding import numpy_rng
from signstreams.pretrain.settings import AugmentationConfig, PretrainConfig
from signstreams.pretrain.views import (
    BOX_TRIES,
    ViewMaker,
    cut,
    line_kernel,
    motion_blur,
    recompress,
)

ALL = {"turn_deg": 20.0, "motion_blur_prob": 1.0, "recompress_prob": 1.0}
CAMERA = {"turn_deg": [0], "motion_blur_prob": [1, 2], "recompress_prob": [3]}  # columns of `Draws.camera`
STILL = {"grayscale_prob": 0.0, "gaussian_blur_prob": 0.0, "solarize_prob": 0.0, "brightness": 0, "contrast": 0}
STILL |= {"saturation": 0.0, "hue": 0.0}
# Of the identity of the requirement's run, as it was recorded before there were turns, motion blur and recompression.
RECORDED = {
    "global_px": 112,
    "local_px": 48,
    "num_local": 8,
    "global_scale": [0.4, 1.0],
    "local_scale": [0.15, 0.5],
    "flip_prob": 0.0,
    "jitter_prob": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "grayscale_prob": 0.2,
    "blur_sigma_px": [0.1, 2.0],
    "solarize_prob": 0.2,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "on_device": "auto",
    "blur_probs": [1.0, 0.1, 0.5],
}


def _small(**settings: Any) -> AugmentationConfig:
    return AugmentationConfig(global_px=32, local_px=16, num_local=3, **settings)


def _jpeg(side_px: int = 96) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side_px // 4, side_px // 4, 3), dtype=np.uint8)
    image = cv2.resize(noise, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _turned(image: np.ndarray, box: tuple[int, int, int, int], side_px: int, turn_deg: float) -> np.ndarray:
    view = np.empty((side_px, side_px, 3), np.uint8)
    cut([image], np.array(box), view, turn_deg)
    return view


def _waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth picture that is nowhere like itself nearby, at places in px from the corner of 160 x 200 px."""
    return 128 + 50 * np.sin(x / 17 + 0.3) + 60 * np.cos(y / 23 + x / 41)


@pytest.mark.parametrize("turn_deg", [-20.0, 7.0, 45.0])
@pytest.mark.parametrize(("side_px", "box"), [(112, (40, 60, 60, 70)), (48, (30, 50, 90, 80)), (16, (25, 45, 110, 90))])
def test_each_pixel_of_a_turned_view_shows_its_place_in_the_crop(
    side_px: int, box: tuple[int, int, int, int], turn_deg: float
) -> None:
    """Enlarged, shrunk, and from the pyramid; also the odd height of the crop is halved to the right place."""
    top, left, height, width = box
    places = np.meshgrid(np.arange(203) + 0.5, np.arange(161) + 0.5)
    image = np.repeat(np.rint(_waves(*places))[..., None], 3, axis=2).astype(np.uint8)
    across, down = np.meshgrid(*[(np.arange(side_px) + 0.5) / side_px - 0.5] * 2)
    cos, sin = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    # what is at the view's (across, down) was turned clockwise: it came from there, turned back
    x = left + width / 2 + cos * across * width + sin * down * height
    y = top + height / 2 - sin * across * width + cos * down * height
    assert 0 < x.min() < x.max() < 203
    assert 0 < y.min() < y.max() < 161
    exact = _waves(x, y)
    error = np.abs(_turned(image, box, side_px, turn_deg)[..., 1] - exact)
    assert error.max() < 3
    assert error.mean() < 1
    assert np.abs(_turned(image, box, side_px, -turn_deg)[..., 1] - exact).mean() > 10, "any direction would do"


@pytest.mark.parametrize("turn_deg", [20.0, -20.0])
def test_a_positive_turn_is_clockwise(turn_deg: float) -> None:
    image = np.zeros((101, 101, 3), np.uint8)
    cv2.circle(image, (50, 20), 2, (255, 255, 255), -1)  # above the middle
    view = _turned(image, (0, 0, 101, 101), 101, turn_deg)[..., 0].astype(float)
    rows, columns = np.mgrid[:101, :101]
    found = (view * columns).sum() / view.sum(), (view * rows).sum() / view.sum()
    angle = math.radians(turn_deg)
    assert np.allclose(found, (50 + 30 * math.sin(angle), 50 - 30 * math.cos(angle)), atol=0.2)


def test_a_quarter_turn_is_that_of_the_unturned_view() -> None:
    image = cv2.imdecode(np.frombuffer(_jpeg(), np.uint8), cv2.IMREAD_COLOR)
    for side_px, box in ((24, (10, 20, 60, 60)), (8, (16, 16, 64, 64))):
        upright, view = _turned(image, box, side_px, 0.0), _turned(image, box, side_px, 90.0)
        assert np.abs(np.rot90(upright, -1).astype(int) - view).max() <= 2


def test_a_turned_view_has_no_corners_that_tell_the_angle() -> None:
    """All of the crop, so that a corner lies beyond it: the crop's mirror image, of the crop's own values."""
    white = np.full((64, 64, 3), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for side_px, turn_deg in itertools.product((16, 48, 96), (-45.0, 20.0)):
        assert (_turned(white, (0, 0, 64, 64), side_px, turn_deg) == 255).all()
        view = _turned(noise, (0, 0, 64, 64), side_px, turn_deg).astype(float)
        corner = view[: side_px // 4, : side_px // 4]
        assert 0.7 < corner.std() / view.std() < 1.3
    # repeated pixels of the rim would be stripes; here the corner is the picture just inside, mirrored
    view = _turned(noise, (0, 0, 64, 64), 64, 45.0)
    turn = cv2.getRotationMatrix2D((31.5, 31.5), 45.0, 1)
    turn[:, 2] += 32
    wide = np.pad(noise, ((32, 32), (32, 32), (0, 0)), mode="reflect")
    mirrored = cv2.warpAffine(wide, turn, (64, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    assert np.abs(view.astype(int) - mirrored).max() <= 3


def test_a_turned_view_that_is_much_smaller_than_its_part_does_not_alias() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    assert np.ptp(_turned(image, (20, 20, 200, 210), 32, 13.0)) <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 40_000)])
def test_a_part_of_any_crop_can_be_turned(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    square = min(shape)
    assert (_turned(image, (0, (shape[1] - square) // 2, square, square), 16, 20.0) == 90).all()


@pytest.mark.parametrize("length_px", [0.5, 1.0, 5.0, 12.3])
@pytest.mark.parametrize("direction_deg", [0.0, 30.0, 90.0, 135.0, 179.0])
def test_motion_smears_a_point_along_its_line(length_px: float, direction_deg: float) -> None:
    view = np.zeros((31, 31, 3), np.uint8)
    view[15, 15] = 250
    motion_blur(view, length_px, direction_deg)
    weight = view[..., 0] / view[..., 0].sum(dtype=int)
    rows, columns = np.mgrid[:31, :31]
    middle = (weight * columns).sum(), (weight * rows).sum()
    assert np.allclose(middle, (15, 15), atol=0.15)
    across, down = columns - 15, rows - 15
    cos, sin = math.cos(math.radians(direction_deg)), math.sin(math.radians(direction_deg))
    along, aside = across * cos + down * sin, down * cos - across * sin
    assert np.abs(along[weight > 0]).max() < length_px / 2 + 1.5
    assert np.abs(aside[weight > 0]).max() < 1.5
    variance = (weight * along**2).sum()
    assert length_px**2 / 12 * 0.8 < variance < length_px**2 / 12 + 0.35  # four pixels about a point: up to .25 more
    total = float(view[..., 0].sum(dtype=int))
    assert total == pytest.approx(250, abs=0.3 * np.count_nonzero(weight) + 2)


def test_motion_blur_of_a_row_is_its_running_mean_and_leaves_what_does_not_change_along_it() -> None:
    row = np.random.default_rng(0).integers(0, 256, 64)
    view = np.repeat(np.repeat(row[None, :, None], 20, axis=0), 3, axis=2).astype(np.uint8)
    still = view.copy()
    motion_blur(still, 9.0, 90.0)
    assert np.abs(still.astype(int) - view).max() <= 1
    motion_blur(view, 5.0, 0.0)
    fine = np.interp(np.arange(0, 63.001, 0.01), np.arange(64), row)  # the mean over 5 px of the line between pixels
    mean = [fine[max(0, at - 250) : at + 251].mean() for at in range(500, 5800, 100)]
    assert np.abs(view[10, 5:58, 0] - mean).max() < 2.5


@pytest.mark.parametrize(("length_px", "direction_deg"), [(0.4, 10.0), (6.0, 45.0), (12.0, 120.0), (12.0, 90.0)])
def test_a_line_has_weight_one_and_is_small_enough_to_be_fast(length_px: float, direction_deg: float) -> None:
    kernel = line_kernel(length_px, direction_deg)
    assert kernel.sum() == pytest.approx(1)
    assert (kernel >= 0).all()
    assert kernel.size < 130  # of a 224 px view's longest half line: beyond, OpenCV takes five times as long


def test_a_worse_quality_leaves_less_of_a_view() -> None:
    image = cv2.imdecode(np.frombuffer(_jpeg(64), np.uint8), cv2.IMREAD_COLOR)
    errors = []
    for quality in (20, 70, 100):
        view = image.copy()
        recompress(view, quality)
        errors.append(np.abs(view.astype(int) - image).mean())
    assert errors[0] > 1.5 * errors[1] > 0
    red = np.zeros((16, 16, 3), np.uint8)
    red[...] = 200, 30, 40
    recompress(red, 90)
    assert np.abs(red.astype(int) - (200, 30, 40)).max() <= 4  # red stays the first channel


def test_at_the_defaults_nothing_changes_in_pixels_or_draws() -> None:
    """A view is what the box and the four other operations of before make of it, and no draw is added."""
    maker, rng, before = ViewMaker(_small(**STILL, flip_prob=0.5)), numpy_rng(5), numpy_rng(5)
    views = maker(_jpeg(), rng)
    draws = maker.draw(96, 96, before)
    assert draws.camera is None
    uniform = numpy_rng(5).random((5, 2 * BOX_TRIES + 12))
    assert np.array_equal(draws.is_flipped, uniform[:, 2 * BOX_TRIES + 2] < 0.5)
    after = numpy_rng(5)
    after.random((5, 2 * BOX_TRIES + 12))
    assert rng.bit_generator.state == before.bit_generator.state == after.bit_generator.state
    image = cv2.imdecode(np.frombuffer(_jpeg(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()
    for i, view in enumerate(views):
        top, left, height, width = draws.boxes[i]
        part = image[top : top + height, left : left + width]
        if min(height, width) < 2 * len(view):  # as of before, without a pyramid
            how = cv2.INTER_CUBIC if min(height, width) < len(view) else cv2.INTER_LINEAR
            expected = cv2.resize(part, view.shape[:2], interpolation=how)
            assert np.array_equal(view, expected[:, ::-1] if draws.is_flipped[i] else expected)


def test_one_setting_does_not_shift_the_draws_of_another() -> None:
    everything = ViewMaker(_small(**ALL)).draw(96, 96, numpy_rng(3))
    nothing = ViewMaker(_small()).draw(96, 96, numpy_rng(3))
    for name in ("boxes", "is_flipped", "is_colored", "params"):
        assert np.array_equal(getattr(everything, name), getattr(nothing, name))
    for name, columns in CAMERA.items():
        alone = ViewMaker(_small(**{name: ALL[name]})).draw(96, 96, numpy_rng(3)).camera
        assert np.array_equal(alone[:, columns], everything.camera[:, columns])
        assert alone[:, columns[0]].all()
        others = [column for other, columns in CAMERA.items() if other != name for column in columns[:1]]
        assert not alone[:, others].any()


def test_each_happens_as_often_and_as_strongly_as_said() -> None:
    config = AugmentationConfig(
        global_px=224, local_px=56, num_local=2, turn_deg=20.0, motion_blur_prob=0.3, recompress_prob=0.6
    )
    maker, rng = ViewMaker(config), numpy_rng(0)
    turns, lengths, directions, qualities = np.moveaxis(
        np.stack([maker.draw(96, 96, rng).camera for _ in range(1000)]), -1, 0
    )  # (1000, 4) each
    assert -20 <= turns.min() < -19.5
    assert 19.5 < turns.max() <= 20
    assert np.abs(turns.mean(axis=0)).max() < 1.5
    assert np.allclose((lengths > 0).mean(axis=0), 0.3, atol=0.06)
    assert np.allclose((qualities > 0).mean(axis=0), 0.6, atol=0.06)
    for share, some in ((1, lengths[:, :2]), (1 / 4, lengths[:, 2:])):  # proportionally less of smaller views
        some = some[some > 0]
        assert 4 * share <= some.min() < 4.5 * share
        assert 23.5 * share < some.max() <= 24 * share
    assert 0 <= directions.min() < 3
    assert 177 < directions.max() <= 180
    assert sorted(set(qualities[qualities > 0])) == list(range(20, 71))


@pytest.mark.parametrize("name", list(ALL))
def test_each_alters_every_view_with_or_without_the_photometric_half(name: str) -> None:
    for is_photometric in (True, False):
        plain, changed = (
            ViewMaker(config, is_photometric=is_photometric)(_jpeg(), numpy_rng(2))
            for config in (_small(**STILL), _small(**STILL, **{name: ALL[name]}))
        )
        for a, b in zip(plain, changed, strict=True):
            assert np.abs(a.astype(int) - b).mean() > 0.3


def test_turned_blurred_and_compressed_in_this_order_before_colours_change() -> None:
    config = _small(**ALL, **STILL | {"solarize_prob": 1.0, "flip_prob": 1.0})
    draws = ViewMaker(config).draw(96, 96, numpy_rng(4))
    image = cv2.imdecode(np.frombuffer(_jpeg(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()
    turn_deg, length_px, direction_deg, quality = draws.camera[1].tolist()
    expected = _turned(image, tuple(draws.boxes[1].tolist()), 32, turn_deg)[:, ::-1].copy()
    motion_blur(expected, length_px, direction_deg)
    recompress(expected, int(quality))
    expected = np.where(expected < 128, expected, 255 - expected)
    assert np.array_equal(ViewMaker(config)(_jpeg(), numpy_rng(4))[1], expected)


def _parse(*words: str) -> PretrainConfig:
    return parse(PretrainConfig, ["--train-dir", "x/hand_r", "--output-dir", "o", *words])


def test_the_fingerprint_of_earlier_runs_stays_and_each_setting_is_in_it() -> None:
    assert _parse().identity()["augmentation"] == RECORDED
    off = ["--set", "augmentation.turn_deg=0", "--set", "augmentation.recompress_prob=0"]
    assert _parse(*off).identity() == _parse().identity()
    ranges = {"motion_blur_prob": {"motion_blur_px": [4.0, 24.0]}, "recompress_prob": {"recompress_quality": [20, 70]}}
    for name, value in ALL.items():
        recorded = _parse("--set", f"augmentation.{name}={value}").identity()["augmentation"]
        assert recorded == RECORDED | {name: value} | ranges.get(name, {})


def test_a_hand_may_be_turned() -> None:
    config = _parse("--set", "augmentation.turn_deg=20")
    assert config.train_dir == [Path("x/hand_r")]
    assert config.named_stream(("hand_l", "hand_r")) == "hand_r"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("turn_deg=46", "less than or equal to 45"),
        ("turn_deg=-1", "greater than or equal to 0"),
        ("motion_blur_prob=1.1", "less than or equal to 1"),
        ("recompress_prob=-0.1", "greater than or equal to 0"),
        ("motion_blur_px=[1,2]", "is fixed at (4.0, 24.0)"),
        ("recompress_quality=[1,2]", "is fixed at (20, 70)"),
    ],
)
def test_a_value_beyond_the_limits_is_one_line(setting: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        _parse("--set", f"augmentation.{setting}")
    assert left.value.code == 2
    said, advice = capsys.readouterr().err.strip().split("\n")
    assert f"augmentation.{setting.partition('=')[0]}" in said
    assert expected in said
    assert advice.startswith("try: ")
