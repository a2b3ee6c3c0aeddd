"""What is behind the signer: six kinds of wall, drawn once a video."""

from __future__ import annotations

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.demo.plan import HEIGHT_PX, WIDTH_PX
from signstreams.demo.signers import Signer


def backdrop(signer: Signer, rng: np.random.Generator) -> Pixels:
    """(H, W, 3) uint8 RGB."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    light = 1.08 - 0.28 * (x / WIDTH_PX - 0.25) ** 2 - 0.22 * (y / HEIGHT_PX)
    image = np.asarray(signer.backdrop_color, np.float32) * light[..., None]
    _PAINTERS[signer.backdrop](image, rng)
    coarse = rng.normal(0, 2.5, (HEIGHT_PX // 8, WIDTH_PX // 8)).astype(np.float32)
    image += cv2.resize(coarse, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)[..., None]
    clipped: Floats = np.clip(cv2.GaussianBlur(image, (0, 0), 1.6), 0, 255)
    return clipped.astype(np.uint8)


def _gradient(image: Floats, rng: np.random.Generator) -> None:
    image *= np.linspace(1.06, 0.82, HEIGHT_PX, dtype=np.float32)[:, None, None]


def _wall(image: Floats, rng: np.random.Generator) -> None:
    height, width = 30, 76
    for row, y in enumerate(range(0, HEIGHT_PX, height)):
        for x in range(-width + (row % 2) * width // 2, WIDTH_PX, width):
            image[y + 2 : y + height, max(x + 2, 0) : max(x + width, 0)] *= rng.uniform(0.88, 1.04)
    image[::height] *= 0.84


def _shelf(image: Floats, rng: np.random.Generator) -> None:
    for y in (150, 320):
        x = int(rng.integers(0, 20))
        while x < WIDTH_PX:
            width, height = int(rng.integers(12, 30)), int(rng.integers(70, 120))
            if rng.random() < 0.85:
                cv2.rectangle(image, (x, y - height), (x + width, y), rng.uniform(60, 190, 3).tolist(), -1)
                cv2.line(image, (x + width, y - height), (x + width, y), (50, 45, 40), 1)
            x += width + 1
        cv2.rectangle(image, (0, y), (WIDTH_PX, y + 9), (112, 82, 56), -1)


def _window(image: Floats, rng: np.random.Generator) -> None:
    left = int(rng.integers(20, 60))
    cv2.rectangle(image, (left, 30), (left + 150, 300), (226, 226, 220), -1)
    sky = np.linspace(0, 1, 240, dtype=np.float32)[:, None, None]
    image[45:285, left + 14 : left + 136] = (1 - sky) * np.array([150, 190, 226]) + sky * np.array([214, 222, 214])
    cv2.rectangle(image, (left + 70, 40), (left + 79, 290), (226, 226, 220), -1)
    cv2.rectangle(image, (480, 250), (600, 480), (116, 92, 68), -1)
    cv2.circle(image, (540, 215), 44, (78, 116, 70), -1)


def _board(image: Floats, rng: np.random.Generator) -> None:
    image[:26] = image[-60:] = (150, 112, 76)
    for _ in range(14):
        x, y = int(rng.integers(10, WIDTH_PX - 90)), int(rng.integers(50, HEIGHT_PX - 90))
        cv2.line(image, (x, y), (x + int(rng.integers(30, 90)), y + int(rng.integers(-4, 5))), (150, 172, 158), 2)


def _curtain(image: Floats, rng: np.random.Generator) -> None:
    x = np.arange(WIDTH_PX, dtype=np.float32)
    folds = sum(np.sin(x / length + rng.uniform(0, 6)) for length in (9.0, 14.0, 23.0))
    image *= (1 + 0.07 * folds)[None, :, None]


_PAINTERS = {
    "gradient": _gradient,
    "wall": _wall,
    "shelf": _shelf,
    "window": _window,
    "board": _board,
    "curtain": _curtain,
}
