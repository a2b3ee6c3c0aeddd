"""Numbers as spreadsheets write them: decimal commas, lost decimal points, times as hh:mm:ss, in ms or in frames.

A spreadsheet with Spanish settings reads the dot of ``165.32999999999998`` as a thousands separator and writes
``16.532.999.999.999.900``: the decimal point is lost and cannot be recovered (4.73 and 472.99 have the same digits).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Literal

Unit = Literal["s", "ms", "frames"]
"""Of a column of times. Frames count from 0: frame f begins at f / fps, and a span ends where its end frame begins."""
UNIT_SUFFIXES: dict[str, Unit] = {
    **dict.fromkeys(("_s", "_sec", "_seconds", "_ss.msec", "_hh:mm:ss.ms"), "s"),
    **dict.fromkeys(("_ms", "_msec", "_milliseconds"), "ms"),
    **dict.fromkeys(("_frame", "_frames"), "frames"),
}
"""End of a column's name to its unit; also those of ELAN's exports ("Begin Time - msec")."""

_PLAIN = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MANGLED = re.compile(r"[+-]?\d{1,3}(\.\d{3}){2,}", re.ASCII)
_ONE_GROUP = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_COMMA_GROUP = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_GROUPS_AND_COMMA = re.compile(r"[+-]?\d*(\.\d{3})*,\d+", re.ASCII)
_EXACT_CLOCK = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]\d(?:\.\d{3}|,\d+))", re.ASCII)
_CLOCK = re.compile(r"\d+(:\d{1,2}){1,3}([.,]\d+)?", re.ASCII)


def is_mangled(text: str) -> bool:
    """Whether ``text`` is a number cut into groups of three."""
    return _MANGLED.fullmatch(text.strip()) is not None


def is_clock_time(text: str) -> bool:
    """Whether ``text`` is a time such as ``00:01:05.500`` or ``1:05``; `parse_time_s` reads the former alone."""
    return _CLOCK.fullmatch(text.strip()) is not None


def has_decimal_comma(text: str) -> bool:
    """Whether ``text`` is a number such as ``0,08`` or ``1.234,5``."""
    return _GROUPS_AND_COMMA.fullmatch(text.strip()) is not None


def all_have_decimal_commas(texts: Iterable[str]) -> bool:
    """Whether the numbers of a table certainly have a decimal comma, as Spanish spreadsheets write them.

    That is when in at least one (``0,08``) the comma cannot precede a group of three digits, and a dot occurs only
    where it cannot either (a typed ``0.0``).
    """
    numbers = [text.strip() for text in texts]
    with_comma = [number for number in numbers if "," in number]
    with_dot = [number for number in numbers if "." in number]
    return (
        all(_COMMA.fullmatch(number) for number in with_comma)
        and any(not _COMMA_GROUP.fullmatch(number) for number in with_comma)
        and not any("," in number or is_mangled(number) for number in with_dot)
        and len(with_comma) > len(with_dot)
    )


def parse_number(text: str, *, grouped: bool = False, comma: bool = False) -> float | None:
    """The plain finite number in ``text``; None when it is empty, mangled or no number.

    In a ``grouped`` column, which holds mangled numbers, ``1.234`` may be 1,234 and is not read either. With ``comma``
    the table has decimal commas (`all_have_decimal_commas`).
    """
    text = text.strip()
    if (grouped or comma) and _ONE_GROUP.fullmatch(text):
        return None
    text = text.replace(",", ".") if comma else text
    if _PLAIN.fullmatch(text) is None:
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def parse_time_s(
    text: str, *, grouped: bool = False, comma: bool = False, unit: Unit = "s", fps: float | None = None
) -> float | None:
    """A time in s: a plain number, as `parse_number`, or ``hh:mm:ss.fff`` or ``mm:ss.fff``, or ``mm:ss,f``.

    The plain number has the ``unit``; None for frames without ``fps``.

    Colons count with three decimals, as ELAN, SubRip and WebVTT write them, or with any after a comma. Without, a
    spreadsheet took a typed ``1:05`` for an hour and five minutes and exported ``01:05:00``; two digits after a point
    may be frames, which nobody writes after a comma.
    """
    if (match := _EXACT_CLOCK.fullmatch(text.strip())) is None:
        number = parse_number(text, grouped=grouped, comma=comma)
        if number is None or unit == "s":
            return number
        if unit == "ms":
            return round(number / 1000, 6)
        return round(number / fps, 6) if fps else None
    hours, minutes, seconds = match.groups()
    return round(3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", ".")), 6)
