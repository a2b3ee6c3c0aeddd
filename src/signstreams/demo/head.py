"""The signer's head: skull, face and hair drawn once; eyes, brows and mouth painted over it in every frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.demo.language import Vector
from signstreams.demo.signers import Signer
from signstreams.demo.surface import Patch, paint

MIDDLE = (0.0, -1.2)  # middle of the head, in body units
_DETAIL = 2  # the face is painted at twice the size of the picture
_SIZE = 1.07  # the whole head, against the numbers below
_HALF_WIDTH, _TOP, _BOTTOM = 0.9, 1.12, 1.12  # extent of the sprite around the middle, in head units
_SHIFT = 4  # fractional bits of cv2's drawing
_SKIN, _HAIR, _BEARD, _NECK = 1, 2, 3, 4

POINTS = ("nose", "left_eye", "right_eye", "mouth_left", "mouth_right", "mouth_top", "mouth_bottom")
"""Points of the face that are known exactly; anatomical sides."""
_NOSE = (0.0, 0.21)
EYE = (0.19, -0.02)
_MOUTH = (0.0, 0.44)
FACE_TOP, FACE_BOTTOM = -0.42, 0.68  # hairline and chin: the range that face detectors mark


@dataclass(frozen=True)
class Expression:
    """Face of one frame: mouth opening 0..1 and width -1..1, brows -1..1, lids 0 open .. 1 shut."""

    mouth_open: float
    mouth_wide: float
    brows: float
    lids: float


class Head:
    """Head of one signer at one size."""

    def __init__(self, signer: Signer, unit_px: float) -> None:
        self._signer = signer
        self._unit = unit_px * _DETAIL * _SIZE
        self._middle = np.array([_HALF_WIDTH, _TOP]) * self._unit
        width, height = int(2 * _HALF_WIDTH * self._unit), int((_TOP + _BOTTOM) * self._unit)
        width, height = width - width % _DETAIL, height - height % _DETAIL
        patch = Patch(0, 0, width, height)
        self._model(patch)
        skin = np.array(signer.skin, float)
        colors = np.zeros((5, 2, 3))
        colors[_SKIN], colors[_HAIR], colors[_NECK] = skin * 1.04, signer.hair, skin * (0.9, 0.86, 0.84)
        colors[_BEARD] = 0.72 * np.array(signer.hair) + 0.28 * skin
        self._rgb, self._alpha = patch.shade(colors)
        self._chin_shadow()
        self._blush()

    def paint(self, image: Pixels, at: Floats, roll: float, expression: Expression) -> Floats:
        """Draw onto ``image`` (H, W, 3) with the head's middle at ``at`` (2,) px; returns (7, 2) px of `POINTS`."""
        rgb = self._rgb.copy()
        self._eyes(rgb, expression)
        self._mouth(rgb, expression)
        if self._signer.has_glasses:
            self._glasses(rgb)
        size = (rgb.shape[1] // _DETAIL, rgb.shape[0] // _DETAIL)
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(self._alpha, size, interpolation=cv2.INTER_AREA)
        middle = self._middle / _DETAIL
        corner = np.floor(at - middle).astype(int)
        turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        matrix = np.column_stack([turn, at - corner - turn @ middle])
        small = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(alpha, matrix, size, flags=cv2.INTER_LINEAR)
        paint(image, small, alpha, int(corner[0]), int(corner[1]))
        points: Floats = (self._points(expression) * (self._unit / _DETAIL)) @ turn.T
        return at + points

    @staticmethod
    def _lips(expression: Expression) -> tuple[float, float]:
        """Half the width of the mouth and half its opening, in units."""
        return 0.165 * (1 + 0.28 * expression.mouth_wide), 0.085 * expression.mouth_open

    def _points(self, expression: Expression) -> Floats:
        half, gap = self._lips(expression)
        x, y = _MOUTH
        mouth = [(x + half, y), (x - half, y), (x, y - gap * 0.6 - 0.035), (x, y + gap * 1.4 + 0.045)]
        return np.array([_NOSE, EYE, (-EYE[0], EYE[1]), *mouth])

    def _model(self, patch: Patch) -> None:
        def at(x: float, y: float, z: float) -> Floats:
            return np.array([self._middle[0] + x * unit, self._middle[1] + y * unit, z * unit])

        def ball(x: float, y: float, z: float, rx: float, ry: float, rz: float, part: int, blend: float = 0.0) -> None:
            patch.ellipsoid(at(x, y, z), (rx * unit, ry * unit, rz * unit), part, blend=blend * unit)

        def bar(start: Vector, end: Vector, radius: float, end_radius: float, part: int, blend: float = 0.0) -> None:
            patch.capsule(at(*start), at(*end), radius * unit, end_radius * unit, part, blend=blend * unit)

        signer, style, unit = self._signer, self._signer.hair_style, self._unit
        if style == "long":
            for side in (-1, 1):
                bar((side * 0.4, -0.2, -0.2), (side * 0.47, 0.95, -0.2), 0.2, 0.13, _HAIR)
            ball(0, 0.0, -0.4, 0.5, 0.75, 0.2, _HAIR)
        if style == "bun":
            ball(0.04, -0.82, -0.25, 0.24, 0.22, 0.22, _HAIR)
        bar((0, 0.4, -0.06), (0, 1.3, -0.02), 0.235, 0.245, _NECK)
        for side in (-1, 1):
            ball(side * 0.46, 0.06, -0.05, 0.065, 0.13, 0.08, _SKIN)
        ball(0, -0.1, 0, 0.46, 0.55, 0.46, _SKIN)
        ball(0, 0.2, 0.05, 0.39, 0.47, 0.4, _SKIN, 0.12)
        ball(0, 0.56, 0.2, 0.18, 0.12, 0.18, _SKIN, 0.12)
        for side in (-1, 1):
            ball(side * 0.22, 0.16, 0.2, 0.17, 0.17, 0.2, _SKIN, 0.16)
            bar((side * 0.08, -0.14, 0.42), (side * 0.3, -0.13, 0.34), 0.05, 0.04, _SKIN, 0.08)
        if signer.has_beard:
            bar((-0.35, 0.15, 0.12), (-0.22, 0.5, 0.2), 0.1, 0.16, _BEARD, 0.06)
            bar((0.35, 0.15, 0.12), (0.22, 0.5, 0.2), 0.1, 0.16, _BEARD, 0.06)
            bar((-0.2, 0.56, 0.28), (0.2, 0.56, 0.28), 0.17, 0.17, _BEARD, 0.06)
            bar((-0.16, 0.33, 0.42), (0.16, 0.33, 0.42), 0.055, 0.055, _BEARD, 0.04)
            ball(0, 0.44, 0.4, 0.19, 0.07, 0.12, _SKIN, 0.02)
        bar((0, -0.1, 0.43), (0, 0.16, 0.55), 0.045, 0.075, _SKIN, 0.06)
        for side in (-1, 1):
            ball(side * 0.065, 0.2, 0.5, 0.05, 0.042, 0.07, _SKIN, 0.03)
        if style == "curly":
            for number in range(26):
                angle = np.pi * (1.02 + 0.96 * (number % 13) / 12)
                reach = 0.52 if number < 13 else 0.38
                x, y = reach * np.cos(angle), -0.16 + (reach + 0.06) * np.sin(angle)
                ball(x, y, 0.02 + 0.12 * (number >= 13), 0.13, 0.13, 0.14, _HAIR)
        else:
            ball(0, -0.27, -0.12, 0.52, 0.46, 0.52, _HAIR)
            for side in (-1, 1):
                bar((side * 0.08, -0.62, 0.15), (side * 0.43, -0.18, 0.12), 0.13, 0.1, _HAIR, 0.08)
            if style == "short":
                bar((-0.22, -0.52, 0.28), (0.3, -0.48, 0.24), 0.1, 0.09, _HAIR, 0.06)

    def _chin_shadow(self) -> None:
        """Dark below the chin, and the neck fading into the torso's own."""
        y = (np.arange(self._rgb.shape[0]) - self._middle[1]) / self._unit
        x = np.abs(np.arange(self._rgb.shape[1]) - self._middle[0]) / self._unit
        below = np.clip((y - 0.6) / 0.08, 0, 1) * np.clip((1.05 - y) / 0.4, 0, 1)
        shadow = below[:, None] * np.clip((0.3 - x) / 0.06, 0, 1)[None]
        is_chin = np.hypot(x[None] / 0.3, (y[:, None] - 0.3) / 0.42) < 1
        self._rgb = (self._rgb * (1 - 0.38 * (shadow * ~is_chin))[..., None]).astype(np.uint8)
        fading = np.where(x[None] < 0.3, np.clip((0.98 - y) / 0.16, 0, 1)[:, None], 1.0)
        self._alpha = self._alpha * fading.astype(np.float32)

    def _blush(self) -> None:
        """Warmer cheeks and shaded eye sockets, under a soft mask."""
        for (x, y), size, tint in (
            ((0.24, 0.2), 0.13, (1.04, 0.93, 0.92)),
            ((0.19, -0.03), 0.12, (0.9, 0.87, 0.88)),
            ((0.0, 0.3), 0.09, (0.96, 0.94, 0.94)),
        ):
            for side in {1, -1} if x else {1}:
                center = (self._middle + np.array([side * x, y]) * self._unit).round().astype(int)
                radius = int(size * self._unit)
                grid = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) / radius
                soft = np.clip(1 - grid, 0, 1)[..., None] ** 1.3
                window = (
                    slice(center[1] - radius, center[1] + radius + 1),
                    slice(center[0] - radius, center[0] + radius + 1),
                )
                mixed = self._rgb[window] * (1 + soft * (np.array(tint) - 1))
                self._rgb[window] = np.clip(mixed, 0, 255).astype(np.uint8)

    def _fill(self, rgb: Pixels, points: list[tuple[float, float]] | Floats, color: tuple[float, ...]) -> None:
        at = (self._middle + np.asarray(points) * self._unit) * (1 << _SHIFT)
        cv2.fillPoly(rgb, [at.round().astype(np.int32)], color, cv2.LINE_AA, _SHIFT)

    def _disc(self, rgb: Pixels, x: float, y: float, rx: float, ry: float, color: tuple[float, ...]) -> None:
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self._fill(rgb, np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], -1), color)

    def _line(self, rgb: Pixels, points: Floats, width: float, color: tuple[float, ...]) -> None:
        at = ((self._middle + points * self._unit) * (1 << _SHIFT)).round().astype(np.int32)
        thickness = max(1, round(width * self._unit))
        cv2.polylines(rgb, [at], False, color, thickness, cv2.LINE_AA, _SHIFT)

    def _eyes(self, rgb: Pixels, expression: Expression) -> None:
        skin = np.array(self._signer.skin, float)
        arch = np.linspace(-1, 1, 13)
        lift = 0.05 * expression.brows
        for side in (-1, 1):
            x, y = side * EYE[0], EYE[1]
            opening = 1 - expression.lids
            upper = np.stack([x + 0.105 * arch, y - (0.052 * opening - 0.012 * (1 - opening)) * (1 - arch**2)], -1)
            lower = np.stack([x + 0.105 * arch[::-1], y + 0.03 * (1 - arch[::-1] ** 2)], -1)
            if opening > 0.15:
                self._fill(rgb, np.concatenate([upper, lower]), (232, 230, 226))
                iris = self._signer.eyes
                self._disc(rgb, x, y - 0.008, 0.048, 0.05 * min(1.0, 0.3 + opening), tuple(0.9 * c for c in iris))
                self._disc(rgb, x, y - 0.008, 0.022, 0.022 * opening, (16, 12, 12))
                self._disc(rgb, x - 0.018, y - 0.026, 0.011, 0.011 * opening, (246, 246, 246))
                lid = np.concatenate([upper, upper[::-1] - (0, 0.034)])
                self._fill(rgb, lid, tuple(skin * (0.84, 0.78, 0.76)))
            else:
                self._fill(rgb, np.concatenate([upper - (0, 0.05), lower]), tuple(skin * (0.86, 0.8, 0.78)))
            self._line(rgb, upper if opening > 0.15 else lower, 0.02, (44, 30, 26))
            self._line(rgb, lower, 0.008, tuple(skin * 0.62))
            brow = np.stack([x + 0.14 * arch, y - 0.135 - lift - 0.026 * (1 - (arch * side - 0.08) ** 2)], -1)
            thick = 0.022 * (1.15 - 0.5 * np.abs(arch))[:, None] * (0, 1)
            self._fill(rgb, np.concatenate([brow - thick, (brow + thick)[::-1]]), self._signer.brow)
        for side in (-1, 1):
            self._disc(rgb, side * 0.042, _NOSE[1] + 0.025, 0.024, 0.013, tuple(skin * (0.42, 0.34, 0.32)))

    def _mouth(self, rgb: Pixels, expression: Expression) -> None:
        half, gap = self._lips(expression)
        x, y = _MOUTH
        arch = np.linspace(-1, 1, 17)
        bow = 1 - arch**2
        dip = 0.012 * np.exp(-((arch / 0.22) ** 2))
        outer_top = np.stack([x + half * arch, y - (gap * 0.6 + 0.04) * bow**0.8 + dip], -1)
        outer_bottom = np.stack([x + half * 0.98 * arch, y + (gap * 1.4 + 0.055) * bow**0.7], -1)
        inner_top = np.stack([x + half * 0.9 * arch, y - gap * 0.6 * bow], -1)
        inner_bottom = np.stack([x + half * 0.9 * arch, y + (gap * 1.4 + 0.002) * bow], -1)
        skin = np.array(self._signer.skin, float)
        lip = 0.55 * skin * (0.95, 0.72, 0.7) + 0.45 * np.array([176, 84, 84])
        self._fill(rgb, np.concatenate([outer_top, inner_top[::-1]]), tuple(lip * 0.86))
        self._fill(rgb, np.concatenate([inner_bottom, outer_bottom[::-1]]), tuple(lip))
        if gap > 0.006:
            self._fill(rgb, np.concatenate([inner_top, inner_bottom[::-1]]), (58, 20, 24))
            teeth = inner_top + np.stack([np.zeros(17), np.minimum(gap * 0.7, 0.035) * bow], -1)
            self._fill(rgb, np.concatenate([inner_top[3:-3], teeth[3:-3][::-1]]), (226, 220, 210))
        self._line(rgb, inner_top, 0.012, (84, 36, 38))

    def _glasses(self, rgb: Pixels) -> None:
        turn = np.linspace(0, 2 * np.pi, 33)
        for side in (-1, 1):
            ring = np.stack([side * 0.2 + 0.15 * np.cos(turn), 0.0 + 0.115 * np.sin(turn)], -1)
            self._line(rgb, ring, 0.022, (38, 34, 36))
            self._line(rgb, np.array([[side * 0.35, -0.02], [side * 0.47, 0.0]]), 0.02, (38, 34, 36))
        self._line(rgb, np.array([[-0.05, -0.02], [0.0, -0.035], [0.05, -0.02]]), 0.022, (38, 34, 36))
