"""Crops: right content, right scale, constant beyond the border."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from signstreams.extract.crops import PAD_VALUE, cut, encode


def smooth_image(height: int = 300, width: int = 400) -> np.ndarray:
    """(H, W, 3): red grows along x, green along y, blue is a wave; so that every place can be told from its colour."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, 127 + 100 * np.sin(x / 30) * np.cos(y / 20)], -1).astype(
        np.uint8
    )


def slow(image: np.ndarray, box: np.ndarray, crop_px: int) -> np.ndarray:
    """Each crop pixel is the mean of what a grid of 4 x 4 points in it sees (nearest pixel), black outside."""
    result = np.zeros((crop_px, crop_px, 3))
    step = box[2] / crop_px
    offsets = (np.arange(4) + 0.5) / 4
    for row in range(crop_px):
        for column in range(crop_px):
            ys = np.floor(box[1] - box[2] / 2 + (row + offsets) * step).astype(int)
            xs = np.floor(box[0] - box[2] / 2 + (column + offsets) * step).astype(int)
            for y in ys:
                for x in xs:
                    if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                        result[row, column] += image[y, x] / 16
    return result


@pytest.mark.parametrize(
    "box",
    [(150.3, 120.7, 12.0), (200.0, 150.0, 32.0), (201.4, 149.1, 50.5), (180.0, 140.0, 75.0), (200.0, 150.0, 250.0)],
    ids=["enlarged", "as it is", "shrunk", "halved", "an eighth"],
)
def test_a_crop_shows_what_the_box_holds(box: tuple) -> None:
    image = smooth_image()
    crop = cut(image, np.array(box), 32)
    assert crop.shape == (32, 32, 3) and crop.dtype == np.uint8
    # half a crop pixel of placement: at most that share of a step in colour, plus rounding
    per_pixel = box[2] / 32 * np.array([255 / 400, 255 / 300, 100 / 20])
    error = np.abs(crop[1:-1, 1:-1] - slow(image, np.array(box), 32)[1:-1, 1:-1])
    assert (error.mean(axis=(0, 1)) <= 0.5 * per_pixel + 1.5).all()


@pytest.mark.parametrize("box", [(0.0, 0.0, 40.0), (400.0, 300.0, 90.0), (395.0, 10.0, 20.0)])
def test_beyond_the_border_lies_the_padding_and_the_aspect_ratio_stays(box: tuple) -> None:
    image = np.full((300, 400, 3), 200, np.uint8)
    crop = cut(image, np.array(box), 64)
    inside = slow(image, np.array(box), 64)[..., 0] / 200
    assert (crop[inside == 0][:, 0] <= PAD_VALUE + 40).mean() > 0.9  # but for the rim, where interpolation mixes
    assert abs((crop[..., 0] > 100).mean() - inside.mean()) < 0.03


def test_a_box_with_no_pixel_of_the_frame_is_all_padding() -> None:
    assert (cut(smooth_image(), np.array([-500.0, 900.0, 60.0]), 32) == PAD_VALUE).all()


def test_a_box_larger_than_the_frame_holds_all_of_it() -> None:
    crop = cut(np.full((20, 30, 3), 255, np.uint8), np.array([15.0, 10.0, 60.0]), 48)
    assert (crop[..., 0] > 127).sum() == pytest.approx(24 * 16, rel=0.1)


@pytest.mark.parametrize("times", [2.5, 4.7])
def test_of_a_box_far_larger_than_the_frame_the_frame_is_where_it_belongs(times: float) -> None:
    image = np.full((300, 400, 3), 255, np.uint8)
    box = np.array([300.0, 100.0, times * 400])
    seen, expected = (one[..., 0] / 255.0 for one in (cut(image, box, 64), slow(image, box, 64)))
    assert seen.sum() == pytest.approx(expected.sum(), rel=0.1)
    rows, columns = np.mgrid[:64, :64]
    for axis in (rows, columns):
        assert (axis * seen).sum() / seen.sum() == pytest.approx((axis * expected).sum() / expected.sum(), abs=0.5)


def test_a_box_around_a_wild_point_takes_no_memory_of_its_size() -> None:
    crop = cut(smooth_image(), np.array([200.0, 150.0, 4e7]), 32)  # its patch would have 5,000 TB
    assert crop.shape == (32, 32, 3)


def test_a_box_that_creeps_moves_its_crop_less_than_a_source_pixel() -> None:
    image = smooth_image()
    means = [cut(image, np.array([200 + shift, 150, 16.0]), 224)[..., 0].mean() for shift in np.linspace(0, 1, 9)]
    assert (np.diff(means) > 0).all()  # a crop placed at source pixels would stand still, then jump


def test_a_shrunk_chequerboard_turns_grey() -> None:
    board = (np.indices((300, 300)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = np.repeat(board[..., None], 3, axis=-1)
    for side in (96.0, 130.0, 280.0):
        crop = cut(image, np.array([150.0, 150.0, side]), 32).astype(float)
        assert crop.std() < 20, side
        assert crop.mean() == pytest.approx(127, abs=6)


def test_the_jpeg_keeps_the_colours_in_their_order() -> None:
    crop = np.zeros((32, 32, 3), np.uint8)
    crop[..., 0] = 250
    bgr = cv2.imdecode(np.frombuffer(encode(crop, 95), np.uint8), cv2.IMREAD_COLOR)
    assert bgr[16, 16, 2] > 230 and bgr[16, 16, 0] < 20


def test_quality_costs_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert len(encode(noise, 95)) > 1.5 * len(encode(noise, 50))
