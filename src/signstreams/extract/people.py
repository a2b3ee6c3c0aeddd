"""Who is in the picture: faces by MediaPipe's full-range face detector, linked to people over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.extract.solutions import QuietStderr, solution_class

MIN_FACE_PX = 12
"""Side of the smallest face that counts: the hands that belong to it have too few pixels to be read."""
MIN_RELATIVE_SIZE = 0.3
"""A face smaller than this share of the largest one is background. Not higher: interpreters are inset into news."""
MAX_FACES = 4
"""Of more faces in one picture the largest count."""
HEAD_UNITS = 0.88
"""Half the shoulder distance over the side of the face box: .81, .90, .91 and .75 on the clips of shared/data."""
_MAX_LINK_COST = 2.0


class Face(NamedTuple):
    """A face in one picture.

    Attributes:
        x, y: Centre, px.
        size_px: Side of the (square) face box, from brows to chin.
        looks: (80,) what clothes and hair look like, see `_looks`.
    """

    x: float
    y: float
    size_px: float
    looks: Floats

    def distance(self, x: float, y: float) -> float:
        """From the centre, in sides of the face box."""
        return float(np.hypot(self.x - x, self.y - y)) / self.size_px


class FaceFinder:
    """MediaPipe FaceDetection, the full-range model: 6 ms for a picture of any size."""

    def __init__(self) -> None:
        self._quiet = QuietStderr()
        self._graph: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._graph is not None:
            with self._quiet:
                self._graph.close()
        self._quiet.close()

    def find(self, image: Pixels) -> list[Face]:
        """Faces in an (H, W, 3) RGB image, the largest first."""
        height_px, width_px = image.shape[:2]
        with self._quiet:  # also while the graph starts, in threads that report on stderr
            if self._graph is None:
                solution = solution_class("face_detection", "FaceDetection")
                self._graph = solution(model_selection=1, min_detection_confidence=0.5)
            found = self._graph.process(image).detections or []
        boxes = []
        for detection in found:
            box = detection.location_data.relative_bounding_box
            size_px = (box.width * width_px + box.height * height_px) / 2
            x, y = (box.xmin + box.width / 2) * width_px, (box.ymin + box.height / 2) * height_px
            if size_px >= MIN_FACE_PX and 0 <= x < width_px and 0 <= y < height_px:
                boxes.append((size_px, x, y))
        boxes.sort(reverse=True)
        kept = [box for box in boxes[:MAX_FACES] if box[0] >= MIN_RELATIVE_SIZE * boxes[0][0]]
        return [Face(x, y, size_px, _looks(image, x, y, size_px)) for size_px, x, y in kept]


def _looks(image: Pixels, x: float, y: float, size_px: float) -> Floats:
    """Roots of the chest's histograms of colour (8x8 of a, b) and lightness (16): their dot product is likeness."""
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
    """Somebody, as seen so far.

    Attributes:
        faces: In order of time.
        times_s: When they were seen.
        looks: Mean of theirs.
        num_seen: How many sightings the mean is of.
    """

    faces: list[Face] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    looks: Floats = field(default_factory=lambda: np.zeros(80, np.float32))
    num_seen: int = 0

    def see(self, face: Face, time_s: float) -> None:
        """Add a sighting. Looks of long ago fade: light and clothes may change."""
        weight = 1 / min(self.num_seen + 1, 50)
        self.looks = (1 - weight) * self.looks + weight * face.looks
        self.num_seen += 1
        self.faces.append(face)
        self.times_s.append(time_s)

    def forget(self) -> None:
        """Keep the last sighting only."""
        del self.faces[:-1], self.times_s[:-1]

    @property
    def place(self) -> tuple[float, float, float]:
        """Median x, y and size, px."""
        return tuple(np.median([face[:3] for face in self.faces], axis=0).tolist())

    def cost(self, face: Face, time_s: float) -> float:
        """How little the face fits: by place, which counts less the longer ago it was known, by size and by looks."""
        last, gap_s = self.faces[-1], abs(time_s - self.times_s[-1])
        apart = face.distance(last.x, last.y) / (1 + gap_s)
        unlike = np.sqrt(max(0.0, 1 - float(self.looks @ face.looks) / float(np.linalg.norm(self.looks))))
        return float(min(apart, 4.0) / 2 + abs(np.log(face.size_px / last.size_px)) + 3 * unlike)


def match(people: Sequence[Person], faces: Sequence[Face], time_s: float) -> dict[int, int]:
    """Number of a face to number of the person it belongs to, cheapest first; faces of nobody known are left out."""
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
