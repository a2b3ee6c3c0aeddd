"""Evenly spread places: which of many frames, crops or clips are shown or measured."""

from __future__ import annotations


def evenly_spread(count: int, among: int, *, with_ends: bool = False) -> list[int]:
    """``count`` of ``among`` places, rising and evenly spread; they repeat where ``count`` exceeds ``among``.

    Args:
        count: Places to give.
        among: Places there are, from 0 on.
        with_ends: Include the first and the last place. Otherwise each is in the middle of its part: at the ends of a
            clip hands rest.
    """
    if with_ends:
        step = (among - 1) / max(1, count - 1)
        return [round(part * step) for part in range(count)]
    return [(2 * part + 1) * among // (2 * count) for part in range(count)]
