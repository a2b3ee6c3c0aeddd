"""The signer's figure: from movement to projected points, and from these to a drawn body.

Arms come from inverse kinematics, hands from their joint angles; torso and head are sprites, arms and hands surfaces
with depth. Space: x to the right of the picture (the signer's left), y down, z to the camera; origin between the
shoulders, unit half the shoulder distance. The camera does not mirror: the signer's left hand is on the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from signstreams.array_types import Flags, Floats, Pixels
from signstreams.demo.hand import FINGER_RADII, THUMB_RADII, hand_points
from signstreams.demo.head import MIDDLE, Expression, Head
from signstreams.demo.motion import HandMotion, Motion
from signstreams.demo.plan import HEIGHT_PX, WIDTH_PX
from signstreams.demo.signers import Signer
from signstreams.demo.surface import Patch, darken, paint

SHOULDER = np.array([0.92, 0.2, 0.0])
UPPER_ARM, FOREARM = 1.6, 1.42
_ELBOW_SIDE = np.array([0.62, 1.0, -0.2])
_PALM_MIDDLE = 0.42  # distance from the wrist to the middle of the palm, in hand lengths
CAMERA_DISTANCE = 11.0

LEFT, RIGHT = 0, 1  # anatomical, in all arrays with a side axis


@dataclass(frozen=True)
class Limb:
    """One arm and hand in one frame; px, z too."""

    shoulder: Floats  # (3,)
    elbow: Floats  # (3,)
    hand: Floats  # (21, 3); the first point is the wrist
    palmar: Floats  # (21, 3) unit vectors: the direction that the inner side of each bone faces
    size: float  # hand length


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in front of the signer."""

    unit_px: float  # px per unit at the depth of the shoulders
    x_px: float  # place of the middle between the shoulders in the picture
    y_px: float

    @classmethod
    def before(cls, signer: Signer, rng: np.random.Generator) -> Camera:
        """A camera that shows head and belly, placed a little differently in each video."""
        unit_px = signer.unit_px * rng.uniform(0.97, 1.03)
        return cls(unit_px, WIDTH_PX / 2 + rng.uniform(-16, 16), 2.02 * unit_px + rng.uniform(22, 34))

    def project(self, points: Floats) -> Floats:
        """(..., 3) units to (..., 3) px; z keeps its meaning, in px."""
        scale = self.unit_px * self.zoom(points[..., 2:])
        shift = np.array([self.x_px - WIDTH_PX / 2, self.y_px - HEIGHT_PX / 2]) / self.unit_px
        flat = (points[..., :2] + shift) * scale + np.array([WIDTH_PX / 2, HEIGHT_PX / 2])
        return np.concatenate([flat, points[..., 2:] * scale], -1)

    def zoom(self, z: Floats) -> Floats:
        """Magnification at depth ``z`` (units) against the shoulders."""
        return CAMERA_DISTANCE / (CAMERA_DISTANCE - z)


def limb(motion: Motion, frame: int, side: int, signer: Signer, camera: Camera) -> Limb:
    """Arm and hand of ``side`` in ``frame``."""
    signing_side = LEFT if signer.left_handed else RIGHT
    hand: HandMotion = motion.signing if side == signing_side else motion.other
    points, palmar = hand_points(hand.angles[frame], hand.frame[frame])
    wrist = hand.palm[frame] - _PALM_MIDDLE * signer.hand_length * hand.frame[frame, 1]
    wrist, elbow = _reach(SHOULDER, wrist)
    points = wrist + points * signer.hand_length
    mirror = np.array([1.0 if side == LEFT else -1.0, 1.0, 1.0])
    sway = np.array([*motion.sway[frame], 0.0])
    place = camera.project(np.concatenate([SHOULDER[None], elbow[None], points]) * mirror + sway)
    scale = camera.unit_px * float(camera.zoom(wrist[2]))
    return Limb(place[0], place[1], place[2:], palmar * mirror, scale * signer.hand_length)


def _reach(shoulder: Floats, wrist: Floats) -> tuple[Floats, Floats]:
    """The wrist, moved within the arm's reach, and the elbow, below and to the outside."""
    way = wrist - shoulder
    distance = float(np.clip(np.linalg.norm(way), UPPER_ARM - FOREARM + 0.05, UPPER_ARM + FOREARM - 0.02))
    way /= np.linalg.norm(way)
    wrist = shoulder + way * distance
    along = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    aside = _ELBOW_SIDE - way * (_ELBOW_SIDE @ way)
    aside /= np.linalg.norm(aside)
    return wrist, shoulder + way * along + aside * np.sqrt(max(UPPER_ARM**2 - along**2, 0.0))


