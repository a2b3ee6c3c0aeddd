"""A videos folder with a doubled name, or with videos that are passed over: what is said, and what is not."""

from __future__ import annotations

from .corpora import VIDEOS, BrokenCorpus, rules_of


def test_a_doubled_name_is_the_only_fault_of_a_good_corpus(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "one.avi").write_bytes(b"x")  # before the one that was extracted, by name
    (corpus.layout.videos / "two.webm").write_bytes(b"x")
    validation = corpus.validate()
    assert [finding.rule for finding in validation.findings] == ["videos.unique", "videos.unique"]
    assert [finding.found for finding in validation.findings] == [
        "'one.avi' and 'one.mp4' both give the video id 'one'",
        "'two.mp4' and 'two.webm' both give the video id 'two'",
    ]
    assert validation.report["summary"]["num_videos"] == len(VIDEOS)


def test_nothing_is_said_to_be_left_over_while_videos_may_be_hidden(corpus: BrokenCorpus) -> None:
    hidden = corpus.layout.videos.rename(corpus.root / "unmounted")
    assert rules_of(corpus.validate(), "error") == {"videos.folder"}
    corpus.layout.videos.mkdir()
    assert rules_of(corpus.validate(), "error") == {"videos.folder"}
    for path in hidden.iterdir():
        (corpus.layout.videos / path.name).symlink_to(path if path.stem != "four" else path.with_name("gone.mp4"))
    assert rules_of(corpus.validate(), "error") == {"videos.file", "clip.video_known"}
    (corpus.layout.videos / "four.mp4").unlink()
    assert rules_of(corpus.validate(), "error") == {"file.unexpected", "clip.video_known"}


def test_videos_that_are_passed_over_are_warned_of(corpus: BrokenCorpus) -> None:
    (corpus.layout.videos / "five.MTS").touch()
    (corpus.layout.videos / "session 2").mkdir()
    (corpus.layout.videos / "session 2" / "six.mp4").touch()
    validation = corpus.validate()
    assert not validation.has_errors
    assert [(finding.rule, finding.severity, finding.found) for finding in validation.findings] == [
        ("videos.passed_over", "warning", "1 files of other endings are passed over: 'five.MTS'"),
        ("videos.passed_over", "warning", "1 sub-folders with videos are passed over: 'session 2'"),
    ]
    assert "convert them" in validation.findings[0].fix
    assert "move their videos up" in validation.findings[1].fix


def test_of_spans_alone_only_a_video_that_no_row_names_is_excused(corpus: BrokenCorpus) -> None:
    for video_id in VIDEOS:
        corpus.change_metadata(video_id, spans_s=[(0.0, 1.0)])
    for video_id in ("two", "four"):
        for path in corpus.layout.processed.glob(f"*/{video_id}.*"):
            path.unlink()
    corpus.edit(corpus.layout.meta, "c3;two;casa;0.0;1.0", "c3;two;casa;00:00:00;00:00:01")
    corpus.edit(corpus.layout.meta, "c5;four;gato;0.1;0.9;0.8;10;8;ana\n", "")
    found = {
        finding.file: finding
        for finding in corpus.validate(max_untimed_fraction=1).findings
        if finding.rule == "video.extracted"
    }
    named, unnamed = found["processed/metadata/two.json"], found["processed/metadata/four.json"]
    assert (named.severity, named.fix) == ("error", "correct its rows in meta.csv, then extract it again")
    assert (unnamed.severity, unnamed.fix) == ("info", "nothing to do: it has no span")
