"""A detected hand goes to the wrist that it belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from signstreams.extract.detectors import WRISTS, assign_hands, missing_keypoints
from signstreams.formats.landmarks import HAND_L, HAND_R, POSE

LEFT, RIGHT = (0.7, 0.6), (0.3, 0.6)  # the person's own wrists, as seen facing the camera


def person(left: tuple[float, float] | None, right: tuple[float, float] | None) -> np.ndarray:
    """A body with both wrists, and hands in the detector's slots with their wrists at the given places."""
    keypoints = missing_keypoints()
    keypoints[POSE] = (0.5, 0.3, 0.9)
    for wrist, place in zip(WRISTS, (LEFT, RIGHT), strict=True):
        keypoints[wrist, :2] = place
    for slot, place in ((HAND_L, left), (HAND_R, right)):
        if place is not None:
            keypoints[slot] = (*place, 1.0)
    return keypoints


def is_found(hand: np.ndarray) -> bool:
    return bool((hand[:, 2] > 0).any())


def test_hands_at_their_own_wrists_stay() -> None:
    keypoints = person((0.69, 0.6), (0.31, 0.6))
    assert assign_hands(keypoints, 1.0) is keypoints


def test_a_hand_at_the_other_wrist_moves_to_that_slot() -> None:
    result = assign_hands(person(left=(0.31, 0.6), right=None), 1.0)
    assert not is_found(result[HAND_L])
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_swapped_hands_are_swapped_back() -> None:
    result = assign_hands(person(left=(0.31, 0.6), right=(0.69, 0.6)), 1.0)
    assert result[HAND_L][0] == pytest.approx((0.69, 0.6, 1.0))
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_of_two_detections_on_one_hand_the_stray_one_is_dropped() -> None:
    result = assign_hands(person(left=(0.32, 0.6), right=(0.31, 0.6)), 1.0)
    assert not is_found(result[HAND_L])
    assert result[HAND_R][0] == pytest.approx((0.31, 0.6, 1.0))


def test_a_hand_between_the_wrists_keeps_its_name() -> None:
    keypoints = person(left=(0.48, 0.6), right=None)
    assert assign_hands(keypoints, 1.0) is keypoints


def test_without_a_body_the_detectors_naming_stands() -> None:
    keypoints = person(left=(0.31, 0.6), right=None)
    keypoints[POSE] = (-1, -1, 0)
    assert assign_hands(keypoints, 1.0) is keypoints


def test_distances_honour_the_frames_shape() -> None:
    keypoints = person(left=None, right=None)
    keypoints[WRISTS[0], :2], keypoints[WRISTS[1], :2] = (0.5, 0.9), (0.6, 0.5)
    keypoints[HAND_L] = (0.5, 0.6, 1.0)  # in fractions nearer to the right wrist; in a wide frame far from it
    assert is_found(assign_hands(keypoints, 1.0)[HAND_R])
    assert is_found(assign_hands(keypoints, 4.0)[HAND_L])


def test_the_input_is_not_altered() -> None:
    keypoints = person(left=(0.31, 0.6), right=None)
    before = keypoints.copy()
    assign_hands(keypoints, 1.0)
    assert (keypoints == before).all()
