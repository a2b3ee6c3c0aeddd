"""Rows of an Excel sheet (.xlsx) as texts, as the same table saved as CSV would have them."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from typing import Any

from signstreams.corpus.findings import few_ids
from signstreams.ids import composed, shown

MAX_BYTES = 2**29  # unpacked: a workbook of a million rows has about 200 MB; a file made to fill the memory has more


def read_workbook(path: Path, sheet: str | None = None) -> list[tuple[int, list[str]]]:
    """Number (from 1) and cells of each row that is not empty, all of the same length.

    ``sheet`` may be left out where one sheet alone holds anything. Numbers have a decimal point, whole ones none; times
    are ``hh:mm:ss``, with milliseconds where their column has some; a formula counts with the value that Excel saved.

    Raises:
        ValueError: It is no workbook, or its sheet is not clear; the message says what is there.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except zipfile.BadZipFile:
        raise ValueError("no Excel workbook (.xlsx)") from None
    if size > MAX_BYTES:
        raise ValueError(f"a workbook of {size >> 20:,} MiB unpacked, at most {MAX_BYTES >> 20} MiB are read")
    import openpyxl

    with path.open("rb") as file:  # an open workbook keeps its file, and so does a failed one
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheets = {name: _rows(book[name]) for name in book.sheetnames if hasattr(book[name], "iter_rows")}
        except OSError:
            raise
        except Exception as error:  # openpyxl and its XML reader raise what they meet: KeyError, ParseError, TypeError
            raise ValueError(f"a damaged Excel workbook ({type(error).__name__}: {error})"[:200]) from None
    if sheet is not None:
        if sheet not in sheets:
            raise ValueError(f"no sheet {shown(sheet)} among {few_ids(sheets)}")
        return sheets[sheet]
    filled = [name for name, rows in sheets.items() if rows]
    if len(filled) > 1:
        raise ValueError(f"several sheets, {few_ids(filled)}; it is not said which one counts")
    return sheets[filled[0]] if filled else []


_CLOCKS = (datetime.time, datetime.timedelta)


def _rows(sheet: Any) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    clocks: set[tuple[int, int]] = set()
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        texts = [_text(cell) for cell in cells]
        if any(text.strip() for text in texts):
            rows.append((number, texts))
            clocks |= {(len(rows) - 1, n) for n, cell in enumerate(cells) if isinstance(cell, _CLOCKS)}
    with_ms = {column for row, column in clocks if "." in rows[row][1][column]}
    for row, column in clocks:  # 00:00:02 below 00:00:01.500 is 2 s, as typed
        if column in with_ms and "." not in rows[row][1][column]:
            rows[row][1][column] += ".000"
    width = max((len(texts) - _num_trailing_blanks(texts) for _, texts in rows), default=0)
    return [(number, (texts + [""] * width)[:width]) for number, texts in rows]


def _num_trailing_blanks(texts: list[str]) -> int:
    return next((count for count, text in enumerate(reversed(texts)) if text), len(texts))


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, datetime.timedelta):
        return _clock(cell // datetime.timedelta(microseconds=1))
    if isinstance(cell, datetime.time):
        return _clock(((cell.hour * 60 + cell.minute) * 60 + cell.second) * 1_000_000 + cell.microsecond)
    return composed(str(cell))


def _clock(microseconds: int) -> str:
    """``hh:mm:ss``, with three decimals where there are any: only then is it sure that the colons count seconds."""
    milliseconds = round(microseconds / 1000)
    seconds, rest = divmod(milliseconds, 1000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{rest:03}" if rest else text