# -- Drawing

# Parts 1..20 are the bones that end in that hand point; the others:
_PALM, _ARM, _SLEEVE, _CUFF, _NAIL, _NECK = 21, 22, 23, 24, 25, 26
_NUM_PARTS = 27
_TORSO_HALF_WIDTH = 1.5  # units; nothing beyond is moved and painted
_MARGIN_PX = 12  # torso beyond the picture, so that swaying shows no edge

OCCLUDED_RATIO = 0.25  # A hand counts as occluded when more of its points than this are behind the other arm
OUTSIDE_RATIO = 0.15  # A hand counts as outside when more of its points than this are beyond the picture


@dataclass(frozen=True)
class FrameTruth:
    """What is where in one frame."""

    limbs: tuple[Limb, Limb]  # left and right
    face: Floats  # (7, 2) px of `signstreams.demo.head.POINTS`
    occluded: Flags  # (2,) bool: the other arm covers the hand
    outside: Flags  # (2,) bool: the hand leaves the picture


class Figure:
    """One signer before one camera and a background (H, W, 3) uint8 RGB."""

    def __init__(self, signer: Signer, camera: Camera, background: Pixels) -> None:
        self._signer, self._camera, self._background = signer, camera, background
        skin, shirt = np.array(signer.skin, float), np.array(signer.shirt, float)
        self._colors = np.tile(skin, (_NUM_PARTS, 2, 1))
        pale = np.minimum(skin * (0.94, 0.84, 0.82) + (22, 26, 26), 250)
        self._colors[:, 0] = 0.55 * pale + 0.45 * np.array([232, 178, 156])  # the palm has less pigment than the back
        self._colors[_ARM, 0] = 0.5 * (skin + self._colors[_PALM, 0])
        self._colors[_SLEEVE], self._colors[_CUFF] = shirt, shirt * 0.86
        self._colors[_NAIL] = 0.6 * skin + 0.4 * np.array([250, 205, 196])
        self._colors[_NECK] = skin * (0.9, 0.86, 0.84)
        self._head = Head(signer, camera.unit_px)
        self._torso = self._draw_torso()

    def draw(self, motion: Motion, frame: int) -> tuple[Pixels, FrameTruth]:
        """One frame, (H, W, 3) uint8 RGB, and what it shows."""
        image = self._background.copy()
        unit = self._camera.unit_px
        sway = motion.sway[frame] * unit
        self._paint_torso(image, sway)
        middle = np.array([self._camera.x_px, self._camera.y_px]) + (np.array(MIDDLE) + motion.head[frame, :2]) * unit
        face = Expression(*map(float, (*motion.mouth[frame], motion.brows[frame], motion.lids[frame])))
        face_points = self._head.paint(image, middle + sway, float(motion.head[frame, 2]), face)
        left, right = (limb(motion, frame, side, self._signer, self._camera) for side in (LEFT, RIGHT))
        limbs = (left, right)
        nearer = RIGHT if limbs[RIGHT].hand[:, 2].mean() > limbs[LEFT].hand[:, 2].mean() else LEFT
        self._paint_limb(image, limbs[1 - nearer])
        cover = self._paint_limb(image, limbs[nearer])
        points = np.stack([one.hand[:, :2] for one in limbs])  # (2, 21, 2)
        beyond = (points < 0).any(-1) | (points >= (WIDTH_PX, HEIGHT_PX)).any(-1)
        columns = np.clip(points[1 - nearer, :, 0].astype(int), 0, WIDTH_PX - 1)
        rows = np.clip(points[1 - nearer, :, 1].astype(int), 0, HEIGHT_PX - 1)
        occluded = np.zeros(2, bool)
        occluded[1 - nearer] = cover[rows, columns].mean() > OCCLUDED_RATIO
        return image, FrameTruth(limbs, face_points, occluded, beyond.mean(-1) > OUTSIDE_RATIO)

    def _draw_torso(self) -> tuple[Pixels, Pixels]:
        """RGB and coverage of neck and torso, `_MARGIN_PX` wider than the picture on every side."""
        unit, build = self._camera.unit_px, self._signer.build
        patch = Patch(-_MARGIN_PX, -_MARGIN_PX, WIDTH_PX + 2 * _MARGIN_PX, HEIGHT_PX + 2 * _MARGIN_PX)

        def at(x: float, y: float, z: float) -> Floats:
            return np.array([self._camera.x_px + x * unit, self._camera.y_px + y * unit, z * unit])

        def cloth(start: Floats, end: Floats, start_radius: float, end_radius: float) -> None:
            patch.capsule(start, end, start_radius, end_radius, _SLEEVE, blend=0.22 * unit)

        wide = 0.5 + 0.5 * build
        for side in (-1, 1):
            cloth(at(side * 0.5 * wide, 0.6, -0.5), at(side * 0.42 * build, 4.4, -0.5), 0.52 * unit, 0.5 * unit)
        cloth(at(0, 0.6, -0.42), at(0, 4.4, -0.4), 0.6 * unit, 0.6 * unit)
        for side in (-1, 1):
            cloth(at(side * 0.2, 0.18, -0.42), at(side * 0.8, 0.24, -0.4), 0.26 * unit, 0.24 * unit * build)
            cloth(at(side * 0.1, -0.26, -0.4), at(side * 0.86, 0.13, -0.35), 0.1 * unit, 0.18 * unit)
        drop = 0.62 if self._signer.collar == "vee" else 0.22
        patch.capsule(
            at(0, -0.5, 0.1), at(0, drop - 0.12, 0.1), 0.25 * unit, (0.06 if drop > 0.5 else 0.22) * unit, _NECK
        )
        return patch.shade(self._colors)

    def _paint_torso(self, image: Pixels, sway: Floats) -> None:
        rgb, alpha = self._torso
        whole = np.floor(sway).astype(int)
        matrix = np.array([[1, 0, sway[0] - whole[0]], [0, 1, sway[1] - whole[1]]], np.float32)
        top = max(int(self._camera.y_px - self._camera.unit_px), 0)
        left = max(int(self._camera.x_px - _TORSO_HALF_WIDTH * self._camera.unit_px), 0)
        width = int(2 * _TORSO_HALF_WIDTH * self._camera.unit_px) + 2 * _MARGIN_PX
        window = (slice(top, None), slice(left, left + width))
        rgb, alpha = rgb[window], alpha[window]
        size = alpha.shape[::-1]
        rgb, alpha = (
            cv2.warpAffine(layer, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for layer in (rgb, alpha)
        )
        paint(image, rgb, alpha, int(whole[0]) - _MARGIN_PX + left, int(whole[1]) - _MARGIN_PX + top)

    def _paint_limb(self, image: Pixels, arm: Limb) -> Flags:
        """Draw sleeve, forearm and hand; returns what they cover, (H, W) bool."""
        cover = np.zeros(image.shape[:2], bool)
        for patch, palmar in (self._sleeve(arm), self._hand(arm)):
            if patch is None:
                continue
            rgb, alpha = patch.shade(self._colors, palmar=palmar)
            if palmar is not None:
                darken(image, cv2.blur(alpha, (9, 9)), patch.x0 + 6, patch.y0 + 9, 0.2)
            paint(image, rgb, alpha, patch.x0, patch.y0)
            cover[patch.y0 : patch.y0 + patch.height, patch.x0 : patch.x0 + patch.width] |= alpha > 0.5
        return cover

    def _sleeve(self, arm: Limb) -> tuple[Patch | None, None]:
        unit, build = self._camera.unit_px, self._signer.build
        wrist = arm.hand[0]
        cuff = arm.elbow + (wrist - arm.elbow) * self._signer.sleeve
        patch = _patch_around(np.stack([arm.shoulder, arm.elbow, cuff]), 0.34 * unit * build, oversampling=1)
        if patch is None:
            return None, None
        low = -0.35 * unit
        shoulder, elbow, end = (
            np.array([*p[:2], z]) for p, z in ((arm.shoulder, low), (arm.elbow, 0.0), (cuff, cuff[2]))
        )
        patch.capsule(shoulder, elbow, 0.25 * unit * build, 0.21 * unit * build, _SLEEVE)
        patch.capsule(
            elbow, end, self._sleeve_radius(0), self._sleeve_radius(self._signer.sleeve), _SLEEVE, blend=0.05 * unit
        )
        return patch, None

    def _sleeve_radius(self, share: float) -> float:
        """Half the thickness of the sleeve in px at ``share`` of the way from elbow to wrist."""
        return (0.205 - 0.04 * share) * self._camera.unit_px * self._signer.build

    def _hand(self, arm: Limb) -> tuple[Patch | None, Floats]:
        size, points = arm.size, arm.hand
        wrist = points[0]
        cuff = arm.elbow + (wrist - arm.elbow) * self._signer.sleeve
        palmar = np.zeros((_NUM_PARTS, 3))
        palmar[1:21] = arm.palmar[1:]
        palmar[_PALM] = palmar[_ARM] = arm.palmar[5]
        patch = _patch_around(np.concatenate([points, cuff[None]]), 0.2 * size)
        if patch is None:
            return None, palmar
        side = points[5] - points[17]
        side = side / max(np.linalg.norm(side), 1e-6) * size
        thick = (0.11 + 0.04 * min(float(np.linalg.norm(wrist - cuff)) / size, 1.0)) * size
        thick = min(thick, self._sleeve_radius(self._signer.sleeve) - 0.055 * size)
        for offset in (-0.05, 0.05):
            patch.capsule(cuff + offset * side, wrist + offset * side, thick, 0.108 * size, _ARM, blend=0.1 * size)
        patch.cut(cuff, wrist - cuff)  # the rest is in the sleeve
        root = wrist + (points[1] - wrist) * 0.2
        for first, share, radius in ((5, 0.25, 0.082), (9, 0.08, 0.086), (13, -0.1, 0.084), (17, -0.25, 0.078)):
            base = wrist + 0.2 * share * side
            patch.capsule(base, points[first], radius * size * 1.12, radius * size * 0.82, _PALM, blend=0.09 * size)
        ball = (points[17] + wrist) / 2 - 0.03 * side  # of the little finger
        patch.capsule(wrist - 0.06 * side, ball, 0.085 * size, 0.075 * size, _PALM, blend=0.08 * size)
        patch.capsule(root, points[2], 0.085 * size, THUMB_RADII[1] * 1.15 * size, _PALM, blend=0.09 * size)
        patch.capsule(points[2], (points[5] + points[1]) / 2, 0.05 * size, 0.05 * size, _PALM, blend=0.09 * size)
        self._finger(patch, arm, (2, 3, 4), THUMB_RADII[1:], 0.05)
        for finger in range(4):
            first = 5 + 4 * finger
            self._finger(patch, arm, tuple(range(first, first + 4)), FINGER_RADII[finger], 0.045)
        return patch, palmar

    @staticmethod
    def _finger(patch: Patch, arm: Limb, joints: tuple[int, ...], radii: Floats, blend: float) -> None:
        size, points = arm.size, arm.hand
        for number in range(len(joints) - 1):
            start, end = points[joints[number]], points[joints[number + 1]]
            if number == len(joints) - 2:
                end = end - (end - start) * 0.12  # the point is on the skin, the sphere reaches beyond its middle
            patch.capsule(
                start,
                end,
                radii[number] * size,
                radii[number + 1] * size,
                joints[number + 1],
                blend=(blend if number == 0 else 0.012) * size,
                crease=0.0 if number == 0 else 0.2,
            )
        tip, before = points[joints[-1]], points[joints[-2]]
        back = -arm.palmar[joints[-1]]
        bed = tip - (tip - before) * 0.3 + back * radii[-1] * 0.5 * size
        end = tip - (tip - before) * 0.02 + back * radii[-1] * 0.38 * size
        patch.capsule(bed, end, radii[-1] * 0.72 * size, radii[-1] * 0.7 * size, _NAIL)


def _patch_around(points: Floats, margin: float, *, oversampling: int = 2) -> Patch | None:
    """Patch over ``points`` (N, 3) and a margin, cut to the picture; None when it is all outside."""
    low = np.maximum(np.floor(points[:, :2].min(0) - margin).astype(int), 0)
    high = np.minimum(np.ceil(points[:, :2].max(0) + margin).astype(int), (WIDTH_PX, HEIGHT_PX))
    if (high - low < 2).any():
        return None
    return Patch(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]), oversampling=oversampling)
