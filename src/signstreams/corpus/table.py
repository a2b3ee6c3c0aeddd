"""Read a CSV of unknown delimiter, encoding mark and line ends, and say what is wrong with it row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import Finding, Rule, few

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
