"""A number that a spreadsheet mangled is never believed."""

from __future__ import annotations

import pytest

from signstreams.corpus.numbers import (
    Unit,
    all_have_decimal_commas,
    has_decimal_comma,
    is_clock_time,
    is_mangled,
    parse_number,
    parse_time_s,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("165.33", 165.33), (" 3 ", 3.0), ("1e-3", 0.001), (".5", 0.5), ("-2.", -2.0), ("4076.51", 4076.51)],
)
def test_plain_numbers_are_read(text: str, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "16.532.999.999.999.900",
        "1.001.233",
        "12,5",
        "1.234,5",
        "nan",
        "inf",
        "1e999",
        "abc",
        "0x10",
        "1_000",
        "١٢",
    ],
)
def test_everything_else_is_not(text: str) -> None:
    assert parse_number(text) is None


def test_a_single_group_is_doubted_only_beside_mangled_numbers() -> None:
    assert parse_number("1.234") == 1.234
    assert parse_number("1.234", grouped=True) is None
    for plain in ("1.23", "0.234", "1234.567", "12"):
        assert parse_number(plain, grouped=True) == float(plain)


def test_mangled_numbers_are_told_from_garbage() -> None:
    assert is_mangled("472.999.999.999.999")
    assert not any(map(is_mangled, ("1.234", "1.2.3", "1234.567.890", "a.bbb.ccc", "")))


def test_clock_times_and_decimal_commas_are_told_from_garbage() -> None:
    clocks = ("00:00:05", "1:05", "00:01:05.5", "0:00:05,32", "00:00:05:12")
    commas = ("0,08", "1.234,5", "-2,5", ",5", "1,234")
    assert all(map(is_clock_time, clocks)) and not any(map(is_clock_time, (*commas, "a:b", "5:", "1.5", "")))
    assert all(map(has_decimal_comma, commas)) and not any(map(has_decimal_comma, (*clocks, "1,2,3", "1.5", "x,5", "")))


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        *(("00:01:05.500", 65.5), ("01:05,250", 65.25), (" 1:00:00.001 ", 3600.001), ("100:00:00.000", 360000.0)),
        *(("65.5", 65.5), ("0:00.000", 0.0), ("00:00:59.999", 59.999)),
        *(("0:03,5", 3.5), ("01:05,25", 65.25), ("00:01:05,5", 65.5), ("0:00:01,5000", 1.5)),
        # an hour or a minute, frames or hundredths, and what no clock shows
        *((text, None) for text in ("01:05:00", "1:05", "00:01:05:12", "00:01:05.12", "00:01:05.5", "00:00:01.5000")),
        *((text, None) for text in ("00:60:00.000", "00:00:60.000", "-00:00:01.000", "00:00:01.٠٠٠", ":01.000")),
        *((text, None) for text in ("0:03,", "0:3,5", "0:60,5", "1,5:03", "0:03,5,5")),
    ],
)
def test_times_with_colons_are_read_with_milliseconds_or_after_a_comma_only(text: str, time_s: float | None) -> None:
    assert parse_time_s(text) == time_s
    assert ":" not in text or parse_number(text) is None


@pytest.mark.parametrize(
    ("numbers", "are_all"),
    [
        (["0,08", "12", "", "1,234"], True),
        (["1,234", "12,345"], False),  # may be thousands
        (["0,08", "1.5"], False),
        (["0,08", "16.532.999"], False),
        (["0,5", "1,234,567"], False),
        (["0,5", "00:00:05,5"], False),
        (["0,5", "1,25", "0.0"], True),  # a typed zero
        (["0,5", "1,25", "1.234,5"], False),
        (["5", ""], False),
    ],
)
def test_decimal_commas_are_believed_beyond_doubt_only(numbers: list[str], are_all: bool) -> None:
    assert all_have_decimal_commas(numbers) is are_all


def test_a_decimal_comma_is_read_where_the_table_has_them() -> None:
    assert [parse_number(text, comma=True) for text in ("0,08", "1,234", "12")] == [0.08, 1.234, 12.0]
    assert [parse_number(text, comma=True) for text in ("0.0", "1.5", "1.500")] == [0.0, 1.5, None]
    assert parse_number("0,08") is None


@pytest.mark.parametrize(
    ("text", "unit", "fps", "seconds"),
    [
        ("1500", "ms", None, 1.5),
        ("1500,5", "ms", None, 1.5005),
        ("00:00:01.500", "ms", None, 1.5),  # colons say what they are
        ("45", "frames", 30.0, 1.5),
        ("45", "frames", None, None),
        ("45", "frames", 0.0, None),
        ("1", "frames", 29.97, 0.033367),
        ("x", "ms", None, None),
    ],
)
def test_a_plain_time_has_the_unit_that_is_stated(
    text: str, unit: Unit, fps: float | None, seconds: float | None
) -> None:
    assert parse_time_s(text, comma="," in text, unit=unit, fps=fps) == seconds
