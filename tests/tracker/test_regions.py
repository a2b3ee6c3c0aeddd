"""Regions: what is cut out lies where `project` puts it back, at any angle and scale; what is beyond the frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from signstreams.tracker.regions import agree, along_axis, around_hand, cut, half_turn, moved_along, project, turned

ROW = np.zeros(1, int)


def test_an_upright_region_of_the_same_size_is_part_of_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    (found,) = cut([frame], ROW, np.array([[60.0, 44.0, 32.0, 0.0]]), 32)
    assert np.array_equal(found, frame[28:60, 44:76])


@pytest.mark.parametrize("side", [40.0, 130.0, 500.0, 1100.0], ids=["enlarged", "shrunk", "to a quarter", "to a tenth"])
@pytest.mark.parametrize("angle", [0.0, 0.7, -2.4])
def test_a_point_comes_back_to_where_it_was(side: float, angle: float) -> None:
    place = np.array([312.0, 205.0])
    frame = np.zeros((480, 640, 3), np.uint8)
    radius = max(3, round(side / 25))
    cv2.circle(frame, place.astype(int).tolist(), radius, (255, 255, 255), -1)
    region = np.array([[300.0, 215.0, side, angle]])
    weight = cut([frame], ROW, region, 100)[0, ..., 0].astype(float)
    y, x = np.mgrid[:100, :100]
    middle = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() / 100
    assert project(middle[None, None], region)[0, 0] == pytest.approx(place, abs=max(0.5, side / 200))


def test_beyond_the_frame_its_edge_goes_on_or_it_is_black() -> None:
    frame = np.full((50, 50, 3), 200, np.uint8)
    region = np.array([[0.0, 25.0, 40.0, 0.0]])
    assert (cut([frame], ROW, region, 40) == 200).all()
    (black,) = cut([frame], ROW, region, 40, black_beyond=True)
    assert (black[:, :19] == 0).all()
    assert (black[:, 21:] == 200).all()


def test_each_region_is_cut_from_its_own_frame() -> None:
    frames = [np.full((60, 60, 3), level, np.uint8) for level in (10, 90, 170)]
    rows = np.array([2, 0, 0, 1])
    regions = np.array([[30.0, 30.0, side, 0.3] for side in (20, 200, 20, 200)])
    found = cut(frames, rows, regions, 16)
    assert found.reshape(4, -1).mean(1).tolist() == [170, 10, 10, 90]


def test_a_frame_smaller_than_the_averaged_block_is_cut_all_the_same() -> None:
    assert (cut([np.full((2, 3, 3), 7, np.uint8)], ROW, np.array([[1.0, 1.0, 900.0, 0.0]]), 16) == 7).all()


def test_z_grows_with_the_region() -> None:
    points = np.array([[[0.5, 0.5, 0.25]]])
    assert project(points, np.array([[10.0, 20.0, 80.0, 1.0]]))[0, 0].tolist() == [10.0, 20.0, 20.0]


def test_the_region_around_a_hand_turns_and_grows_with_it() -> None:
    points = np.random.default_rng(1).uniform(0, 50, (1, 21, 2))
    before = around_hand(points)
    after = around_hand(turned(3 * points, np.array([0.4])))
    assert after[0, 2] == pytest.approx(3 * before[0, 2], rel=0.25)  # the box around the points is not turned
    assert half_turn(after[:, 3] - before[:, 3]) == pytest.approx(0.4)
    upright = np.zeros((1, 21, 2))
    upright[0, :, 1] = 100 - 5 * np.arange(21)  # the wrist is below
    assert around_hand(upright)[0, 3] == pytest.approx(0)


def test_regions_along_an_axis_have_the_end_above_the_centre() -> None:
    region = along_axis(np.array([[100.0, 100.0]]), np.array([[130.0, 60.0]]), 1.25)
    assert region[0, 2] == pytest.approx(125)
    end = project(np.array([[[0.5, 0.5 - 50 / 125]]]), region)[0, 0]
    assert end == pytest.approx([130, 60])
    assert moved_along(region, 0.4)[0, :2] == pytest.approx([130, 60])


def test_regions_agree_across_the_half_turn() -> None:
    region = np.array([[50.0, 50.0, 20.0, np.pi - 0.01]])
    for change, agrees in (
        ([0, 0, 0, 0.02], True),
        ([0, 0, 0, 0.5], False),
        ([1.0, 1.0, 0, 0], True),
        ([3.0, 0, 0, 0], False),
        ([0, 0, 8.0, 0], False),
    ):
        assert agree(region + change, region, 0.1, 1.2, 0.2).tolist() == [agrees]
