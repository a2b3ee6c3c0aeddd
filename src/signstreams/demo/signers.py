"""Who signs: build, skin, clothes, hair, camera and background of each signer. Imports nothing heavy."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

Color = tuple[int, int, int]  # red, green, blue, 0..255


@dataclass(frozen=True)
class Signer:
    """Looks of one signer; lengths in units of half the shoulder distance, the unit itself in px."""

    name: str  # id in meta.csv
    unit_px: float  # half the shoulder distance in px: how near the camera is
    build: float  # thickness of torso and arms; 1 is average
    hand_length: float  # wrist to tip of the middle finger
    skin: Color  # colour of the back of the hand and of the face
    shirt: Color  # colour of torso and sleeves
    sleeve: float  # share of the forearm that the sleeve covers
    collar: str  # ``round`` or ``vee``
    hair: Color  # colour
    hair_style: str  # ``short``, ``long``, ``bun`` or ``curly``
    brow: Color  # colour of the brows
    eyes: Color  # colour of the iris
    backdrop: str  # ``wall``, ``gradient``, ``shelf``, ``window``, ``board`` or ``curtain``
    backdrop_color: Color  # its main colour
    rests_low: bool = False
    """Resting hands hang below the lower edge of the picture, instead of being in front of the belly."""
    left_handed: bool = False  # the left hand signs
    has_beard: bool = False  # A beard over chin and cheeks
    has_glasses: bool = False  # glasses with a thin dark frame


SIGNERS: tuple[Signer, ...] = (
    Signer(
        "ana", 84, 0.95, 1.16, (226, 178, 148), (38, 52, 84), 0.8, "vee", (72, 46, 30), "long", (66, 44, 30),
        (92, 66, 40), "gradient", (168, 182, 192),
    ),
    Signer(
        "bruno", 90, 1.15, 1.18, (142, 94, 66), (88, 104, 66), 0.25, "round", (24, 20, 18), "short", (24, 18, 16),
        (52, 34, 24), "shelf", (196, 178, 152), has_beard=True,
    ),
    Signer(
        "carla", 78, 0.9, 1.18, (240, 200, 176), (132, 34, 48), 0.6, "round", (176, 108, 52), "bun", (132, 80, 44),
        (84, 118, 92), "window", (208, 204, 190), rests_low=True, left_handed=True,
        has_glasses=True,
    ),
    Signer(
        "dario", 86, 1.05, 1.2, (204, 150, 112), (46, 46, 50), 0.85, "vee", (38, 30, 26), "curly", (36, 28, 24),
        (70, 48, 30), "curtain", (74, 112, 124),
    ),
    Signer(
        "elsa", 80, 0.9, 1.18, (184, 130, 94), (218, 206, 180), 0.3, "vee", (34, 24, 22), "long", (34, 24, 20),
        (58, 38, 26), "board", (70, 98, 84), rests_low=True,
    ),
    Signer(
        "fabio", 92, 1.1, 1.14, (232, 186, 160), (70, 112, 158), 0.7, "round", (146, 140, 132), "short", (118, 108, 98),
        (84, 110, 138), "wall", (186, 160, 136), has_glasses=True,
    ),
)  # fmt: skip
"""`tiny` takes the first four, `demo` five, `bench` all six."""


def signer_named(name: str, seed: int) -> Signer:
    """The signer of that name; clothes, complexion and build vary a little with the seed, not with the video."""
    rng = random.Random(f"signstreams demo {seed} {name}")
    signer = next(signer for signer in SIGNERS if signer.name == name)
    tan = 1 + 0.05 * (2 * rng.random() - 1)
    return replace(
        signer,
        skin=_bounded(tan * value for value in signer.skin),
        shirt=_bounded(value + 24 * (2 * rng.random() - 1) for value in signer.shirt),
        build=signer.build * (1 + 0.04 * (2 * rng.random() - 1)),
        hand_length=signer.hand_length * (1 + 0.02 * (2 * rng.random() - 1)),
    )


def _bounded(values: Iterable[float]) -> Color:
    red, green, blue = (min(max(round(value), 12), 244) for value in values)
    return red, green, blue
