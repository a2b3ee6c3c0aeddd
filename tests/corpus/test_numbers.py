"""A number that a spreadsheet mangled is never believed."""

from __future__ import annotations

import pytest

from signstreams.corpus.numbers import is_mangled, parse_number


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
