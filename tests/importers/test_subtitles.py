"""Videos with captions beside them, and YouTube-ASL's list of ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError

from .conftest import Importer

Source = Callable[..., Path]


def test_each_caption_is_a_clip(source: Source, do_import: Importer) -> None:
    corpus = do_import("subtitles", source("subtitles"), language="en")
    assert corpus.rows()[1] == {
        "clip_id": "talk 0_00001960",
        "video": "talk 0",
        "text": "Hold it like this.",
        "start": "1.96",
        "end": "3.8",
    }
    assert (corpus.root / "index/split.json").is_file()  # drawn: the workflow may draw it again
    assert corpus.report["taken"]["splits_by"] == "seed 0, by video"


def test_captions_in_two_languages_are_a_question(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.subtitles(tiny_corpus, tmp_path / "t", endings=(".en.vtt",) * 4)
    layouts.captions(folder / "talk 0.es-419.vtt", [(0.1, 1.0, "Hola.")])
    with pytest.raises(
        UserError, match=r"talk 0\.en\.vtt, talk 0\.es-419\.vtt are all captions of one video.*--captions"
    ):
        do_import("subtitles", folder)
    assert "Hola." not in do_import("subtitles", folder, captions="en").column("text")


def test_videos_without_captions_and_faulty_captions_are_counted(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.subtitles(tiny_corpus, tmp_path / "t", endings=(".srt",) * 4)
    (folder / "talk 3.srt").unlink()
    cues = [(0.1, 1.0, "Uno."), (0.9, 0.5, "Nada."), (0.1, 0.9, "Dos."), (1.0, 2.0, "♪♪"), (3.0, 60.0, "Tarde.")]
    layouts.captions(folder / "talk 0.srt", cues)
    corpus = do_import("subtitles", folder)
    assert corpus.column("clip_id")[:2] == ["talk 0_00000100", "talk 0_00000100_2"]
    found = {"import.no_captions", "captions.cue", "import.overlap", "import.letters", "import.beyond"}
    assert {rule: corpus.counts()[rule] for rule in found} == dict.fromkeys(found, 1)


def test_captions_may_lie_in_another_folder_than_the_videos(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.subtitles(tiny_corpus, tmp_path / "t")
    (tmp_path / "v").mkdir()
    for video in folder.glob("*.mp4"):
        video.rename(tmp_path / "v" / video.name)
    (folder / "more").mkdir()
    with pytest.raises(UserError, match=r"no video in it or below.*--videos"):
        do_import("subtitles", folder)
    assert len(do_import("subtitles", folder, videos=[tmp_path / "v"]).rows()) == 8


def test_a_folder_without_captions_says_what_was_sought(tiny_corpus: Path, do_import: Importer) -> None:
    with pytest.raises(
        UserError, match=r"no captions \(\.srt, \.vtt, \.json3\) with the name of one of 4 videos, found"
    ):
        do_import("subtitles", tiny_corpus / "videos")


def test_youtube_asl_counts_the_ids_that_could_not_be_fetched(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.youtube_asl(tiny_corpus, tmp_path / "y")
    with (folder / "youtube_asl_video_ids.txt").open("a") as file:
        file.write("gone0000000\ngone1111111\n")
    with pytest.raises(UserError, match=r"2 of 6 videos of the list are not there: 'gone0000000', 'gone1111111'"):
        do_import("youtube-asl", folder)
    corpus = do_import("youtube-asl", folder, allow_absent_videos=True)
    assert len(corpus.rows()) == 8
    assert corpus.counts()["import.absent"] == 1


def test_captions_without_a_video_are_not_lost_in_silence(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    folder = layouts.subtitles(tiny_corpus, tmp_path / "t")
    layouts.captions(folder / "talk 7.srt", [(0.1, 1.0, "Hello.")])
    layouts.captions(folder / "talk_0.en.srt", [(0.1, 1.0, "Hello.")])
    with pytest.raises(UserError) as error:
        do_import("subtitles", folder)
    assert [problem.partition(",")[0] for problem in error.value.problems[:2]] == [
        "talk 7.srt: no video 'talk 7'",
        "talk_0.en.srt: no video 'talk_0.en'",
    ]
    corpus = do_import("subtitles", folder, allow_absent_videos=True)
    assert corpus.counts() == {"import.absent": 2} and len(corpus.rows()) == 8


def test_captions_of_videos_with_one_name_are_named_with_their_folders(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    for place in ("a", "b"):
        layouts.subtitles(tiny_corpus, tmp_path / "t" / place)
    with pytest.raises(UserError, match=r"t: a/talk 0\.srt, b/talk 0\.srt are all captions of one video"):
        do_import("subtitles", tmp_path / "t")


def test_captions_are_found_whatever_the_form_of_the_accents_in_their_names(
    tiny_corpus: Path, layouts: ModuleType, do_import: Importer, tmp_path: Path
) -> None:
    """A video from a Mac, its captions from elsewhere, and the other way round; what is written is composed."""
    folder = tmp_path / "in"
    for number, forms in enumerate((("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD"), ("NFC", "NFC"))):
        video, captions = (unicodedata.normalize(form, f"niña {number}") for form in forms)
        layouts.copy_video(tiny_corpus, f"demo_00{number}", folder / f"{video}.mp4")
        layouts.captions(folder / f"{captions}.es.vtt", [(0.1, 1.0, unicodedata.normalize("NFD", "El niño."))])
    corpus = do_import("subtitles", folder)
    meta = (corpus.root / "meta.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(line.split(";")[0] for line in meta) == [f"niña {number}_00000100" for number in range(4)]
    assert corpus.column("text") == ["El niño."] * 4
