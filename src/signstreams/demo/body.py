"""From movement to points: arms by inverse kinematics, hands by their angles, all projected into the picture.

Space: x to the right of the picture (the signer's left), y down, z to the camera; origin between the shoulders, unit
half the shoulder distance. The camera does not mirror, so the signer's left hand is on the right of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signstreams.array_types import Floats
from signstreams.demo.hand import hand_points
from signstreams.demo.motion import HandMotion, Motion
from signstreams.demo.plan import HEIGHT_PX, WIDTH_PX
from signstreams.demo.signers import Signer

SHOULDER = np.array([0.92, 0.2, 0.0])
UPPER_ARM, FOREARM = 1.6, 1.42
_ELBOW_SIDE = np.array([0.62, 1.0, -0.2])
_PALM_MIDDLE = 0.42
"""Distance from the wrist to the middle of the palm, in hand lengths."""
CAMERA_DISTANCE = 11.0

LEFT, RIGHT = 0, 1
SIDES = ("left", "right")
"""Anatomical, in the order of all arrays with a side axis."""


@dataclass(frozen=True)
class Limb:
    """One arm and hand in one frame: px, z in px as well, and px per unit there.

    Attributes:
        shoulder, elbow: (3,).
        hand: (21, 3); the first point is the wrist.
        palmar: (21, 3) unit vectors: where the inner side of each bone faces.
        scale: px per unit at the hand.
        size: Hand length, px.
    """

    shoulder: Floats
    elbow: Floats
    hand: Floats
    palmar: Floats
    scale: float
    size: float


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in front of the signer.

    Attributes:
        unit_px: px per unit at the depth of the shoulders.
        x_px, y_px: Where the middle between the shoulders is in the picture.
    """

    unit_px: float
    x_px: float
    y_px: float

    @classmethod
    def before(cls, signer: Signer, rng: np.random.Generator) -> Camera:
        """Head and belly in the picture; each video stands a little elsewhere."""
        unit_px = signer.unit_px * rng.uniform(0.97, 1.03)
        return cls(unit_px, WIDTH_PX / 2 + rng.uniform(-16, 16), 2.02 * unit_px + rng.uniform(22, 34))

    def project(self, points: Floats) -> Floats:
        """(..., 3) units to (..., 3) px; z keeps its meaning, in px."""
        scale = self.unit_px * self.zoom(points[..., 2:])
        shift = np.array([self.x_px - WIDTH_PX / 2, self.y_px - HEIGHT_PX / 2]) / self.unit_px
        flat = (points[..., :2] + shift) * scale + np.array([WIDTH_PX / 2, HEIGHT_PX / 2])
        return np.concatenate([flat, points[..., 2:] * scale], -1)

    def zoom(self, z: Floats) -> Floats:
        """How much larger a thing appears at depth ``z`` (units) than at the shoulders."""
        return CAMERA_DISTANCE / (CAMERA_DISTANCE - z)


def limb(motion: Motion, frame: int, side: int, signer: Signer, camera: Camera) -> Limb:
    """Arm and hand of ``side`` in ``frame``."""
    signing_side = LEFT if signer.left_handed else RIGHT
    hand: HandMotion = motion.signing if side == signing_side else motion.other
    local = hand_points(hand.angles[frame], hand.frame[frame])
    wrist = hand.palm[frame] - _PALM_MIDDLE * signer.hand_length * hand.frame[frame, 1]
    wrist, elbow = _reach(SHOULDER, wrist)
    points = wrist + local.points * signer.hand_length
    mirror = np.array([1.0 if side == LEFT else -1.0, 1.0, 1.0])
    sway = np.array([*motion.sway[frame], 0.0])
    place = camera.project(np.concatenate([SHOULDER[None], elbow[None], points]) * mirror + sway)
    scale = camera.unit_px * float(camera.zoom(wrist[2]))
    return Limb(place[0], place[1], place[2:], local.palmar * mirror, scale, scale * signer.hand_length)


def _reach(shoulder: Floats, wrist: Floats) -> tuple[Floats, Floats]:
    """Wrist, moved within the arm's reach, and the elbow, down and to the outside."""
    way = wrist - shoulder
    distance = float(np.clip(np.linalg.norm(way), UPPER_ARM - FOREARM + 0.05, UPPER_ARM + FOREARM - 0.02))
    way /= np.linalg.norm(way)
    wrist = shoulder + way * distance
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    aside = _ELBOW_SIDE - way * (_ELBOW_SIDE @ way)
    aside /= np.linalg.norm(aside)
    return wrist, shoulder + way * along + aside * np.sqrt(max(UPPER_ARM**2 - along**2, 0.0))
