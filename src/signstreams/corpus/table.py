"""Read a table, CSV of unknown delimiter, encoding and line ends or an Excel sheet, and report its faults by row."""

from __future__ import annotations

import codecs
import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from signstreams.corpus.findings import Finding, Rule, few
from signstreams.corpus.workbook import read_workbook
from signstreams.errors import UserError
from signstreams.ids import composed, shown

DELIMITERS = (";", ",", "\t", "|")
MAX_COLUMNS = 1000  # no corpus has more; a file of another kind may have a million

READABLE = Rule("table.encoding", "error", "text in UTF-8, with or without BOM")
CONVERTED = Rule("table.converted", "warning", "text in UTF-8")
COLUMNS = Rule("table.columns", "error", "one column of each meaning")
RAGGED = Rule("table.ragged", "error", "as many fields as the header has")
QUOTES = Rule("table.quotes", "error", "each double quote that opens a field closed at the end of that field")
CONTROL = Rule("table.control", "error", "text without control characters")
TABLE_RULES = (READABLE, CONVERTED, COLUMNS, RAGGED, QUOTES, CONTROL)
ID_COLUMNS = ("clip_id", "id", "video_id")
"""Columns that may hold the clip's id, in meta.csv and gloss.csv; the first one present does."""


@dataclass
class Table:
    """Rows of one file, composed (NFC): macOS and some keyboards write accents as characters of their own."""

    columns: list[str] = field(default_factory=list)  # header names, lower case, without blanks around them
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Row number (the header is 1) and fields by column; ragged rows are left out and reported."""
    issues: list[Finding] = field(default_factory=list)  # findings
    delimiter: str = DELIMITERS[0]  # character between fields


def scan_table(path: Path, known: Collection[str], name: str, *, holds: str, sheet: str | None = None) -> Table:
    """Read ``path``; faults of its content become issues, with ``name`` as their file, and raise nothing.

    The delimiter is the one that separates most of the ``known`` column names, or the one of a first line ``sep=;``. Of
    an Excel workbook (.xlsx) it is the ``sheet``, or its only one. A file that is absent or cannot be read is a
    `UserError`, which says what it ``holds``.
    """
    table = Table()
    is_workbook = path.suffix.lower() == ".xlsx"
    try:
        if is_workbook:
            records = iter(read_workbook(path, sheet))
        else:
            text, encoding = decode_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}, expected a table of {holds}") from None
    except ValueError as error:
        fix = "save the file again as UTF-8"
        if is_workbook:
            fix = "name the sheet, or save it as CSV"
        elif isinstance(error, _WorkbookError):
            fix = "in Excel, save it as CSV UTF-8; an import also reads .xlsx"
        expects = "one sheet of an Excel workbook" if is_workbook else None
        table.issues.append(READABLE.breach(name, str(error), fix, expects=expects))
        return table
    if not is_workbook:
        if encoding:
            fix = "check a text with accents, then save the file again as UTF-8"
            table.issues.append(CONVERTED.breach(name, f"{encoding}, read as such", fix))
        text, delimiter = _split_off_separator(text)
        table.delimiter = delimiter or _delimiter(text, known)
        records = _records(text, table.delimiter, name, table.issues)
    header = next(records, (1, []))[1]
    if len(header) > MAX_COLUMNS:
        found = f"a header of {len(header):,} columns"
        table.issues.append(COLUMNS.breach(name, found, f"remove what is no table of {holds}", expects="some columns"))
        return table
    table.columns = [column.strip().lower() for column in header]
    twins = sorted(column for column, count in Counter(table.columns).items() if column and count > 1)
    if twins:
        found = f"the column {few(twins)} occurs more than once"
        table.issues.append(COLUMNS.breach(name, found, "rename or remove one of them"))
    for row, fields in records:
        if not any(text.strip() for text in fields):
            continue
        if len(fields) != len(header):
            found = f"{len(fields):,} fields under a header of {len(header)}"
            fix = f"put double quotes around a text that holds {shown(table.delimiter)}, a quote or a line break"
            table.issues.append(RAGGED.breach(name, found, fix, row=row))
            continue
        table.rows.append((row, dict(zip(table.columns, fields, strict=True))))
        content = "".join(text for column, text in table.rows[-1][1].items() if column not in ID_COLUMNS)
        if (bad := CONTROL_CHARACTERS.search(content)) is not None:
            found = f"the control character U+{ord(bad[0]):04X}"
            fix = "write the letter that was meant; a file of Windows-1252 that was converted as Latin-1 holds these"
            table.issues.append(CONTROL.breach(name, found, fix, row=row))
    return table


def resembling(column: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``column`` is probably a misspelling of."""
    return next(iter(difflib.get_close_matches(column, list(names), 1, 0.7)), None)


# -- Encodings

CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# What a western text in Windows-1252 does not hold: another encoding was meant. Mac Roman has letters where that has
# punctuation and capitals; Cyrillic, Greek and Central European encodings have many such letters in a row.
_NOT_WESTERN = re.compile(
    r"[^\x00-\x7fÀ-ÖØ-öø-ÿŒœŠšŸŽžƒ\xa0¡¿«»‹›‘’‚“”„–—…•·ªº°§€£©®™´¨½¼¾²³¹]"
    r"|[a-z][–—…“”„‘‚•·°§€£©®™´¨½¼¾²³¹«»‹›¿¡][a-z]|[a-z][ŠŽŒŸ]|[À-ÖØ-öø-ÿŒœŠšŸŽžƒ]{3}"
)


