"""A small software renderer: spheres swept along lines and ellipsoids as a height field, shaded by its slope.

The camera looks along -z; x grows to the right, y down, z to the camera, all in px. Everything is drawn at twice the
resolution into a patch and averaged down, which smooths the edges.
"""

from __future__ import annotations

import cv2
import numpy as np

OVERSAMPLING = 2
NOTHING = np.float32(-1e4)
_LIGHT = np.array([-0.42, -0.62, 0.66], np.float32) / np.float32(np.linalg.norm([-0.42, -0.62, 0.66]))
_FILL = np.array([0.75, -0.1, 0.65], np.float32) / np.float32(np.linalg.norm([0.75, -0.1, 0.65]))


class Patch:
    """Height field over a rectangle of the picture.

    Args:
        x0, y0: Left upper corner, px.
        width, height: px.
    """

    def __init__(self, x0: int, y0: int, width: int, height: int) -> None:
        self.x0, self.y0, self.width, self.height = x0, y0, max(width, 1), max(height, 1)
        shape = (self.height * OVERSAMPLING, self.width * OVERSAMPLING)
        self.z = np.full(shape, NOTHING, np.float32)
        self.part = np.zeros(shape, np.uint8)
        self.tone = np.ones(shape, np.float32)
        self._y = (np.arange(shape[0], dtype=np.float32) + 0.5)[:, None]
        self._x = (np.arange(shape[1], dtype=np.float32) + 0.5)[None, :]

    def capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        start_radius: float,
        end_radius: float,
        part: int,
        *,
        blend: float = 0.0,
        crease: float = 0.0,
    ) -> None:
        """A sphere swept from ``start`` to ``end`` (3,) px, its radius changing evenly.

        Args:
            part: Number under which `shade` finds the colour, 1..255.
            blend: Width in px over which it melts into what is there.
            crease: How much darker (0..1) a thin line across its start is.
        """
        p, q = self._local(start), self._local(end)
        r0, r1 = start_radius * OVERSAMPLING, end_radius * OVERSAMPLING
        window = self._window(np.minimum(p, q)[:2] - max(r0, r1), np.maximum(p, q)[:2] + max(r0, r1))
        if window is None:
            return
        wx, wy = self._x[:, window[1]] - p[0], self._y[window[0]] - p[1]
        dx, dy, dz = (q - p).tolist()
        flat = max((dx * dx + dy * dy) ** 0.5, 1e-3)
        length = (flat * flat + dz * dz) ** 0.5
        ux, uy = dx / flat, dy / flat
        along = wx * ux + wy * uy
        across = wx * -uy + wy * ux
        mean = 0.5 * (r0 + r1)
        rise = np.sqrt(np.maximum(mean * mean - across * across, 0.0))
        # Of all spheres on the axis, the one that reaches highest at this pixel; exact for equal radii.
        t = np.clip((along + rise * (dz / length)) * (1.0 / flat), 0.0, 1.0)
        radius = r0 + (r1 - r0) * t
        ex, ey = wx - t * dx, wy - t * dy
        room = radius * radius - ex * ex - ey * ey
        height = np.where(room > 0, p[2] + t * dz + np.sqrt(np.maximum(room, 0.0)), NOTHING)
        tone = 1.0 - crease * np.exp(-np.square(t * (length / (0.9 * OVERSAMPLING)))) if crease else None
        self._merge(window, height, part, blend * OVERSAMPLING, tone)

    def ellipsoid(
        self, center: np.ndarray, radii: tuple[float, float, float], part: int, *, blend: float = 0.0, turn: float = 0.0
    ) -> None:
        """An ellipsoid with half axes ``radii`` px along x, y, z, turned by ``turn`` rad in the picture plane."""
        c = self._local(center)
        rx, ry, rz = (radius * OVERSAMPLING for radius in radii)
        reach = max(rx, ry) if turn else np.array([rx, ry])
        window = self._window(c[:2] - reach, c[:2] + reach)
        if window is None:
            return
        wx, wy = self._x[:, window[1]] - c[0], self._y[window[0]] - c[1]
        cos, sin = np.cos(turn), np.sin(turn)
        u, v = (wx * cos + wy * sin) / rx, (wy * cos - wx * sin) / ry
        room = 1.0 - u * u - v * v
        height = np.where(room > 0, c[2] + rz * np.sqrt(np.maximum(room, 0.0)), NOTHING).astype(np.float32)
        self._merge(window, height, part, blend * OVERSAMPLING, None)

    def shade(self, colors: np.ndarray, *, palmar: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Colours and coverage.

        Args:
            colors: (P, 2, 3) red, green, blue of every part, on its inner and its outer side.
            palmar: (P, 3) where the inner side of every part faces; None when the sides do not differ.

        Returns:
            (H, W, 3) uint8 RGB and (H, W) float32 0..1.
        """
        inside = self.part > 0
        height = np.where(inside, self.z, self.z[inside].min() - 4.0 if inside.any() else 0.0).astype(np.float32)
        smooth = cv2.GaussianBlur(height, (3, 3), 0.8)
        gx = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125), -2.6, 2.6)
        gy = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125), -2.6, 2.6)
        nz = 1.0 / np.sqrt(gx * gx + gy * gy + 1.0)
        nx, ny = -gx * nz, -gy * nz
        light = np.maximum(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0.0)
        fill = np.maximum(nx * _FILL[0] + ny * _FILL[1] + nz * _FILL[2], 0.0)
        size = 2 * (max(self.z.shape) // 40) + 3
        buried = np.maximum(cv2.blur(height, (size, size)) - height, 0.0)
        level = (0.36 + 0.56 * light + 0.16 * fill) * (1.0 - np.minimum(buried * 0.028, 0.38)) * self.tone
        glint = np.square(np.square(np.square(light))) * 16.0
        if palmar is None:
            base = colors[:, 1].astype(np.float32)[self.part]
        else:
            facing = palmar.astype(np.float32)[self.part]
            inner = np.clip(0.5 + 1.2 * (nx * facing[..., 0] + ny * facing[..., 1] + nz * facing[..., 2]), 0.0, 1.0)
            inner = inner[..., None]
            pair = colors.astype(np.float32)[self.part]
            base = pair[:, :, 1] + inner * (pair[:, :, 0] - pair[:, :, 1])
        # Light that enters skin comes out red: shadows keep more red than blue.
        image = np.empty((*self.part.shape, 4), np.float32)
        image[..., 0] = base[..., 0] * (level * 0.94 + 0.06) + glint
        image[..., 1] = base[..., 1] * level + glint
        image[..., 2] = base[..., 2] * (level * 1.03 - 0.03) + glint
        image[..., 3] = 255.0
        image *= inside[..., None]
        small = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        alpha = small[..., 3] * (1 / 255.0)
        rgb = small[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        return np.clip(rgb, 0, 255).astype(np.uint8), alpha

    def _local(self, point: np.ndarray) -> np.ndarray:
        return (np.asarray(point, np.float32) - np.array([self.x0, self.y0, 0], np.float32)) * np.float32(OVERSAMPLING)

    def _window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice] | None:
        x0, y0 = max(int(low[0]) - 1, 0), max(int(low[1]) - 1, 0)
        x1, y1 = min(int(high[0]) + 2, self.z.shape[1]), min(int(high[1]) + 2, self.z.shape[0])
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def _merge(
        self, window: tuple[slice, slice], height: np.ndarray, part: int, blend: float, tone: np.ndarray | None
    ) -> None:
        below = self.z[window]
        higher = height > below
        if blend:
            near = np.maximum(blend - np.abs(height - below), 0.0)
            below[...] = np.maximum(height, below) + near * near * (0.25 / blend)
        else:
            below[higher] = height[higher]
        self.part[window][higher] = part
        self.tone[window][higher] = 1.0 if tone is None else tone[higher]


def paint(image: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, x0: int, y0: int) -> None:
    """Lay ``rgb`` (H, W, 3) over ``image`` where ``alpha`` (H, W) says so; what leaves the image is cut off."""
    cut = _overlap(image, alpha.shape, x0, y0)
    if cut is None:
        return
    there, here = cut
    weight = np.ascontiguousarray(alpha[here])
    image[there] = cv2.blendLinear(np.ascontiguousarray(rgb[here]), np.ascontiguousarray(image[there]), weight, 1 - weight)


def darken(image: np.ndarray, alpha: np.ndarray, x0: int, y0: int, strength: float) -> None:
    """Darken ``image`` under ``alpha`` (H, W): a soft shadow."""
    cut = _overlap(image, alpha.shape, x0, y0)
    if cut is None:
        return
    there, here = cut
    weight = 1.0 - strength * alpha[here]
    image[there] = (image[there] * weight[..., None]).astype(np.uint8)


def _overlap(
    image: np.ndarray, shape: tuple[int, int], x0: int, y0: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + shape[1], image.shape[1]), min(y0 + shape[0], image.shape[0])
    if left >= right or top >= bottom:
        return None
    return (slice(top, bottom), slice(left, right)), (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
