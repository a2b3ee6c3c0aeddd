"""Videos and clips joined; everything that is wrong at once; light to import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.corpus.clips import Clip
from signstreams.corpus.corpus import load_corpus, scan_corpus
from signstreams.errors import UserError
from signstreams.formats.layout import CorpusLayout

Make = Callable[..., CorpusLayout]


def test_videos_without_a_table_are_clips_without_text(corpus_with: Make) -> None:
    layout = corpus_with("b.mp4", "Ñ 'a'.MOV", "notes.txt")
    corpus = load_corpus(layout.root)
    assert corpus.clips == [Clip("b", "b"), Clip("Ñ 'a'", "Ñ 'a'")]
    assert list(corpus.videos) == ["b", "Ñ 'a'"]
    assert not corpus.has_meta


def test_videos_and_table_are_joined(corpus_with: Make) -> None:
    layout = corpus_with("a.mp4", "b.mp4", meta="id;video;text;start;end\nx;a;uno;0;1\ny;a;dos;1;2\n")
    corpus = load_corpus(layout)
    assert [(clip.clip_id, clip.video_id) for clip in corpus.clips] == [("x", "a"), ("y", "a")]
    assert corpus.meta.num_rows == 2


def test_videos_may_lie_elsewhere(corpus_with: Make, tmp_path: Path) -> None:
    layout = corpus_with(meta="id;text\na;x\n")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "a.mkv").touch()
    assert load_corpus(layout.root, tmp_path / "else").videos == {"a": tmp_path / "else" / "a.mkv"}


def test_an_absent_and_an_empty_folder_are_named(corpus_with: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_corpus(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no video"):
        load_corpus(corpus_with().root)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file"):
        load_corpus(tmp_path, tmp_path / "file")


def test_problems_of_videos_and_table_come_at_once(corpus_with: Make) -> None:
    layout = corpus_with("a.mp4", "a\tb.mp4", meta="id;video\n../x;a\ny;gone\n")
    with pytest.raises(UserError) as caught:
        load_corpus(layout.root)
    assert [line.rsplit(" ", 1)[1] for line in caught.value.problems] == [
        "[videos.name]",
        "[meta.id]",
        "[clip.video_known]",
    ]


def test_clips_of_absent_videos_are_left_out_where_that_is_allowed(corpus_with: Make) -> None:
    layout = corpus_with("a.mp4", meta="id;video;text;start;end\nx;a;uno;0;1\ny;gone;dos;1;2\n")
    with pytest.raises(UserError, match="that is not there"):
        load_corpus(layout)
    corpus = load_corpus(layout, allow_absent_videos=True)
    assert ([clip.clip_id for clip in corpus.clips], corpus.absent_ids) == (["x"], ["y"])
    assert [(issue.rule, issue.severity) for issue in corpus.issues] == [("clip.video_known", "info")]


def test_two_files_of_one_id_are_named(corpus_with: Make) -> None:
    with pytest.raises(UserError, match=r"a\.mov.*a\.mp4"):
        load_corpus(corpus_with("a.mp4", "a.mov").root)


def test_all_twins_are_named_and_the_other_videos_kept(corpus_with: Make) -> None:
    layout = corpus_with("a.mp4", "a.mov", "b.mp4", "c.avi", "c.mkv", "c.mp4", meta="id\na\nb\nc\ngone\n")
    with pytest.raises(UserError) as caught:
        load_corpus(layout)
    assert [line.rsplit(" ", 1)[1] for line in caught.value.problems] == [
        "[videos.unique]",
        "[videos.unique]",
        "[clip.video_known]",
    ]
    assert "'c.avi' and 'c.mkv' and 'c.mp4' all give the video id 'c'" in caught.value.problems[1]
    corpus = scan_corpus(layout)
    assert {video_id: path.name for video_id, path in corpus.videos.items()} == {
        "a": "a.mov",
        "b": "b.mp4",
        "c": "c.avi",
    }
    assert not corpus.is_sure_of_videos


def test_videos_that_are_passed_over_are_no_error(corpus_with: Make) -> None:
    layout = corpus_with("a.mp4", "b.wmv", "notes.txt")
    (layout.videos / "more").mkdir()
    (layout.videos / "more" / "c.mp4").touch()
    corpus = load_corpus(layout)
    assert list(corpus.videos) == ["a"]
    assert [(issue.rule, issue.severity) for issue in corpus.issues] == [("videos.passed_over", "warning")] * 2
    assert corpus.is_sure_of_videos


def test_scanning_raises_nothing(tmp_path: Path) -> None:
    corpus = scan_corpus(tmp_path / "nowhere")
    assert [finding.rule for finding in corpus.issues] == ["videos.folder"]


def test_reading_a_corpus_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, signstreams.corpus.corpus, signstreams.corpus.gloss, signstreams.corpus.splits;"
        " print([name for name in ('numpy', 'torch', 'cv2', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_several_folders_are_searched_in_order_and_a_second_copy_is_a_warning(
    corpus_with: Make, tmp_path: Path
) -> None:
    layout = corpus_with(meta="id;text\na;x\nb;y\n")
    for name in ("one/a.mp4", "two/a.mp4", "two/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folders = [tmp_path / "one", tmp_path / "two"]
    corpus = load_corpus(layout, folders)
    assert corpus.videos == {"a": tmp_path / "one/a.mp4", "b": tmp_path / "two/b.mp4"}
    (issue,) = corpus.issues
    assert (issue.rule, issue.severity, issue.file) == ("videos.shadowed", "warning", str(tmp_path / "two"))
    assert "1 video is also in a folder before it: 'a'" in issue.found
    with pytest.raises(UserError, match="three: no such folder"):
        load_corpus(layout, [*folders, tmp_path / "three"])


def test_a_folder_below_another_one_that_is_searched_too_is_not_passed_over(corpus_with: Make, tmp_path: Path) -> None:
    for name in ("v/a.mp4", "v/more/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = corpus_with().root
    assert [issue.rule for issue in load_corpus(root, tmp_path / "v").issues] == ["videos.passed_over"]
    assert load_corpus(root, [tmp_path / "v", tmp_path / "v/more"]).issues == []
