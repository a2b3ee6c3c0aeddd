"""Who is in the picture: faces linked to people over time, and the part of the picture that belongs to one person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.tracker.engine import Engine
from signstreams.tracker.faces import find_faces

MIN_FACE_PX = 12  # side of the smallest face that counts: hands of a smaller person have too few pixels
MIN_RELATIVE_SIZE = 0.08
"""A face smaller than this share of the largest one is background. Not higher: interpreters are inset into news, at 320
px beside a speaker whose face is as large."""
SMALL = 0.3
"""A face smaller than this share of the largest one is somebody in the background, unless only they sign."""
NEAR_SIDES = 6  # side of the region in which a known face is searched again, in sides of the face
MAX_FACES = 4  # of more faces in one picture, the largest are kept
HEAD_UNITS = 0.88
"""Half the shoulder distance over the side of the face box: .81, .90, .91 and .75 on the clips of shared/data."""
_MAX_LINK_COST = 2.0


class Face(NamedTuple):
    """A face in one picture."""

    x: float  # centre, px
    y: float
    size_px: float  # side of the (square) face box, from brows to chin
    looks: Floats  # (80,) appearance of clothes and hair, see `_looks`

    def distance(self, x: float, y: float) -> float:
        """Distance from the centre, in sides of the face box."""
        return float(np.hypot(self.x - x, self.y - y)) / self.size_px


class FaceFinder:
    """Faces of people, also of somebody who is inset into a large picture."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, image: Pixels, near: Sequence[Face] | None = None) -> list[Face]:
        """Faces in an (H, W, 3) RGB image, the largest first.

        ``near`` are faces of the frames before: then small ones are only searched around them.
        """
        height_px, width_px = image.shape[:2]
        regions = None
        if near is not None:
            regions = np.array([(face.x, face.y, NEAR_SIDES * face.size_px, 0.0) for face in near]).reshape(-1, 4)
        boxes = []
        for x, y, box_width, box_height in find_faces(self._engine, image, regions).box:
            size_px = (box_width + box_height) / 2
            if size_px >= MIN_FACE_PX and 0 <= x < width_px and 0 <= y < height_px:
                boxes.append((float(size_px), float(x), float(y)))
        boxes.sort(reverse=True)
        kept = [box for box in boxes[:MAX_FACES] if box[0] >= MIN_RELATIVE_SIZE * boxes[0][0]]
        return [Face(x, y, size_px, _looks(image, x, y, size_px)) for size_px, x, y in kept]


def _looks(image: Pixels, x: float, y: float, size_px: float) -> Floats:
    """Square roots of the chest's histograms of colour (8x8 of a, b) and lightness (16); compared by dot product."""
    left, right = (int(np.clip(x + side * 0.9 * size_px, 0, image.shape[1])) for side in (-1, 1))
    top, bottom = (int(np.clip(y + down * size_px, 0, image.shape[0])) for down in (0.9, 2.2))
    patch = image[top:bottom, left:right]
    if patch.size == 0:
        return np.full(80, np.sqrt(1 / 80), np.float32)
    step = max(1, int(size_px / 40))
    lab = cv2.cvtColor(np.ascontiguousarray(patch[::step, ::step]), cv2.COLOR_RGB2LAB)
    colour = cv2.calcHist([lab], [1, 2], None, [8, 8], [64, 192, 64, 192]).ravel()
    lightness = cv2.calcHist([lab], [0], None, [16], [0, 256]).ravel()
    parts = [part / max(part.sum(), 1.0) for part in (colour, lightness)]
    roots: Floats = np.sqrt(np.concatenate(parts) / 2)
    return roots


@dataclass
class Person:
    """One person, as seen so far."""

    faces: list[Face] = field(default_factory=list)  # sightings in order of time
    times_s: list[float] = field(default_factory=list)  # time of each
    looks: Floats = field(default_factory=lambda: np.zeros(80, np.float32))  # mean appearance
    num_seen: int = 0  # number of sightings in the mean

    def see(self, face: Face, time_s: float) -> None:
        """Add a sighting. Old appearance fades: light and clothes may change."""
        weight = 1 / min(self.num_seen + 1, 50)
        self.looks = (1 - weight) * self.looks + weight * face.looks
        self.num_seen += 1
        self.faces.append(face)
        self.times_s.append(time_s)

    @property
    def place(self) -> tuple[float, float, float]:
        """Median x, y and size, px."""
        return tuple(np.median([face[:3] for face in self.faces], axis=0).tolist())

    def cost(self, face: Face, time_s: float) -> float:
        """How poorly a face matches in place (which counts less with time since the last sighting), size and looks."""
        last, gap_s = self.faces[-1], abs(time_s - self.times_s[-1])
        apart = face.distance(last.x, last.y) / (1 + gap_s)
        unlike = np.sqrt(max(0.0, 1 - float(self.looks @ face.looks) / float(np.linalg.norm(self.looks))))
        return float(min(apart, 4.0) / 2 + abs(np.log(face.size_px / last.size_px)) + 3 * unlike)


