"""Numbers of a table that a spreadsheet may have mangled.

A spreadsheet with Spanish settings reads the dot of ``165.32999999999998`` as a thousands separator and writes
``16.532.999.999.999.900``: the decimal point is gone, and no rule brings it back (4.73 and 472.99 share their digits).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MANGLED = re.compile(r"[+-]?\d{1,3}(\.\d{3}){2,}", re.ASCII)
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_COMMA_GROUP = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_GROUPS_AND_COMMA = re.compile(r"[+-]?\d*(\.\d{3})*,\d+", re.ASCII)
_CLOCK = re.compile(r"\d+(:\d{1,2}){1,3}([.,]\d+)?", re.ASCII)


def is_mangled(text: str) -> bool:
    """Whether ``text`` is a number cut into groups of three."""
    return _MANGLED.fullmatch(text.strip()) is not None


def is_clock_time(text: str) -> bool:
    """Whether ``text`` is a time such as ``00:01:05.5`` or ``1:05``.

    It is not read: a spreadsheet takes a typed ``1:05`` for an hour and five minutes, and exports ``01:05:00``.
    """
    return _CLOCK.fullmatch(text.strip()) is not None


def has_decimal_comma(text: str) -> bool:
    """Whether ``text`` is a number such as ``0,08`` or ``1.234,5``."""
    return _GROUPS_AND_COMMA.fullmatch(text.strip()) is not None


def all_have_decimal_commas(texts: Iterable[str]) -> bool:
    """Whether numbers of a table are written with a decimal comma, beyond doubt, as Spanish spreadsheets do.

    None holds a dot, and of one at least (``0,08``) the comma cannot stand before a group of three.
    """
    numbers = [text.strip() for text in texts]
    with_comma = [number for number in numbers if "," in number]
    return (
        all(_COMMA.fullmatch(number) for number in with_comma)
        and any(not _COMMA_GROUP.fullmatch(number) for number in with_comma)
        and not any("." in number for number in numbers)
    )


def parse_number(text: str, *, grouped: bool = False, comma: bool = False) -> float | None:
    """The plain finite number ``text`` holds; None when it is empty, mangled or no number.

    Args:
        text: Field of a table.
        grouped: The column holds mangled numbers: then ``1.234`` may be 1,234 and is not believed either.
        comma: The table has decimal commas (`all_have_decimal_commas`).
    """
    text = text.strip().replace(",", ".") if comma else text.strip()
    if _PLAIN.fullmatch(text) is None or (grouped and _ONE_GROUP.fullmatch(text)):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
