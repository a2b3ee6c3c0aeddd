"""Histograms: counted once for the report, drawn as inline SVG for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

NUM_BARS = 24
_WIDTH, _HEIGHT, _BASE = 320, 120, 98


def histogram(values: Sequence[float]) -> dict[str, Any]:
    """Counts over equal steps from the least to the greatest value, as plain data.

    Returns:
        ``count``, ``least``, ``median``, ``greatest`` and ``counts`` (at most `NUM_BARS`); without values ``count``.
    """
    if not len(values):
        return {"count": 0}
    array = np.asarray(values, float)
    least, greatest = float(array.min()), float(array.max())
    bars = NUM_BARS if greatest > least else 1
    counts, _ = np.histogram(array, bins=bars, range=(least, greatest) if bars > 1 else (least - 0.5, least + 0.5))
    return {
        "count": len(array),
        "least": round(least, 4),
        "median": round(float(np.median(array)), 4),
        "greatest": round(greatest, 4),
        "counts": counts.tolist(),
    }


def draw(title: str, unit: str, data: Mapping[str, Any]) -> str:
    """A figure with one histogram; a line of text when all values are the same, nothing when there are none."""
    if not data.get("count"):
        return ""
    least, median, greatest = (data[name] for name in ("least", "median", "greatest"))
    if least == greatest:
        same = escape(f"all {data['count']:,}: {_number(least)} {unit}")
        body = f'<p class="same">{same}</p>'
        return f"<figure><figcaption>{escape(title)}</figcaption>{body}</figure>"
    counts, most = data["counts"], max(data["counts"])
    step = _WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{place * step + 0.5:.1f}" y="{_BASE - 90 * count / most:.1f}" width="{step - 1:.1f}" '
        f'height="{90 * count / most:.1f}"><title>{_range(least, greatest, len(counts), place, unit)}: {count:,}'
        "</title></rect>"
        for place, count in enumerate(counts)
        if count
    )
    at = (median - least) / (greatest - least) * _WIDTH
    anchor = "start" if at < 40 else "end" if at > _WIDTH - 40 else "middle"
    labels = (
        f'<text x="0" y="{_HEIGHT - 4}">{_number(least)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{_number(greatest)} {escape(unit)}</text>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{_BASE}"/>'
        f'<text class="median" x="{at:.1f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">'
        + ("" if at < 60 or at > _WIDTH - 80 else f"median {_number(median)}")
        + "</text>"
    )
    caption = f'{escape(title)} <span class="soft">median {_number(median)} {escape(unit)}</span>'
    return (
        f'<figure><figcaption>{caption}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{bars}{labels}</svg></figure>'
    )


def _range(least: float, greatest: float, bars: int, place: int, unit: str) -> str:
    step = (greatest - least) / bars
    return escape(f"{_number(least + place * step)} to {_number(least + (place + 1) * step)} {unit}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
