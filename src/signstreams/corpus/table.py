"""Read a CSV table of unknown delimiter, encoding and line ends, report its faults by row, and parse its numbers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import Finding, Rule, few
from signstreams.errors import UserError

DELIMITERS = (";", ",")

READABLE = Rule("table.encoding", "error", "text in UTF-8, with or without BOM")
COLUMNS = Rule("table.columns", "error", "one column of each meaning")
RAGGED = Rule("table.ragged", "error", "as many fields as the header has")
TABLE_RULES = (READABLE, COLUMNS, RAGGED)
ID_COLUMNS = ("clip_id", "id", "video_id")
"""Columns that may hold the clip's id, in meta.csv and gloss.csv; the first one present does."""


@dataclass
class Table:
    """Rows of one file."""

    columns: list[str] = field(default_factory=list)  # header names, lower case, without blanks around them
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Row number (the header is 1) and fields by column; ragged rows are left out and reported."""
    issues: list[Finding] = field(default_factory=list)  # findings
    delimiter: str = DELIMITERS[0]  # character between fields


def scan_table(path: Path, known: Collection[str], name: str, *, holds: str) -> Table:
    """Read ``path``; faults of its content become issues, with ``name`` as their file, and raise nothing.

    The delimiter is the one that separates most of the ``known`` column names. A file that is absent or cannot be read
    is a `UserError`, which says what it ``holds``.
    """
    table = Table()
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected a table of {holds}") from None
    except ValueError as error:
        table.issues.append(READABLE.breach(name, str(error), "save the file again as UTF-8"))
        return table
    table.delimiter = delimiter = _delimiter(text, known)
    records = _records(text, delimiter, name, table.issues)
    header = next(records, (1, []))[1]
    table.columns = [column.strip().lower() for column in header]
    twins = sorted({column for column in table.columns if column and table.columns.count(column) > 1})
    if twins:
        found = f"the column {few(twins)} occurs more than once"
        table.issues.append(COLUMNS.breach(name, found, "rename or remove one of them"))
    for row, fields in records:
        if not any(text.strip() for text in fields):
            continue
        if len(fields) != len(header):
            found = f"{len(fields)} fields under a header of {len(header)}"
            fix = f"put double quotes around a text that holds '{delimiter}', a quote or a line break"
            table.issues.append(RAGGED.breach(name, found, fix, row=row))
            continue
        table.rows.append((row, dict(zip(table.columns, fields, strict=True))))
    return table


def decode_text(data: bytes) -> str:
    """UTF-8 text without BOM.

    Raises:
        ValueError: It is not UTF-8; the message says where, and which encoding it may be.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("UTF-16 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"the byte 0x{data[error.start]:02x} in line {line} is not UTF-8 (Latin-1 or Windows-1252, probably)"
        ) from None


def _delimiter(text: str, known: Collection[str]) -> str:
    first_line = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader([first_line], delimiter=delimiter), [])
        except csv.Error:  # a field beyond csv's limit: `_records` reports it
            return 0, 0
        return sum(column.strip().lower() in known for column in header), len(header)

    return max(DELIMITERS, key=score)


def _records(text: str, delimiter: str, name: str, issues: list[Finding]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    row = 0
    try:
        for row, fields in enumerate(reader, start=1):
            yield row, fields
    except csv.Error as error:  # a field beyond csv's limit: a quote that is never closed
        issues.append(RAGGED.breach(name, str(error), "close the double quote that opens there", row=row + 1))


# -- Numbers that a spreadsheet may have mangled
#
# A spreadsheet with Spanish settings reads the dot of ``165.32999999999998`` as a thousands separator and writes
# ``16.532.999.999.999.900``: the decimal point is lost and cannot be recovered (4.73 and 472.99 have the same digits).

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
    """Whether the numbers of a table certainly have a decimal comma, as Spanish spreadsheets write them.

    That is when none holds a dot, and in at least one (``0,08``) the comma cannot precede a group of three digits.
    """
    numbers = [text.strip() for text in texts]
    with_comma = [number for number in numbers if "," in number]
    return (
        all(_COMMA.fullmatch(number) for number in with_comma)
        and any(not _COMMA_GROUP.fullmatch(number) for number in with_comma)
        and not any("." in number for number in numbers)
    )


def parse_number(text: str, *, grouped: bool = False, comma: bool = False) -> float | None:
    """The plain finite number in ``text``; None when it is empty, mangled or no number.

    In a ``grouped`` column, which holds mangled numbers, ``1.234`` may be 1,234 and is not read either. With ``comma``
    the table has decimal commas (`all_have_decimal_commas`).
    """
    text = text.strip().replace(",", ".") if comma else text.strip()
    if _PLAIN.fullmatch(text) is None or (grouped and _ONE_GROUP.fullmatch(text)):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
