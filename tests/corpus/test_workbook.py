"""Excel sheets as texts; what is no workbook is said and takes no memory."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from signstreams.corpus import workbook
from signstreams.corpus.table import scan_table
from signstreams.corpus.workbook import read_workbook


def save(path: Path, **sheets: Any) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_cells_are_what_a_csv_of_the_sheet_would_hold(tmp_path: Path) -> None:
    row = (1, 2.0, 2.5, 165.33, True, None, " ñ ", "1:05")
    times = (
        datetime.time(0, 1, 5, 200_000),
        datetime.time(1, 5),
        datetime.timedelta(seconds=65, milliseconds=500),
        datetime.timedelta(hours=30),
    )
    found = read_workbook(save(tmp_path / "a.xlsx", one=[row, (), times]))
    assert found == [
        (1, ["1", "2", "2.5", "165.33", "true", "", " ñ ", "1:05"]),
        (3, ["00:01:05.200", "01:05:00", "00:01:05.500", "30:00:00", "", "", "", ""]),
    ]


def test_rows_are_as_long_as_the_longest_without_blanks_at_the_end(tmp_path: Path) -> None:
    found = read_workbook(save(tmp_path / "a.xlsx", one=[("a", "b", None), ("c",), (None, "d", None)]))
    assert found == [(1, ["a", "b"]), (2, ["c", ""]), (3, ["", "d"])]


def test_the_only_sheet_with_content_counts_and_of_several_the_named_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.xlsx", empty=[], data=[("x",)])
    assert read_workbook(path) == [(1, ["x"])]
    path = save(tmp_path / "b.xlsx", one=[("x",)], two=[("y",)])
    with pytest.raises(ValueError, match="several sheets, 'one', 'two'"):
        read_workbook(path)
    assert read_workbook(path, "two") == [(1, ["y"])]
    with pytest.raises(ValueError, match="no sheet 'three' among 'one', 'two'"):
        read_workbook(path, "three")


@pytest.mark.parametrize("content", [b"", b"a;b\n1;2\n", b"PK\x03\x04" + bytes(50)])
def test_other_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=r"no Excel workbook \(\.xlsx\)"):
        read_workbook(tmp_path / "a.xlsx")


def test_archives_of_another_kind_and_damaged_sheets_are_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as packed:
        packed.writestr("hola.txt", "hola")
    with pytest.raises(ValueError, match="a damaged Excel workbook"):
        read_workbook(tmp_path / "a.xlsx")
    whole = save(tmp_path / "b.xlsx", one=[("x",)])
    with zipfile.ZipFile(whole) as packed, zipfile.ZipFile(tmp_path / "c.xlsx", "w") as broken:
        for name in packed.namelist():
            content = packed.read(name)
            broken.writestr(name, content[: len(content) // 2] if "sheet1" in name else content)
    with pytest.raises(ValueError, match="a damaged Excel workbook"):
        read_workbook(tmp_path / "c.xlsx")


def test_a_workbook_that_would_fill_the_memory_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.xlsx", one=[("x" * 1000,)] * 2000)
    monkeypatch.setattr(workbook, "MAX_BYTES", 2**20)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match=r"a workbook of \d MiB unpacked, at most 1 MiB are read"):
        read_workbook(path)


def test_a_sheet_is_a_table_with_the_rows_of_the_sheet(tmp_path: Path) -> None:
    path = save(tmp_path / "a.xlsx", one=[("ID", " Text "), (1, "hola"), (), ("b", "adiós")])
    table = scan_table(path, ("id", "text"), "a.xlsx", holds="clips")
    assert table.rows == [(2, {"id": "1", "text": "hola"}), (4, {"id": "b", "text": "adiós"})]
    assert table.issues == []


def test_a_whole_second_below_milliseconds_is_a_time_with_milliseconds(tmp_path: Path) -> None:
    """That the colons of a column count seconds is sure as soon as one of its times has milliseconds."""
    rows = [("inicio", "fin"), (datetime.time(0, 0, 1, 500_000), datetime.time(1, 5)), (datetime.time(0, 0, 2), None)]
    found = read_workbook(save(tmp_path / "a.xlsx", one=rows))
    assert [cells for _, cells in found[1:]] == [["00:00:01.500", "01:05:00"], ["00:00:02.000", ""]]
