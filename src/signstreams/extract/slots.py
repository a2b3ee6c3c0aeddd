"""Who is who in arrays of several people: detectors list the people of each frame in any order."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from signstreams.array_types import Floats, Ints

MAX_STEP = 3.0
"""Farthest that a person moves, or comes back after a gap, in half shoulder distances."""
MAX_WRIST_STEP = 1.0
"""Of one frame, in the same unit: a wrist that jumps farther is a wrong detection and counts as this much."""

Box = tuple[float, float, float, float]


@dataclass
class Person:
    """One person as followed over the video.

    Attributes:
        slots: Row to the slot that she has there.
        motion: Way of the wrists relative to the shoulders, summed over the video, in half shoulder distances.
    """

    slots: dict[int, int] = field(default_factory=dict)
    motion: float = 0.0
    _middle: Floats = field(default_factory=lambda: np.zeros(2))
    _wrists: Floats | None = None
    _last_row: int = -1

    def add(self, row: int, slot: int, middle: Floats, wrists: Floats, unit_px: float) -> None:
        """She is in this slot of this row: (2,) middle, (2, 2) wrists, NaN where missing."""
        wrists = (wrists - middle) / unit_px
        if self._wrists is not None and self._last_row == row - 1:
            way = np.linalg.norm(wrists - self._wrists, axis=-1)
            self.motion += float(np.minimum(way[~np.isnan(way)], MAX_WRIST_STEP).sum())
        self.slots[row], self._middle, self._wrists, self._last_row = slot, middle, wrists, row

    def distance(self, middle: Floats) -> float:
        """From where she was last."""
        return float(np.linalg.norm(middle - self._middle))

    def rows_inside(self, middles: Floats, box: Box) -> int:
        """Rows in which her (T, P, 2) middle lies in the box."""
        places = np.array([middles[row, slot] for row, slot in self.slots.items()])
        return int(((places >= box[:2]) & (places <= box[2:])).all(axis=-1).sum())


def follow(middles: Floats, wrists: Floats, units_px: Floats) -> list[Person]:
    """People by distance over time: in each row the nearest pairs of person and slot go together.

    Args:
        middles: (T, P, 2) middle of the shoulders, px; NaN where a slot is empty.
        wrists: (T, P, 2, 2) likewise.
        units_px: (T, P) half the shoulder distance.
    """
    people: list[Person] = []
    for row in range(len(middles)):
        free = [slot for slot in range(middles.shape[1]) if not np.isnan(middles[row, slot]).any()]
        pairs = sorted(
            (person.distance(middles[row, slot]) / units_px[row, slot], index, slot)
            for index, person in enumerate(people)
            for slot in free
        )
        taken: set[int] = set()
        for distance, index, slot in pairs:
            if distance > MAX_STEP:
                break
            if slot in free and index not in taken:
                people[index].add(row, slot, middles[row, slot], wrists[row, slot], units_px[row, slot])
                taken.add(index)
                free.remove(slot)
        for slot in free:
            people.append(Person())
            people[-1].add(row, slot, middles[row, slot], wrists[row, slot], units_px[row, slot])
    return people


def signer_slots(people: list[Person], middles: Floats, box: Box | None) -> Ints:
    """(T,) slot of the signer in each row, -1 where she is not: who is in the box most, else whose wrists move most."""
    slots = np.full(len(middles), -1)
    if people:
        chosen = max(people, key=lambda person: (person.rows_inside(middles, box) if box else 0, person.motion))
        slots[list(chosen.slots)] = list(chosen.slots.values())
    return slots
