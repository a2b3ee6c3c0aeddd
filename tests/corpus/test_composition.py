"""Accents in two characters (NFD), as macOS and some keyboards write them, through every reader of texts and names."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import normalize

import openpyxl
import pytest

from signstreams.corpus.corpus import load_corpus, scan_corpus
from signstreams.corpus.gloss import BLANK, GlossVocabulary, read_gloss
from signstreams.corpus.meta_csv import scan_meta
from signstreams.corpus.splits import read_index
from signstreams.corpus.table import scan_table
from signstreams.errors import UserError
from signstreams.extract.batch import only_listed
from signstreams.extract.settings import ExtractConfig, missing_points, points_path
from signstreams.formats.elan import Tier, read_elan, write_elan
from signstreams.formats.layout import SPLITS, CorpusLayout
from signstreams.formats.subtitles import Cue, parse_subtitles, write_subtitles
from signstreams.formats.video_sources import list_sources, search
from signstreams.ids import by_composition, composed
from signstreams.segment.given import read_segments


def apart(text: str) -> str:
    """In decomposed form; it must differ, or the test shows nothing."""
    assert normalize("NFD", text) != text
    return normalize("NFD", text)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_one_function_composes_and_names_are_found_by_it() -> None:
    assert composed(apart("niño")) == "niño" == composed("niño")
    assert by_composition([apart("año"), "sol"]) == {"año": apart("año"), "sol": "sol"}


def test_a_corpus_from_a_mac_reads_as_one_of_composed_names(tmp_path: Path) -> None:
    """Each of its files in another form than the videos on disk; two forms of a gloss are one."""
    layout = CorpusLayout(tmp_path)
    touch(layout.videos, apart("señal.mp4"), "baño.mp4", "sol.mp4")
    layout.meta.write_text(
        f"id;video;text;signer\nseñal;señal;{apart('El niño.')};{apart('José')}\n"
        f"{apart('baño')};{apart('baño')};El niño.;José\nsol;sol.mp4;Sol.;Ana\n",
        encoding="utf-8",
    )
    corpus = load_corpus(tmp_path)
    assert [(c.clip_id, c.text, c.signer) for c in corpus.clips[:2]] == [
        (n, "El niño.", "José") for n in ("señal", "baño")
    ]
    assert [clip.video_id for clip in corpus.clips] == [apart("señal"), "baño", "sol"]  # as their files are named
    for split, clip_id in zip(SPLITS, (apart("señal"), "baño", "sol"), strict=True):
        layout.index(split).parent.mkdir(exist_ok=True)
        layout.index(split).write_text(f"{clip_id}\n", encoding="utf-8")
    assert read_index(layout, corpus.clips) == {"train": ["señal"], "val": ["baño"], "test": ["sol"]}
    layout.gloss.parent.mkdir()
    layout.gloss.write_text(
        f"id;gloss\n{apart('señal')};NIÑO {apart('NIÑO')}\nbaño;{apart('NIÑO')}\n", encoding="utf-8"
    )
    glosses = read_gloss(layout.gloss, [clip.clip_id for clip in corpus.clips])
    assert GlossVocabulary.build(glosses, ["señal"]).names == (BLANK, "NIÑO")
    assert glosses["baño"].labels == ("NIÑO",)


def test_without_meta_csv_glosses_and_splits_find_the_videos_of_a_mac(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    touch(layout.videos, apart("señal.mp4"))
    clips = load_corpus(tmp_path).clips
    for split in SPLITS:
        layout.index(split).parent.mkdir(exist_ok=True)
        layout.index(split).write_text("señal\n" if split == "train" else "", encoding="utf-8")
    (clip_id,) = read_index(layout, clips)["train"]
    assert clip_id == clips[0].clip_id
    layout.gloss.parent.mkdir()
    layout.gloss.write_text("id;gloss\nseñal;SOL\n", encoding="utf-8")
    assert list(read_gloss(layout.gloss, [clip_id])) == [clip_id]


def test_excel_subtitles_and_elan_are_composed(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (("id", "text"), (apart("señal"), apart("El niño."))):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    (clip,) = scan_meta(tmp_path / "a.xlsx").clips
    assert (clip.clip_id, clip.text) == ("señal", "El niño.")
    assert scan_table(tmp_path / "a.xlsx", ("id",), "a", holds="clips").rows[0][1]["text"] == "El niño."

    (cue,), _ = parse_subtitles("WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nEl nin&#771;o.\n", ".vtt")
    assert cue.text == "El niño."
    events = {"events": [{"tStartMs": 0, "dDurationMs": 900, "segs": [{"utf8": apart("El niño.")}]}]}
    (cue,), _ = parse_subtitles(json.dumps(events), ".json3")  # escaped: no character of the file is beyond ASCII
    assert cue.text == "El niño."

    tier = Tier(apart("Traducción"), [Cue(0, 1, apart("El niño."))], participant=apart("José"))
    write_elan(tmp_path / "a.eaf", [tier])
    (found,) = read_elan(tmp_path / "a.eaf").tiers.values()
    assert (found.annotations[0].text, found.participant) == ("El niño.", "José")
    assert read_segments(tmp_path / "a.eaf", "a", tier="Traducción").segments[0].text == "El niño."


def test_two_files_that_differ_in_composition_alone_are_one_id_twice(tmp_path: Path) -> None:
    """Which of them a table means cannot be known; macOS itself would not let both be."""
    touch(tmp_path / "videos", "señal.mp4", apart("señal.mp4"))
    (line,) = list_sources(tmp_path / "videos").problems()
    assert "both give the video id" in line and "accents in one character or in two" in line
    issues = scan_corpus(tmp_path).issues
    assert [issue.rule for issue in issues] == ["videos.unique"]


def test_of_several_folders_the_first_has_an_id_in_either_form(tmp_path: Path) -> None:
    touch(tmp_path / "x", apart("señal.mp4"))
    touch(tmp_path / "y", "señal.mp4", "sol.mp4")
    found, passed = search([list_sources(tmp_path / name) for name in "xy"])
    assert list(found) == [apart("señal"), "sol"]
    assert passed == {apart("señal"): [tmp_path / "y" / "señal.mp4"]}


def test_a_video_that_was_extracted_under_the_other_form_is_that_video(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "señal.mp4")
    corpus = scan_corpus(tmp_path, extracted_ids=[apart("señal")])
    assert corpus.videos == {apart("señal"): tmp_path / "videos" / "señal.mp4"}


@pytest.mark.parametrize(("on_disk", "asked"), [(apart("señal"), "señal"), ("señal", apart("señal"))])
def test_points_lists_and_sentences_of_a_video_are_found_in_either_form(
    tmp_path: Path, on_disk: str, asked: str
) -> None:
    points = touch(tmp_path / "points", f"{on_disk}.npz")
    assert points_path(points, asked) == points / f"{on_disk}.npz"
    config = ExtractConfig.model_validate(
        {"videos": [tmp_path], "root": tmp_path, "detector": "precomputed", "precomputed": {"folder": points}}
    )
    assert missing_points(config, [asked]) == [] and len(missing_points(config, ["sol"])) == 1

    videos = {
        name: sources[0] for name, sources in list_sources(touch(tmp_path / "v", f"{on_disk}.mp4")).sources.items()
    }
    listing = tmp_path / "ids.txt"
    listing.write_text(f"{asked}\n", encoding="utf-8")
    assert list(only_listed(videos, listing)) == [on_disk]
    listing.write_text("señas\n", encoding="utf-8")
    with pytest.raises(UserError, match="none of the videos"):
        only_listed(videos, listing)

    table = tmp_path / "segments.csv"
    table.write_text(f"video;start;end;text\n{asked}.mp4;0;1;hola\nsol;1;2;no\n", encoding="utf-8")
    assert read_segments(table, on_disk, is_only_video=False).segments == [Cue(0, 1, "hola")]


def test_subtitles_that_are_written_read_back_composed(tmp_path: Path) -> None:
    write_subtitles(tmp_path / "a.srt", [Cue(0, 1, apart("mañana"))])
    assert read_segments(tmp_path / "a.srt", "a").segments == [Cue(0, 1, "mañana")]
