"""A corpus folder to fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.formats.layout import CorpusLayout


@pytest.fixture
def corpus_with(tmp_path: Path) -> Callable[..., CorpusLayout]:
    """Make a corpus of (empty) video files and, if given, the text of meta.csv."""

    def make(*video_names: str, meta: str | None = None) -> CorpusLayout:
        layout = CorpusLayout(tmp_path / "corpus")
        layout.videos.mkdir(parents=True, exist_ok=True)
        for name in video_names:
            (layout.videos / name).touch()
        if meta is not None:
            layout.meta.write_text(meta, encoding="utf-8")
        return layout

    return make
