"""Read a CSV table of unknown delimiter, encoding and column names, and report what is wrong with it row by row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import Finding, Rule, few

# Numbers of a table that a spreadsheet may have mangled.
#
# A spreadsheet with Spanish settings reads the dot of ``165.32999999999998`` as a thousands separator and writes
# ``16.532.999.999.999.900``: the decimal point is gone, and no rule brings it back (4.73 and 472.99 share their digits).

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


# Read a CSV of unknown delimiter, encoding mark and line ends, and say what is wrong with it row by row.

DELIMITERS = (";", ",")

READABLE = Rule("table.encoding", "error", "text in UTF-8, with or without BOM")
COLUMNS = Rule("table.columns", "error", "one column of each meaning")
RAGGED = Rule("table.ragged", "error", "as many fields as the header has")
TABLE_RULES = (READABLE, COLUMNS, RAGGED)


@dataclass
class Table:
    """Rows of one file.

    Attributes:
        columns: Header names, lower case, without blanks around them.
        rows: Row number (the header is 1) and fields by column; ragged rows are left out and reported.
        issues: What is wrong.
        delimiter: What stands between fields.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    issues: list[Finding] = field(default_factory=list)
    delimiter: str = DELIMITERS[0]


def scan_table(path: Path, known: Collection[str], name: str) -> Table:
    """Read ``path``; content that is wrong becomes an issue, never an exception.

    Args:
        path: File to read.
        known: Column names one would expect; the delimiter is the one that shows most of them.
        name: What findings call the file.

    Raises:
        FileNotFoundError: When it is absent.
    """
    table = Table()
    text = _decode(path.read_bytes(), name, table.issues)
    if text is None:
        return table
    table.delimiter = delimiter = _delimiter(text, known)
    records = _records(text, delimiter, name, table.issues)
    header = next(records, (1, []))[1]
    table.columns = [column.strip().lower() for column in header]
    twins = sorted({column for column in table.columns if column and table.columns.count(column) > 1})
    if twins:
        table.issues.append(
            COLUMNS.breach(name, f"the column {few(twins)} is there more than once", "rename or remove one of them")
        )
    for row, fields in records:
        if not any(text.strip() for text in fields):
            continue
        if len(fields) != len(header):
            table.issues.append(
                RAGGED.breach(
                    name,
                    f"{len(fields)} fields under a header of {len(header)}",
                    f"put double quotes around a text that holds '{delimiter}', a quote or a line break",
                    row=row,
                )
            )
            continue
        table.rows.append((row, dict(zip(table.columns, fields, strict=True))))
    return table


def decode_text(data: bytes) -> str:
    """UTF-8 text, BOM taken off.

    Raises:
        ValueError: Saying where it is not UTF-8 and what it looks like.
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


def _decode(data: bytes, name: str, issues: list[Finding]) -> str | None:
    try:
        return decode_text(data)
    except ValueError as error:
        issues.append(READABLE.breach(name, str(error), "save the file again as UTF-8"))
        return None


def _delimiter(text: str, known: Collection[str]) -> str:
    first_line = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""

    def score(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader([first_line], delimiter=delimiter), [])
        except csv.Error:  # a field beyond csv's limit: `_records` says so
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
        issues.append(RAGGED.breach(name, f"{error}", "close the double quote that opens there", row=row + 1))


# Which column of a meta.csv means what: aliases, and precedence where several could be the clip's id.

ID_COLUMNS = ("clip_id", "id", "video_id")
"""Columns that may hold the clip's id; the first that is there does. What the others then mean: `resolve_columns`."""
TEXT_COLUMNS = ("text", "texto")
OTHER_COLUMNS = ("video", "start", "end", "duration", "fps", "frame_count", "signer", "split", "box")
KNOWN_COLUMNS = (*ID_COLUMNS, *TEXT_COLUMNS, *OTHER_COLUMNS)

ID_COLUMN = Rule("meta.id_column", "error", f"a column with the clip's id: {', '.join(ID_COLUMNS)}")
UNUSED = Rule("meta.unused_column", "info", f"only the columns {', '.join(KNOWN_COLUMNS)}")
COLUMN_RULES = (ID_COLUMN, UNUSED)


def resolve_columns(columns: list[str], name: str) -> tuple[dict[str, str], list[Finding]]:
    """Meaning (``clip_id``, ``video``, ``text``, ``start``, ...) to the column that holds it.

    The clip's id is in ``clip_id``, else ``id``, else ``video_id``. When ``video_id`` is not the clip's id and there is
    no ``video``, it names the video. Without either the clip's own id is the video's.

    Returns:
        The mapping, empty when no column holds an id; and what to tell.
    """
    clip_column = next((column for column in ID_COLUMNS if column in columns), None)
    if clip_column is None:
        found = f"the columns {few([repr(column) for column in columns], 20)}" if columns else "no header"
        return {}, [ID_COLUMN.breach(name, found, "rename the column that holds the ids")]
    used = {"clip_id": clip_column}
    issues = []
    texts = [column for column in TEXT_COLUMNS if column in columns]
    if len(texts) > 1:
        issues.append(COLUMNS.breach(name, f"both {few(texts)} hold the text", "remove one of them"))
    if texts:
        used["text"] = texts[0]
    used |= {column: column for column in OTHER_COLUMNS if column in columns}
    if "video" not in used and clip_column != "video_id" and "video_id" in columns:
        used["video"] = "video_id"
    unused = [column for column in columns if column not in used.values()]
    if unused:
        issues.append(UNUSED.breach(name, f"the columns {few(unused, 20)}, which are not read", "nothing need be done"))
    return used, issues
