"""The height-field renderer against a slow, readable one."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.demo.surface import NOTHING, Patch, darken, paint


def slow_capsule(start: np.ndarray, end: np.ndarray, radius: float, size: int, samples: int) -> np.ndarray:
    """Highest point over every sample of a (size, size) px patch, from many spheres along the line."""
    grid = (np.arange(size * samples) + 0.5) / samples
    x, y = np.meshgrid(grid, grid)
    height = np.full(x.shape, -np.inf)
    for share in np.linspace(0, 1, 400):
        center = start + share * (end - start)
        room = radius**2 - (x - center[0]) ** 2 - (y - center[1]) ** 2
        height = np.where(room > 0, np.maximum(height, center[2] + np.sqrt(np.maximum(room, 0))), height)
    return height


@pytest.mark.parametrize("end", [(22.0, 20.0, 4.0), (9.0, 9.0, 20.0), (24.0, 8.0, -12.0)])
def test_a_capsule_is_a_swept_sphere(end: tuple[float, float, float]) -> None:
    start, stop = np.array([8.0, 9.0, 2.0]), np.array(end)
    patch = Patch(0, 0, 32, 32)
    patch.capsule(start, stop, 4.0, 4.0, 1)
    slow = slow_capsule(start, stop, 4.0, 32, 2)
    np.testing.assert_array_equal(patch.part[1:-1, 1:-1] > 0, np.isfinite(slow)[1:-1, 1:-1])
    both = np.isfinite(slow) & (slow > slow[np.isfinite(slow)].min() + 1)
    np.testing.assert_allclose(patch.z[both] / 2, slow[both], atol=0.12)


def test_the_nearer_of_two_parts_is_seen() -> None:
    patch = Patch(0, 0, 20, 20)
    patch.ellipsoid(np.array([10.0, 10.0, 0.0]), (6, 6, 6), 1)
    patch.ellipsoid(np.array([10.0, 10.0, 5.0]), (3, 3, 3), 2)
    assert patch.part[20, 20] == 2
    assert patch.part[20, 10] == 1
    patch.ellipsoid(np.array([10.0, 10.0, -30.0]), (8, 8, 8), 3)
    assert patch.part[20, 20] == 2
    assert patch.part[20, 6] == 3


def test_light_falls_from_above() -> None:
    patch = Patch(0, 0, 40, 40)
    patch.ellipsoid(np.array([20.0, 20.0, 0.0]), (15, 15, 15), 1)
    rgb, alpha = patch.shade(np.full((2, 2, 3), 150.0))
    assert rgb[9, 15].mean() > rgb[31, 25].mean() + 30
    assert alpha[20, 20] == pytest.approx(1)
    assert alpha[0, 0] == 0


def test_inner_and_outer_side_have_their_own_colour() -> None:
    colors = np.zeros((2, 2, 3))
    colors[1, 0], colors[1, 1] = (200, 0, 0), (0, 0, 200)
    for facing, channel in ((1.0, 0), (-1.0, 2)):
        patch = Patch(0, 0, 20, 20)
        patch.ellipsoid(np.array([10.0, 10.0, 0.0]), (8, 8, 8), 1)
        rgb, _ = patch.shade(colors, palmar=np.array([[0, 0, 0], [0, 0, facing]]))
        assert rgb[10, 10].argmax() == channel


def test_what_is_cut_away_is_gone() -> None:
    patch = Patch(0, 0, 20, 20)
    patch.capsule(np.array([2.0, 10.0, 0.0]), np.array([18.0, 10.0, 0.0]), 3, 3, 1)
    patch.cut(np.array([10.0, 10.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert not patch.part[:, :19].any()
    assert (patch.z[:, :19] == NOTHING).all()
    assert patch.part[20, 25] == 1


@pytest.mark.parametrize("corner", [(-5, -5), (15, 18), (100, 0), (0, -50)])
def test_painting_beyond_the_edge_is_cut_off(corner: tuple[int, int]) -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    paint(image, np.full((10, 10, 3), 200, np.uint8), np.ones((10, 10), np.float32), *corner)
    x0, y0 = corner
    inside = max(0, min(20, x0 + 10) - max(0, x0)) * max(0, min(20, y0 + 10) - max(0, y0))
    assert (image[..., 0] == 200).sum() == inside
    before = image.copy()
    darken(image, np.ones((10, 10), np.float32), *corner, 0.5)
    assert ((image < before)[..., 0]).sum() == inside


def test_an_empty_patch_and_one_with_nothing_in_view_stay_empty() -> None:
    patch = Patch(0, 0, 10, 10)
    patch.capsule(np.array([50.0, 50.0, 0.0]), np.array([60.0, 60.0, 0.0]), 2, 2, 1)
    patch.ellipsoid(np.array([-50.0, 5.0, 0.0]), (2, 2, 2), 1)
    rgb, alpha = patch.shade(np.ones((2, 2, 3)))
    assert not alpha.any()
    assert rgb.shape == (10, 10, 3)
