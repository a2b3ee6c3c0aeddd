"""Boxes of one frame, from fine points and from the body."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.extract.detectors import missing_keypoints
from signstreams.extract.frame_boxes import HAND_CENTRE_ALONG, box_around, corners, observe
from signstreams.extract.settings import BoxConfig
from signstreams.formats.landmarks import FACE, HAND_L, HAND_R, POSE, pose_index
from signstreams.streams import BY_NAME

WIDTH, HEIGHT = 200, 100
CONFIG = BoxConfig()


def body(visibility: float = 0.9) -> np.ndarray:
    """A body facing the camera in a 200 x 100 px frame; shoulders 40 px apart, so that the unit is 20 px."""
    keypoints = missing_keypoints()
    keypoints[POSE] = (0.5, 0.9, visibility)
    places = {
        "nose": (100, 30),
        "left_ear": (108, 29),
        "right_ear": (92, 29),
        "mouth_left": (103, 34),
        "mouth_right": (97, 34),
        "left_shoulder": (120, 50),
        "right_shoulder": (80, 50),
        "left_wrist": (130, 80),
        "left_index": (130, 72),
        "left_pinky": (133, 72),
        "right_wrist": (70, 80),
        "right_index": (70, 72),
        "right_pinky": (67, 72),
    }
    for side, x in (("left", 104), ("right", 96)):
        for part in ("_inner", "", "_outer"):
            places[f"{side}_eye{part}"] = (x, 27)
    for name, (x, y) in places.items():
        keypoints[pose_index(name), :2] = (x / WIDTH, y / HEIGHT)
    return keypoints


def put(keypoints: np.ndarray, rows: slice, x0: float, y0: float, x1: float, y1: float) -> None:
    """Points spread over a rectangle given in px."""
    share = np.linspace(0, 1, rows.stop - rows.start)
    keypoints[rows, 0] = (x0 + share * (x1 - x0)) / WIDTH
    keypoints[rows, 1] = (y0 + share * (y1 - y0)) / HEIGHT
    keypoints[rows, 2] = 1.0


def test_a_box_is_the_scaled_larger_extent_around_the_middle() -> None:
    assert box_around(np.array([[0.0, 0.0], [10.0, 4.0]]), 1.5).tolist() == [5, 2, 15]
    assert corners(np.array([5.0, 2.0, 15.0])).tolist() == [-2.5, -5.5, 12.5, 9.5]


def test_fine_points_give_detected_boxes_in_pixels() -> None:
    keypoints = body()
    put(keypoints, FACE, 90, 20, 110, 44)
    put(keypoints, HAND_L, 120, 55, 140, 85)
    seen = observe(keypoints, WIDTH, HEIGHT, CONFIG)
    assert seen.detected[0] == pytest.approx([100, 32, 24 * CONFIG.face_scale], rel=1e-4)
    assert seen.detected[1] == pytest.approx([130, 70, 30 * CONFIG.hand_scale], rel=1e-4)
    assert np.isnan(seen.detected[2]).all()


def test_a_foreshortened_hand_keeps_a_hands_size() -> None:
    keypoints = body()
    put(keypoints, HAND_R, 69, 69, 71, 71)
    assert observe(keypoints, WIDTH, HEIGHT, CONFIG).detected[2, 2] == pytest.approx(
        BY_NAME["hand_l"].min_extent * 20 * CONFIG.hand_scale, rel=1e-4
    )


def test_the_body_places_boxes_beyond_the_wrists_and_at_the_face() -> None:
    seen = observe(body(), WIDTH, HEIGHT, CONFIG)
    assert np.isnan(seen.detected).all()
    assert seen.anchored[1, :2] == pytest.approx([130 + HAND_CENTRE_ALONG, 80 - HAND_CENTRE_ALONG * 8], abs=0.01)
    assert seen.anchored[2, :2] == pytest.approx([70 - HAND_CENTRE_ALONG, 80 - HAND_CENTRE_ALONG * 8], abs=0.01)
    assert 95 < seen.anchored[0, 0] < 105
    assert 26 < seen.anchored[0, 1] < 34
    assert seen.visibility == pytest.approx([0.9] * 3)


def test_points_that_are_not_visible_place_no_box() -> None:
    seen = observe(body(visibility=0.4), WIDTH, HEIGHT, CONFIG)
    assert np.isnan(seen.anchored).all()
    assert seen.visibility.tolist() == [0, 0, 0]


def test_nobody_gives_nothing() -> None:
    seen = observe(missing_keypoints(), WIDTH, HEIGHT, CONFIG)
    assert np.isnan(seen.detected).all() and np.isnan(seen.anchored).all()


def test_boxes_do_not_depend_on_the_frames_resolution() -> None:
    keypoints = body()
    put(keypoints, FACE, 90, 20, 110, 44)
    small, large = observe(keypoints, WIDTH, HEIGHT, CONFIG), observe(keypoints, 3 * WIDTH, 3 * HEIGHT, CONFIG)
    assert large.detected[0] == pytest.approx(3 * small.detected[0], rel=1e-5)
    assert large.anchored == pytest.approx(3 * small.anchored, rel=1e-5)
