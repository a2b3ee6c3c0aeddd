"""The skeleton of a hand: 21 points from joint angles, and the angles of each handshape.

Hand frame, for the left hand: rows (thumb side, finger direction, palm normal); lengths in units of the hand's length
(wrist to tip of the middle finger). The right hand is its mirror image. Point order: `HAND_NAMES` of
``signstreams.formats.landmarks``. Proportions: mean adult hand, rounded (bone lengths as in any anatomy table).
"""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Floats
from signstreams.demo.language import HANDSHAPES

KNUCKLES = np.array([[0.15, 0.47], [0.045, 0.5], [-0.065, 0.475], [-0.165, 0.42]])
"""(4, 2): thumb side and finger direction of the knuckles of index to pinky."""
BONES = np.array([[0.235, 0.14, 0.105], [0.265, 0.16, 0.11], [0.245, 0.15, 0.11], [0.18, 0.11, 0.095]])
"""(4, 3): the three bones of index to pinky."""
THUMB_ROOT = np.array([0.115, 0.115, 0.03])
THUMB_BONES = np.array([0.23, 0.175, 0.14])
FINGER_RADII = np.array(
    [
        [0.056, 0.05, 0.045, 0.038],
        [0.057, 0.052, 0.046, 0.039],
        [0.054, 0.049, 0.043, 0.037],
        [0.047, 0.042, 0.038, 0.032],
    ]
)
"""(4, 4): half the thickness at knuckle, middle joint, last joint and tip."""
THUMB_RADII = np.array([0.085, 0.064, 0.058, 0.045])


def hand_points(angles: Floats, frame: Floats) -> tuple[Floats, Floats]:
    """Points (21, 3) relative to the wrist, and (21, 3) unit vectors: where the inner side of the bone before faces.

    From joint angles (20,) and the hand frame (3, 3), whose rows are unit vectors of space.
    """
    points = np.zeros((21, 3))
    palmar = np.tile([0.0, 0.0, 1.0], (21, 1))
    root, opposition, bend_1, bend_2 = angles[:4]
    out = np.array([np.sin(root) * np.cos(opposition), np.cos(root) * np.cos(opposition), np.sin(opposition)])
    # The thumb bends across the palm: about an axis that turns with its opposition.
    inner = np.array([-np.cos(root), np.sin(root), 0.45 + 0.6 * np.sin(opposition)])
    inner -= out * (inner @ out)
    inner /= np.linalg.norm(inner)
    points[1] = THUMB_ROOT
    for joint, total in enumerate((0.0, bend_1, bend_1 + bend_2)):
        direction = np.cos(total) * out + np.sin(total) * inner
        points[2 + joint] = points[1 + joint] + THUMB_BONES[joint] * direction
        palmar[2 + joint] = np.cos(total) * inner - np.sin(total) * out
    for finger in range(4):
        bends, spread = angles[4 + 4 * finger : 7 + 4 * finger], angles[7 + 4 * finger]
        straight = np.array([np.sin(spread), np.cos(spread), 0.0])
        first = 5 + 4 * finger
        points[first, :2] = KNUCKLES[finger]
        total = 0.0
        for joint in range(3):
            total += bends[joint]
            direction = np.cos(total) * straight + np.sin(total) * np.array([0.0, 0.0, 1.0])
            points[first + joint + 1] = points[first + joint] + BONES[finger, joint] * direction
            palmar[first + joint + 1] = -np.sin(total) * straight + np.cos(total) * np.array([0.0, 0.0, 1.0])
    return points @ frame, palmar @ frame


def _shape(thumb: tuple[float, float, float, float], *fingers: tuple[float, float, float, float]) -> Floats:
    return np.array([*thumb, *(angle for finger in fingers for angle in finger)])


def _straight(spread: float = 0.0) -> tuple[float, float, float, float]:
    return (0.06, 0.06, 0.04, spread)


_CURLED = (1.5, 1.65, 0.95, 0.0)
_OUT = (0.95, 0.1, 0.0, -0.1)  # thumb stretched to the side
_BESIDE = (0.42, 0.12, 0.12, 0.1)  # thumb along the hand
_OVER = (0.6, 0.75, 0.75, 0.7)  # thumb across bent fingers

_ANGLES: dict[str, Floats] = {
    "rest": _shape((0.6, 0.35, 0.2, 0.25), *((0.35 + 0.06 * k, 0.4, 0.25, 0.06 - 0.05 * k) for k in range(4))),
    "flat": _shape(_BESIDE, *(_straight(s) for s in (0.0, 0.0, 0.0, 0.02))),
    "spread": _shape(_OUT, *(_straight(s) for s in (0.26, 0.06, -0.16, -0.4))),
    "fist": _shape(_OVER, *([_CURLED] * 4)),
    "index": _shape(_OVER, _straight(0.03), *([_CURLED] * 3)),
    "vee": _shape(_OVER, _straight(0.22), _straight(-0.16), _CURLED, _CURLED),
    "ell": _shape((1.25, 0.05, -0.05, -0.15), _straight(0.08), *([_CURLED] * 3)),
    "wye": _shape((1.15, 0.1, -0.05, -0.15), *([_CURLED] * 3), _straight(-0.4)),
    "three": _shape(_OVER, _straight(0.26), _straight(0.02), _straight(-0.24), _CURLED),
    "pinky": _shape(_OVER, *([_CURLED] * 3), _straight(-0.12)),
    "cee": _shape((0.75, 0.85, 0.25, 0.35), *((0.62, 0.62, 0.35, 0.02 - 0.02 * k) for k in range(4))),
    "oh": _shape((0.6, 0.98, 0.45, 0.3), *((0.95, 0.8, 0.45, 0.04 - 0.05 * k) for k in range(4))),
    "claw": _shape((0.95, 0.55, 0.25, 0.5), *((0.35, 0.95, 0.6, s) for s in (0.3, 0.08, -0.16, -0.4))),
}
ANGLES = np.stack([_ANGLES[name] for name in HANDSHAPES])
"""(S, 20): joint angles of every handshape, per finger (thumb first) four numbers in rad. Finger: bend at the three
joints, spread to the thumb side. Thumb: angle of its root away from the fingers, angle towards the palm, bend of its
two further joints."""
