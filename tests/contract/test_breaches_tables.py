"""Tables and videos, broken in any of these ways, are reported by file, rule and fix, and do not pass."""

from __future__ import annotations

from signstreams.files import sha256_file

from .breaches import Breaches, BreakIt
from .corpora import BrokenCorpus

breaks = Breaches()


@breaks("clip.inside_video", "meta.csv", "correct the times")
def clip_past_the_end(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "0.5;1.9;1.4")


@breaks("clip.frames", "meta.csv", "correct start and end")
def clip_between_two_frames(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5;10;5", "0.51;0.52;;;")


@breaks("fps.declared", "meta.csv", "remove it")
def declared_fps_is_wrong(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;10;5;ana", "0.5;25;5;ana")


@breaks("meta.span", "meta.csv", "correct the times")
def clip_ends_before_it_starts(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "0.5;0.4;0.1")


@breaks("clip.times", "meta.csv", "--max-untimed-fraction")
def mangled_times(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "4.999.999.999.999.990;1.0;0.5")


@breaks("meta.unique_id", "meta.csv", "an id of its own")
def id_twice(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "c2;", "c1;")


@breaks("meta.id", "meta.csv", "another id")
def id_that_leaves_its_folder(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "c2;", "../c2;")


@breaks("clip.video_known", "meta.csv", "add the videos")
def clip_of_an_absent_video(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "c3;two", "c3;too")


@breaks("meta.id_column", "meta.csv", "rename the column")
def no_id_column(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "id;video", "name;video")


@breaks("table.columns", "meta.csv", "rename or remove")
def column_twice(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, ";signer\n", ";text\n")


@breaks("table.encoding", "meta.csv", "UTF-8")
def cyrillic_table(corpus: BrokenCorpus) -> None:
    corpus.layout.meta.write_bytes("id;video;text\nc1;one;завтра\n".encode("koi8_r"))


@breaks("table.control", "meta.csv", "converted as Latin-1")
def table_converted_from_a_wrong_encoding(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, '"adiós; adiós"', "\x93adiós\x94")


@breaks("table.quotes", "meta.csv", "close it")
def quote_that_is_never_closed(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, '"adiós; adiós"', '"adiós')


@breaks("meta.spans", "meta.csv", "add columns start and end")
def sentences_of_one_video_without_spans(corpus: BrokenCorpus) -> None:
    corpus.layout.meta.write_text(
        "id;video;text\nc1;one;a\nc2;one;b\nc3;two;c\nc4;three;d\nc5;three;e\n", encoding="utf-8"
    )


@breaks("table.ragged", "meta.csv", "double quotes")
def text_with_the_delimiter(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, '"adiós; adiós"', "adiós; adiós")


@breaks("meta.split", "meta.csv", "one of these names")
def unknown_split(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, ";signer\n", ";split\n")


@breaks("split.disjoint", "index/val.csv", "in one of them")
def id_in_two_splits(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "c3\nc1")


@breaks("split.video_disjoint", "index/test.csv", "in one of them")
def video_in_two_splits(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.index("train"), "c2\n", "")
    corpus.edit(corpus.layout.index("test"), "c4", "c4\nc2")


@breaks("split.known", "index/val.csv", "remove these lines")
def unknown_id_in_a_split(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "clip_id\nc3")


@breaks("split.once", "index/val.csv", "remove the further lines")
def id_twice_in_a_split(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.index("val"), "c3", "c3\nc3")


@breaks("split.present", "index/test.csv", "signstreams split")
def absent_split(corpus: BrokenCorpus) -> None:
    corpus.layout.index("test").unlink()


@breaks("split.train", "index/train.csv", "divide the corpus again")
def nothing_to_train_on(corpus: BrokenCorpus) -> None:
    corpus.layout.index("train").write_text("")


@breaks("split.same_video", "processed/metadata", "keep one of each")
def one_video_in_two_splits_under_two_names(corpus: BrokenCorpus) -> None:
    source = corpus.layout.videos / "four.mp4"
    source.write_bytes((corpus.layout.videos / "two.mp4").read_bytes())
    corpus.change_metadata("four", source_sha256=sha256_file(source), source_bytes=source.stat().st_size)


@breaks("gloss.vocabulary", "annotations/gloss.csv", "misspelt")
def gloss_that_train_lacks(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c4;ADIÓS;2", "c4;ADIOS;3")


@breaks("gloss.clip_known", "annotations/gloss.csv", "correct the ids")
def gloss_of_an_unknown_clip(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c5;", "c9;")


@breaks("gloss.unique_id", "annotations/gloss.csv", "keep one of them")
def gloss_twice(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c5;", "c4;")


@breaks("gloss.labels", "annotations/gloss.csv", "one number")
def number_of_two_glosses(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c4;ADIÓS;2", "c4;ADIÓS;1")


@breaks("gloss.columns", "annotations/gloss.csv", "rename the columns")
def gloss_table_without_ids(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "video_id;", "name;")


@breaks("gloss.ctc_length", "annotations/gloss.csv", "gloss or the span")
def more_glosses_than_frames(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c2;ADIÓS ADIÓS;2 2", "c2;ADIÓS ADIÓS ADIÓS ADIÓS;2 2 2 2")


@breaks("videos.unique", "videos", "rename or remove")
def two_files_of_one_id(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "one.webm").write_bytes(b"x")


@breaks("videos.name", "videos", "rename the file")
def video_name_that_is_no_id(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "a\nb.mp4").write_bytes(b"x")


@breaks("videos.file", "videos", "remove it")
def folder_named_like_a_video(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "folder.mp4").mkdir()


@breaks("videos.file", "videos", "remove it")
def link_to_nothing(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "link.mp4").symlink_to("gone.mp4")


@breaks("videos.folder", "videos", "--videos-dir")
def no_videos(corpus: BrokenCorpus) -> None:
    for path in corpus.layout.videos.iterdir():
        path.unlink()


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)
