"""The skeleton of the hand keeps its bones, and its shapes are what their names say."""

from __future__ import annotations

import numpy as np

from signstreams.demo.hand import ANGLES, BONES, THUMB_BONES, hand_points
from signstreams.demo.language import HANDSHAPES

FRAME = np.eye(3)
TIPS = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "pinky": 20}


def points_of(name: str) -> np.ndarray:
    return hand_points(ANGLES[HANDSHAPES.index(name)], FRAME)[0]


def is_stretched(name: str, finger: str) -> bool:
    points, tip = points_of(name), TIPS[finger]
    bones = np.linalg.norm(np.diff(points[tip - 3 : tip + 1], axis=0), axis=1).sum()
    return bool(np.linalg.norm(points[tip] - points[tip - 3]) > 0.95 * bones)


def test_bones_have_the_same_length_in_every_handshape() -> None:
    assert ANGLES.shape == (len(HANDSHAPES), 20)
    for name in HANDSHAPES:
        points = points_of(name)
        for finger in range(4):
            first = 5 + 4 * finger
            lengths = np.linalg.norm(np.diff(points[first : first + 4], axis=0), axis=1)
            np.testing.assert_allclose(lengths, BONES[finger], atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(np.diff(points[1:5], axis=0), axis=1), THUMB_BONES, atol=1e-9)


def test_handshapes_stretch_the_fingers_that_name_them() -> None:
    stretched = {name: [finger for finger in list(TIPS)[1:] if is_stretched(name, finger)] for name in HANDSHAPES}
    assert stretched["fist"] == stretched["oh"] == stretched["cee"] == []
    assert stretched["index"] == stretched["ell"] == ["index"]
    assert stretched["vee"] == ["index", "middle"]
    assert stretched["three"] == ["index", "middle", "ring"]
    assert stretched["wye"] == stretched["pinky"] == ["pinky"]
    assert stretched["flat"] == stretched["spread"] == ["index", "middle", "ring", "pinky"]


def test_handshapes_differ_by_more_than_a_fingers_breadth() -> None:
    points = np.stack([points_of(name) for name in HANDSHAPES])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1).max(axis=-1)  # (S, S)
    assert apart[~np.eye(len(HANDSHAPES), dtype=bool)].min() > 0.15


def test_the_inner_side_is_at_right_angles_to_its_bone() -> None:
    for name in HANDSHAPES:
        points, palmar = hand_points(ANGLES[HANDSHAPES.index(name)], FRAME)
        np.testing.assert_allclose(np.linalg.norm(palmar, axis=1), 1.0, atol=1e-9)
        for end in (3, 4, 6, 7, 8, 14, 20):
            bone = points[end] - points[end - 1]
            assert abs(bone @ palmar[end]) < 1e-6


def test_the_hand_turns_with_its_frame() -> None:
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(hand_points(ANGLES[2], turn)[0], hand_points(ANGLES[2], FRAME)[0] @ turn)
