"""The part of a picture that belongs to one person, and what to blank in it of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from signstreams.array_types import Pixels
from signstreams.extract.people import Face

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in px."""

REACH_X, REACH_UP, REACH_DOWN = 4.0, 2.2, 6.5
"""How far the region reaches from the middle of the face, in sides of the face box: 7 head units to the sides and 7.7
in height, a little more than the signing space, and up to where raised hands go."""
SHARE_OF_GAP = 0.65
"""Of the gap between two faces side by side, what belongs to the signer: hands reach further out than those of somebody
who stands by."""
MUCH_SMALLER = 0.6
"""Somebody whose face is smaller than this share of the signer's stands behind: of these only the head is blanked."""
_GREY = 112


def signing_box(face: Face, others: Iterable[Face], width_px: int, height_px: int) -> Box:
    """The signer's part of the frame: the signing space around the face, up to the people beside."""
    x0, x1 = face.x - REACH_X * face.size_px, face.x + REACH_X * face.size_px
    for other in others:
        edge = _edge(face, other)
        if edge is not None:
            x0, x1 = (max(x0, edge), x1) if other.x < face.x else (x0, min(x1, edge))
    y0, y1 = face.y - REACH_UP * face.size_px, face.y + REACH_DOWN * face.size_px
    return (
        max(0, int(x0)),
        max(0, int(y0)),
        min(width_px, int(np.ceil(x1))),
        min(height_px, int(np.ceil(y1))),
    )


def union(boxes: Sequence[Box]) -> Box:
    """The box around boxes."""
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    return int(low[0]), int(low[1]), int(high[2]), int(high[3])


def blank_others(part: Pixels, corner: tuple[int, int], face: Face, others: Iterable[Face]) -> Pixels:
    """Grey out, in place, what belongs to people other than the signer.

    Args:
        part: (H, W, 3) a part of the frame.
        corner: Its x0, y0 in the frame, px.
        face: The signer's.
        others: Faces of everybody else.

    Returns:
        part
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
    """x of the line between the signer and somebody beside; None for somebody in front, above or behind."""
    if other.size_px < MUCH_SMALLER * face.size_px:
        return None
    gap = abs(face.x - other.x) - (face.size_px + other.size_px) / 2
    if gap < 0.25 * face.size_px:
        return None
    return face.x + float(np.sign(other.x - face.x)) * (face.size_px / 2 + SHARE_OF_GAP * gap)


def _blank_head(part: Pixels, corner: tuple[int, int], face: Face, other: Face) -> None:
    """The other's head; but nothing of the signer's."""
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
