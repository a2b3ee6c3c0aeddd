"""Videos of a folder: found by ending, and those that are passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.formats.video_sources import list_sources, search


def test_videos_are_found_by_ending_and_twins_are_refused(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.gif", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    found = list_sources(tmp_path)
    assert (list(found.sources), found.problems()) == (["a", "b"], [])
    (tmp_path / "a.mov").touch()
    assert list_sources(tmp_path).problems() == [
        f"{tmp_path}: 'a.gif' and 'a.mov' both give the video id 'a'; rename one of them"
    ]


def test_foreign_endings_and_sub_folders_of_videos_are_named_as_passed_over(tmp_path: Path) -> None:
    files = (
        *("a.mp4", "b.MTS", "c.wmv", "notes.txt", ".hidden.mts", "folder.mp4/x.mp4"),
        *("converted.mts", "converted.mp4"),
        *("session1/d.mp4", "session2/cam/e.vob", "texts/f.txt", ".trash/g.mp4", "frames/0001.png"),
    )
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = list_sources(tmp_path)
    assert [path.name for path in found.passed_over()] == ["b.MTS", "c.wmv", "session1", "session2"]
    assert list(found.sources) == ["a", "converted", "folder.mp4", "frames"]
    with pytest.raises(FileNotFoundError):
        list_sources(tmp_path / "absent")


def test_folders_are_searched_in_order_and_the_first_that_has_an_id_counts(tmp_path: Path) -> None:
    for name in ("x/a.mp4", "x/b.mp4", "y/a.mov", "y/a.mp4", "y/c.mp4", "z/b.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folders = [list_sources(tmp_path / name) for name in ("y", "x", "z")]
    found, passed = search(folders)
    assert {video_id: [source.path.parent.name for source in sources] for video_id, sources in found.items()} == {
        "a": ["y", "y"],  # twins of one folder stay a fault
        "b": ["x"],
        "c": ["y"],
    }
    assert {video_id: [path.parent.name for path in paths] for video_id, paths in passed.items()} == {
        "a": ["x"],
        "b": ["z"],
    }
