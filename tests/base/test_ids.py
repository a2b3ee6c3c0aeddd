"""Ids that stay in their folder, whatever a table holds."""

from __future__ import annotations

import pytest

from signstreams.ids import check_id, printable, shown

ODD = "\x1b[2J\r\n\t\x9b1m\u202e\u2028\udcff"


@pytest.mark.parametrize(
    "bad", ["", " a", "../x", "/etc", "a/b", "a\\b", "..", ".hidden", "a\0b", "a\nb", "a\u2028b", "x" * 201]
)
def test_an_id_that_could_leave_its_folder_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|separator|dot|control|long"):
        check_id(bad)


def test_an_id_with_spaces_quotes_and_accents_is_fine() -> None:
    text = 'señas d\'ayer "1" $(x)'
    assert check_id(text) == text
    assert shown("a\nñ") == r"'a\nñ'"


def test_what_steers_a_terminal_is_escaped_and_letters_stay() -> None:
    assert printable("señas·años 年 'x'") == "señas·años 年 'x'"
    assert printable(ODD) == r"\x1b[2J\r\n\t\x9b1m\u202e\u2028\udcff"
