"""A small software renderer: swept spheres and ellipsoids as a height field, shaded by its slope.

The camera looks along -z; x grows to the right, y down, z to the camera, all in px. Detail (hands, head) is drawn at
twice the resolution and averaged down, which smooths the edges.
"""

from __future__ import annotations

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels

NOTHING = np.float32(-1e4)
_LIGHT = np.array([-0.42, -0.62, 0.66], np.float32) / np.float32(np.linalg.norm([-0.42, -0.62, 0.66]))
_FILL = np.array([0.75, -0.1, 0.65], np.float32) / np.float32(np.linalg.norm([0.75, -0.1, 0.65]))


class Patch:
    """Height field over a rectangle of the picture, from its left upper corner; all in px.

    ``oversampling`` is the samples per px and axis; with 1, edges are only softened.
    """

    def __init__(self, x0: int, y0: int, width: int, height: int, *, oversampling: int = 2) -> None:
        self.x0, self.y0, self.width, self.height = x0, y0, max(width, 1), max(height, 1)
        self._oversampling = oversampling
        shape = (self.height * oversampling, self.width * oversampling)
        self.z = np.full(shape, NOTHING, np.float32)
        self.part = np.zeros(shape, np.uint8)
        self.tone = np.ones(shape, np.float32)
        self._y = (np.arange(shape[0], dtype=np.float32) + 0.5)[:, None]
        self._x = (np.arange(shape[1], dtype=np.float32) + 0.5)[None, :]

    def capsule(
        self,
        start: Floats,
        end: Floats,
        start_radius: float,
        end_radius: float,
        part: int,
        *,
        blend: float = 0.0,
        crease: float = 0.0,
    ) -> None:
        """Add a sphere swept from ``start`` to ``end`` (3,) px, its radius changing evenly.

        ``part`` is the number under which `shade` finds the colour, 1..255; ``blend`` the width in px over which it
        melts into what is already there; ``crease`` how much darker (0..1) a thin line across its start is.
        """
        p, q = self._local(start), self._local(end)
        r0, r1 = float(start_radius) * self._oversampling, float(end_radius) * self._oversampling
        window = self._window(np.minimum(p, q)[:2] - max(r0, r1), np.maximum(p, q)[:2] + max(r0, r1))
        if window is None:
            return
        wx, wy = self._x[:, window[1]] - p[0], self._y[window[0]] - p[1]
        dx, dy, dz = (q - p).tolist()
        flat = max((dx * dx + dy * dy) ** 0.5, 1e-3)
        length = (flat * flat + dz * dz) ** 0.5
        ux, uy = dx / flat, dy / flat
        along = wx * ux + wy * uy
        across = np.square(wx * -uy + wy * ux)
        rise = np.sqrt(np.maximum((0.5 * (r0 + r1)) ** 2 - across, 0.0))
        # Of all spheres on the axis, the one that reaches highest at this pixel; exact for equal radii.
        t = np.minimum(np.maximum((along + rise * (dz / length)) * (1.0 / flat), 0.0), 1.0)
        room = np.square(r0 + (r1 - r0) * t) - np.square(along - t * flat) - across
        height = np.where(room > 0, p[2] + t * dz + np.sqrt(np.maximum(room, 0.0)), NOTHING)
        tone = 1.0 - crease * np.exp(-np.square(t * (length / (0.9 * self._oversampling)))) if crease else None
        self._merge(window, height, part, blend * self._oversampling, tone)

    def ellipsoid(self, center: Floats, radii: tuple[float, float, float], part: int, *, blend: float = 0.0) -> None:
        """Add an ellipsoid with half axes ``radii`` px along x, y, z."""
        c = self._local(center)
        rx, ry, rz = (float(radius) * self._oversampling for radius in radii)
        reach = np.array([rx, ry])
        window = self._window(c[:2] - reach, c[:2] + reach)
        if window is None:
            return
        u, v = (self._x[:, window[1]] - c[0]) / rx, (self._y[window[0]] - c[1]) / ry
        room = 1.0 - u * u - v * v
        height = np.where(room > 0, c[2] + rz * np.sqrt(np.maximum(room, 0.0)), NOTHING).astype(np.float32)
        self._merge(window, height, part, blend * self._oversampling, None)

    def cut(self, at: Floats, direction: Floats) -> None:
        """Remove what is behind ``at``, seen along ``direction``, in the picture plane; both (3,)."""
        p = self._local(at)
        behind = (self._x - p[0]) * float(direction[0]) + (self._y - p[1]) * float(direction[1]) < 0
        self.z[behind], self.part[behind] = NOTHING, 0

    def shade(self, colors: Floats, *, palmar: Floats | None = None) -> tuple[Pixels, Pixels]:
        """Colours (H, W, 3) uint8 RGB and coverage (H, W) float32 0..1.

        From (P, 2, 3) RGB ``colors`` of every part, on its inner and its outer side, and the (P, 3) directions that the
        inner sides face; None when the sides do not differ.
        """
        inside = np.flatnonzero(self.part)  # (N,): a limb fills a quarter of its patch
        lowest = self.z.ravel()[inside].min() - 4.0 if inside.size else 0.0
        height = np.maximum(self.z, np.float32(lowest))
        smooth = cv2.GaussianBlur(height, (3, 3), 0.8)
        steepest = 1.3 * self._oversampling  # a coarse edge is a step; without a limit it would be drawn black
        gx = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125).ravel()[inside], -steepest, steepest)
        gy = np.clip(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125).ravel()[inside], -steepest, steepest)
        nz = 1.0 / np.sqrt(gx * gx + gy * gy + 1.0)
        nx, ny = -gx * nz, -gy * nz
        light = np.maximum(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0.0)
        fill = np.maximum(nx * _FILL[0] + ny * _FILL[1] + nz * _FILL[2], 0.0)
        size = 2 * (max(self.z.shape) // 40) + 3
        buried = np.maximum((cv2.blur(height, (size, size)) - height).ravel()[inside], 0.0)
        level = (0.36 + 0.56 * light + 0.16 * fill) * (1.0 - np.minimum(buried * 0.028, 0.38))
        level *= self.tone.ravel()[inside]
        glint = np.square(np.square(np.square(light))) * 16.0
        part = self.part.ravel()[inside]
        colors = colors.astype(np.float32)
        base = colors[:, 1][part]  # (N, 3)
        if palmar is not None:
            facing = palmar.astype(np.float32)[part]
            inner = np.clip(0.5 + 1.2 * (nx * facing[:, 0] + ny * facing[:, 1] + nz * facing[:, 2]), 0.0, 1.0)
            base += inner[:, None] * (colors[:, 0] - colors[:, 1])[part]
        # Light that enters skin comes out red: shadows keep more red than blue.
        image: Floats = np.zeros((self.part.size, 4), np.float32)
        shaded = np.empty((inside.size, 4), np.float32)
        for channel, (slope, offset) in enumerate(((0.94, 0.06), (1.0, 0.0), (1.03, -0.03))):
            shaded[:, channel] = base[:, channel] * (level * slope + offset) + glint
        shaded[:, 3] = 1.0
        image[inside] = shaded
        image = np.reshape(image, (*self.part.shape, 4))
        if self._oversampling == 1:
            mask = np.ascontiguousarray(image[..., 3])
            return np.clip(image[..., :3], 0, 255).astype(np.uint8), mask * cv2.blur(mask, (3, 3))
        small = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        alpha = small[..., 3]
        rgb = small[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        return np.clip(rgb, 0, 255).astype(np.uint8), np.ascontiguousarray(alpha)

    def _local(self, point: Floats) -> Floats:
        return (np.asarray(point, np.float32) - np.array([self.x0, self.y0, 0], np.float32)) * np.float32(
            self._oversampling
        )

    def _window(self, low: Floats, high: Floats) -> tuple[slice, slice] | None:
        x0, y0 = max(int(low[0]) - 1, 0), max(int(low[1]) - 1, 0)
        x1, y1 = min(int(high[0]) + 2, self.z.shape[1]), min(int(high[1]) + 2, self.z.shape[0])
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None

    def _merge(self, window: tuple[slice, slice], height: Floats, part: int, blend: float, tone: Floats | None) -> None:
        below = self.z[window]
        higher = height > below
        if blend:
            near = np.maximum(blend - np.abs(height - below), 0.0)
            below[...] = np.maximum(height, below) + near * near * (0.25 / blend)
        else:
            below[higher] = height[higher]
        self.part[window][higher] = part
        self.tone[window][higher] = 1.0 if tone is None else tone[higher]


def paint(image: Pixels, rgb: Pixels, alpha: Pixels, x0: int, y0: int) -> None:
    """Blend ``rgb`` (H, W, 3) into ``image`` by ``alpha`` (H, W); what is outside of the image is cut off."""
    cut = _overlap(image, alpha.shape, x0, y0)
    if cut is None:
        return
    there, here = cut
    weight = np.ascontiguousarray(alpha[here])
    image[there] = cv2.blendLinear(
        np.ascontiguousarray(rgb[here]), np.ascontiguousarray(image[there]), weight, 1 - weight
    )


def darken(image: Pixels, alpha: Pixels, x0: int, y0: int, strength: float) -> None:
    """Darken ``image`` under ``alpha`` (H, W): a soft shadow."""
    cut = _overlap(image, alpha.shape, x0, y0)
    if cut is None:
        return
    there, here = cut
    weight = 1.0 - strength * alpha[here]
    image[there] = (image[there] * weight[..., None]).astype(np.uint8)


def _overlap(
    image: Pixels, shape: tuple[int, ...], x0: int, y0: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + shape[1], image.shape[1]), min(y0 + shape[0], image.shape[0])
    if left >= right or top >= bottom:
        return None
    return (slice(top, bottom), slice(left, right)), (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
