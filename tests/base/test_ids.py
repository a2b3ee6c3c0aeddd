"""Ids that stay in their folder, whatever a table holds."""

from __future__ import annotations

import pytest

from signstreams.ids import check_id, shown


@pytest.mark.parametrize(
    "bad", ["", " a", "../x", "/etc", "a/b", "a\\b", "..", ".hidden", "a\0b", "a\nb", "a\u2028b", "x" * 201]
)
def test_an_id_that_could_leave_its_folder_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|separator|dot|control|long"):
        check_id(bad)


def test_an_id_with_spaces_quotes_and_accents_is_fine() -> None:
    text = 'señas d\'ayer "1" $(x)'
    assert check_id(text) == text
    assert shown("a\nb") == r"'a\nb'"