class _WorkbookError(ValueError):
    """A workbook whose name does not end in .xlsx."""


def decode_text(data: bytes) -> tuple[str, str | None]:
    """Text without BOM, composed (NFC), and its encoding where that is not UTF-8.

    UTF-16 is read where a BOM or the zeros between the first letters say so, and Windows-1252, the default of Excel,
    where no byte beyond ASCII can be part of UTF-8 and all are letters and punctuation of a western text in it.

    Raises:
        ValueError: It is another kind of file, or its encoding is not beyond doubt; the message says where.
    """
    if data.startswith(b"PK\x03\x04"):
        raise _WorkbookError("an Excel or LibreOffice workbook, no CSV file")
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise _WorkbookError("an old Excel workbook, no CSV file")
    text, encoding = _decode(data)
    return composed(text), encoding


def _decode(data: bytes) -> tuple[str, str | None]:
    utf_16 = (("utf-16-le", codecs.BOM_UTF16_LE, data[1:8:2]), ("utf-16-be", codecs.BOM_UTF16_BE, data[:8:2]))
    for codec, bom, high_bytes in utf_16:
        if data.startswith(bom) or (high_bytes == bytes(4)):
            try:
                return data.decode(codec).removeprefix("\ufeff"), "UTF-16 text"
            except UnicodeDecodeError as error:
                raise ValueError(f"damaged UTF-16 text (byte {error.start:,})") from None
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{data[error.start]:02x} in line {line} is not UTF-8"
    if re.search(r"[^\x00-\x7f\udc80-\udcff]", data.decode("utf-8", "surrogateescape")):
        raise ValueError(f"{found}, though other letters are")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise ValueError(f"{found}, nor Windows-1252") from None
    if (odd := _NOT_WESTERN.search(text)) is not None:
        raise ValueError(f"{found}; as Windows-1252 there would be {shown(odd[0])}")
    return text, "Windows-1252 text"


# -- Records


def _split_off_separator(text: str) -> tuple[str, str | None]:
    """The table below a first line ``sep=;``, which tells Excel the delimiter, and that delimiter."""
    match = re.match(r'"?sep=(.)"? *(?:\r\n|\n|\r)', text, re.IGNORECASE)
    return (text, None) if match is None else (text[match.end() :], match[1])


def _delimiter(text: str, known: Collection[str]) -> str:
    first_line = next((line for line in text[: 1 << 16].splitlines() if line), "")

    def score(delimiter: str) -> tuple[int, int]:
        header = [column.strip(' "').lower() for column in first_line.split(delimiter)]
        return sum(column in known for column in header), len(header)

    return max(DELIMITERS, key=score)


def _records(text: str, delimiter: str, name: str, issues: list[Finding]) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each record, also of empty lines.

    A field that begins with a double quote ends with the next one that stands before a delimiter or the end of a line
    (RFC 4180). One with other text behind a closed quote, such as ``"hola" dijo``, is taken as it is written. A quote
    that is never closed, or closed in a later row, would swallow what is in between: it is reported and taken as text.
    """
    end_of_line = re.compile(r"\r\n|\n|\r|\Z")
    quoted = re.compile(rf'"([^"]*+(?:""[^"]*+)*+)" *(?={re.escape(delimiter)}|[\r\n]|\Z)')
    row, place, num_columns = 0, 0, 0
    while place < len(text):
        row += 1
        start, end = place, _end(end_of_line, text, place)
        fields: list[str] = []
        while True:
            field_end = text.find(delimiter, place, end.start())
            field_end = end.start() if field_end < 0 else field_end
            content = text[place:field_end]
            if content.startswith('"'):
                match = quoted.match(text, place)
                if match is not None and match.end() > end.start():  # over several lines
                    last = _end(end_of_line, text, match.end())
                    if _are_rows(text[start : last.start()], delimiter, num_columns):
                        match = None
                    else:
                        end = last
                if match is not None:
                    content, field_end = match[1].replace('""', '"'), match.end()
                elif content.count('"') % 2:
                    found = f"the double quote before {shown(content[1:31])} is not closed in this row"
                    fix = "close it, or write a text that begins with a quote in quotes, its own doubled"
                    issues.append(QUOTES.breach(name, found, fix, row=row))
            fields.append(content)
            if field_end == end.start():
                break
            place = field_end + len(delimiter)
        place = end.end()
        num_columns = num_columns or len(fields)
        yield row, [] if fields == [""] else fields


def _end(end_of_line: re.Pattern[str], text: str, place: int) -> re.Match[str]:
    match = end_of_line.search(text, place)
    assert match is not None  # the end of the text is one
    return match


def _are_rows(lines: str, delimiter: str, num_columns: int) -> bool:
    """Whether lines that one quoted field joins read as rows of the table each, so that its quote is not meant to."""
    return (
        num_columns > 1
        and f"{delimiter} " not in lines  # running text
        and all(line.count(delimiter) == num_columns - 1 for line in lines.splitlines())
    )
