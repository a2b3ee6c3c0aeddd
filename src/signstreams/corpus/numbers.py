"""Numbers of a table that a spreadsheet may have mangled.

A spreadsheet with Spanish settings reads the dot of ``165.32999999999998`` as a thousands separator and writes
``16.532.999.999.999.900``: the decimal point is gone, and no rule brings it back (4.73 and 472.99 share their digits).
"""

from __future__ import annotations

import math
import re

_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MANGLED = re.compile(r"[+-]?\d{1,3}(\.\d{3}){2,}", re.ASCII)
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)


def is_mangled(text: str) -> bool:
    """Whether ``text`` is a number cut into groups of three."""
    return _MANGLED.fullmatch(text.strip()) is not None


def parse_number(text: str, *, grouped: bool = False) -> float | None:
    """The plain finite number ``text`` holds; None when it is empty, mangled or no number.

    Args:
        text: Field of a table.
        grouped: The column holds mangled numbers: then ``1.234`` may be 1,234 and is not believed either.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text) is None or (grouped and _ONE_GROUP.fullmatch(text)):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