def match(people: Sequence[Person], faces: Sequence[Face], time_s: float) -> dict[int, int]:
    """Index of a face to index of its person, cheapest matches first; faces of nobody known are left out."""
    costs = sorted((person.cost(face, time_s), f, p) for f, face in enumerate(faces) for p, person in enumerate(people))
    owners: dict[int, int] = {}
    for cost, f, p in costs:
        if cost <= _MAX_LINK_COST and f not in owners and p not in owners.values():
            owners[f] = p
    return owners


def link(moments: Iterable[tuple[float, Sequence[Face]]]) -> list[Person]:
    """People from the faces of many moments (time in s, faces), in order of time."""
    people: list[Person] = []
    for time_s, faces in moments:
        owners = match(people, faces, time_s)
        for index, face in enumerate(faces):
            if index not in owners:
                people.append(Person())
                owners[index] = len(people) - 1
            people[owners[index]].see(face, time_s)
    return people


# -- The part of a picture that belongs to one person

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in px

REACH_X, REACH_UP, REACH_DOWN = 4.0, 2.2, 6.5
"""Reach of the region from the middle of the face, in sides of the face box: 7 head units wide and 7.7 high, a little
more than the signing space, and up to raised hands."""
SHARE_OF_GAP = 0.65
"""Share of the gap between two faces side by side that belongs to the signer, whose hands reach farther."""
MUCH_SMALLER = 0.6
"""Somebody with a face smaller than this share of the signer's stands behind; then only the head is blanked."""
_GREY = 112


def signing_box(face: Face, others: Iterable[Face], width_px: int, height_px: int) -> Box:
    """The signer's part of the frame: the signing space around the face, up to the people beside."""
    x0, x1 = face.x - REACH_X * face.size_px, face.x + REACH_X * face.size_px
    for other in others:
        edge = _edge(face, other)
        if edge is not None:
            x0, x1 = (max(x0, edge), x1) if other.x < face.x else (x0, min(x1, edge))
    y0, y1 = face.y - REACH_UP * face.size_px, face.y + REACH_DOWN * face.size_px
    return (max(0, int(x0)), max(0, int(y0)), min(width_px, int(np.ceil(x1))), min(height_px, int(np.ceil(y1))))


def blank_others(part: Pixels, corner: tuple[int, int], face: Face, others: Iterable[Face]) -> Pixels:
    """Grey out, in place, what belongs to other people than the signer, whose face is ``face``; returns ``part``.

    That is (H, W, 3), the part of the frame that starts at ``corner`` (x, y px).
    """
    for other in others:
        edge = _edge(face, other)
        if edge is None:
            _blank_head(part, corner, face, other)
        elif other.x < face.x:
            part[:, : max(0, int(edge) - corner[0])] = _GREY
        else:
            part[:, max(0, int(np.ceil(edge)) - corner[0]) :] = _GREY
    return part


def _edge(face: Face, other: Face) -> float | None:
    """x of the line between the signer and somebody beside them; None for somebody in front, above or behind."""
    if other.size_px < MUCH_SMALLER * face.size_px:
        return None
    gap = abs(face.x - other.x) - (face.size_px + other.size_px) / 2
    if gap < 0.25 * face.size_px:
        return None
    return face.x + float(np.sign(other.x - face.x)) * (face.size_px / 2 + SHARE_OF_GAP * gap)


def _blank_head(part: Pixels, corner: tuple[int, int], face: Face, other: Face) -> None:
    """Blank the other person's head, but nothing of the signer's."""
    own = _head(face, corner, part.shape)
    kept = part[own].copy()
    part[_head(other, corner, part.shape)] = _GREY
    part[own] = kept


def _head(face: Face, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the head, with hair and neck."""
    x, y, size_px = face.x - corner[0], face.y - corner[1], face.size_px
    rows = (int(np.clip(v, 0, shape[0])) for v in (y - 1.1 * size_px, y + 0.9 * size_px))
    columns = (int(np.clip(v, 0, shape[1])) for v in (x - 0.8 * size_px, x + 0.8 * size_px))
    return slice(*rows), slice(*columns)
