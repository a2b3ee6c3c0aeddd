"""A table of boxes or spans alone gives nothing to translate into."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.corpus.meta import has_texts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id;video;text\na;v;hola\n", True),
        ("id,video,texto\na,v, \nb,v,chau\n", True),
        ("id;video;text\na;v; \n", False),
        ("video_id;box\nv;0 0 9 9\n", False),
        ("", False),
        (None, False),
    ],
)
def test_a_text_is_looked_for_in_every_row(tmp_path: Path, content: str | None, expected: bool) -> None:
    if content is not None:
        (tmp_path / "meta.csv").write_text(content, encoding="utf-8")
    assert has_texts(tmp_path / "meta.csv") == expected
