"""Which videos are translated, and what is left of each one. tests/workflow/test_chain.py translates for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.formats.layout import CorpusLayout
from signstreams.translate import list_videos, remove_extraction


def test_a_folder_stands_for_its_videos_and_names_may_come_twice(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "hola.mp4", tmp_path / "a" / "café.mp4", tmp_path / "b" / "hola.mp4"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"video")
    assert list_videos([paths[2], tmp_path / "a"]) == [paths[2], paths[1], paths[0]]


def test_a_place_without_videos_is_named_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"absent\.mp4"):
        list_videos([tmp_path / "absent.mp4"])
    with pytest.raises(UserError, match="no video in this folder"):
        list_videos([tmp_path])


def test_all_files_of_a_video_go_whatever_its_name(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    name = "Señas [dQw4w9WgXcQ]"  # as yt-dlp calls its downloads
    own = [layout.crops("face", name), layout.pose(name), layout.metadata(name)]
    other = layout.metadata("Señas d")
    for path in [*own, other]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_extraction(layout, name)
    assert [path for path in own if path.exists()] == []
    assert other.exists()
