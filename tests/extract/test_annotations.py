"""From the rows of meta.csv to spans, boxes and frames: what is extracted, what is left, what is extracted again."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.corpus.corpus import scan_corpus
from signstreams.errors import UserError
from signstreams.extract.annotations import NOT_ANNOTATED, merged, read_annotations
from signstreams.extract.batch import extract_videos, summary
from signstreams.extract.box_tracks import TrackBuilder
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.frame_boxes import NUM_STREAMS, Observation
from signstreams.extract.settings import BoxConfig, ExtractConfig
from signstreams.formats.arrays import read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import BoxState


@pytest.fixture
def corpus(make_video: Callable, tmp_path: Path) -> Callable[..., ExtractConfig]:
    """``corpus(meta, **settings)``: the videos a, b, c of 90 frames at 30 Hz with these rows, and their config."""
    first = make_video("a.mp4", 90)
    for name in ("b", "c"):
        shutil.copy(first, first.with_name(f"{name}.mp4"))

    def make(meta: str | None, **settings: object) -> ExtractConfig:
        if meta is not None:
            (tmp_path / "meta.csv").write_text(meta, encoding="utf-8")
        return ExtractConfig(videos=[first.parent], root=tmp_path, **settings)

    return make


def read(config: ExtractConfig) -> dict:
    return read_annotations(CorpusLayout(config.root), ["a", "b", "c"], config)


ROWS = "id;video;text;start;end\n1;a;x;0.5;0.7\n2;a;y;0.9;1.1\n3;a;z;2.5;2.6\n4;b;w;;\n"


def test_spans_are_padded_merged_and_sorted() -> None:
    assert merged([(2.0, 3.0), (0.1, 1.0), (3.5, 4.0), (10, 11)], 0.25) == ((0.0, 1.25), (1.75, 4.25), (9.75, 11.25))
    assert merged([(0.0, 9.0), (2.0, 3.0)], 0) == ((0.0, 9.0),)


def test_only_annotated_spans_are_extracted_and_the_contract_accepts_it(
    corpus: Callable, discs: DetectorKind, tmp_path: Path
) -> None:
    config = corpus(ROWS, spans_only=True, span_padding_s=0.12)
    outcome = extract_videos(config, detector=discs)
    assert sorted(outcome.extracted) == ["a", "b"]
    assert outcome.unannotated == ["c"]
    assert summary(outcome, tmp_path).startswith("2 extracted, 1 left out (no annotated span); ")
    layout = CorpusLayout(tmp_path)
    metadata = read_metadata(layout.metadata("a"))
    assert metadata.spans_s == [(pytest.approx(0.38), pytest.approx(1.22)), (pytest.approx(2.38), pytest.approx(2.72))]
    times_s = read_tracks(layout.tracks("a")).times_s
    assert times_s == pytest.approx([k / 30 for k in [*range(12, 37), *range(72, 82)]])
    assert (metadata.num_frames, metadata.fps, metadata.duration_s) == (35, 30, pytest.approx(3.0))
    assert read_metadata(layout.metadata("b")).spans_s is None  # a clip without times is its whole video
    assert read_metadata(layout.metadata("b")).num_frames == 90
    assert not layout.metadata("c").exists()
    findings = validate(ContractConfig(root=tmp_path)).findings
    assert [f.line() for f in findings if f.severity == "error" and not f.rule.startswith(("index", "split"))] == []
    assert [f.severity for f in findings if f.rule == "video.extracted"] == ["info"]


def test_crops_of_spans_are_those_of_the_whole_video(corpus: Callable, discs: DetectorKind, tmp_path: Path) -> None:
    whole = corpus(None)
    extract_videos(whole, detector=discs)
    layout = CorpusLayout(tmp_path)
    everything, crops = read_tracks(layout.tracks("a")), layout.crops("hand_l", "a").rename(tmp_path / "whole.zip")
    extract_videos(corpus(ROWS, spans_only=True, span_padding_s=0.4), detector=discs)
    part = read_tracks(layout.tracks("a"))
    frames = np.searchsorted(everything.times_s, part.times_s)
    assert (everything.times_s[frames] == part.times_s).all()
    inner = [k for k, time_s in enumerate(part.times_s) if 0.5 <= time_s < 1.1]  # far from a span's ends
    assert len(inner) == 18
    with zipfile.ZipFile(crops) as old, zipfile.ZipFile(layout.crops("hand_l", "a")) as new:
        for k in inner:
            assert np.allclose(part.streams["hand_l"].box[k], everything.streams["hand_l"].box[frames[k]])
            assert new.read(f"a_f{k:06d}.jpg") == old.read(f"a_f{frames[k]:06d}.jpg")


def test_nothing_is_filled_or_smoothed_from_one_span_to_the_next() -> None:
    """The person sits down elsewhere between two spans, and is out of sight around the cut."""
    times_s = [*np.arange(0, 1, 0.04), *np.arange(3, 4, 0.04)]
    builder = TrackBuilder(640, 480, BoxConfig(), 200)
    nothing = np.full((NUM_STREAMS, 3), np.nan)
    frames = []
    for k, time_s in enumerate(times_s):
        seen = np.tile([100.0 if time_s < 2 else 400.0, 200.0, 50.0], (NUM_STREAMS, 1))
        detected = nothing if k in (24, 25) else seen
        frames += builder.add(time_s, Observation(detected, nothing, np.zeros(NUM_STREAMS)))
    frames += builder.finish()
    states = [frame.state[0] for frame in frames]
    assert [k for k, state in enumerate(states) if state != BoxState.DETECTED] == [24, 25]
    assert states[24] == states[25] == BoxState.MISSING
    for k, frame in enumerate(frames):
        if k not in (24, 25):
            assert frame.box[0] == pytest.approx([100 if k < 25 else 400, 200, 50])


def test_a_changed_span_or_box_extracts_that_video_again_and_a_changed_text_none(
    corpus: Callable, discs: DetectorKind
) -> None:
    rows = "id;video;text;start;end;box\n1;a;x;0.5;0.7;1 2 90 99\n2;b;y;0.9;1.1;\n"
    settings = {"spans_only": True}
    assert len(extract_videos(corpus(rows, **settings), detector=discs).extracted) == 2

    def again(old: str, new: str) -> list[str]:
        return list(extract_videos(corpus(rows.replace(old, new), **settings), detector=discs).extracted)

    assert again(";x;", ";another text;") == []
    assert again("1.1", "1.2") == ["b"]
    assert again("1 2 90 99", "1 2 90 98") == ["a", "b"]  # b is as it was at first


def test_the_table_is_read_only_where_it_matters(corpus: Callable) -> None:
    assert read(corpus(None)) == dict.fromkeys("abc", NOT_ANNOTATED)
    assert read(corpus("this;is\nno table\n")) == dict.fromkeys("abc", NOT_ANNOTATED)
    found = read(corpus("id;box\na;1,2,30,40\nb;\nelsewhere;5 5 9 9\n"))
    assert found == {"a": NOT_ANNOTATED._replace(box=(1, 2, 30, 40)), "b": NOT_ANNOTATED, "c": NOT_ANNOTATED}


@pytest.mark.parametrize(
    "cells", ["0;1;", "00:00:00;00:00:01;", "16.532.999;20;", "5;4;", "0;1;trial", "-1;1;", "1;;", ";;[damaged"]
)
def test_a_box_counts_no_matter_what_else_is_wrong_in_its_row(corpus: Callable, cells: str) -> None:
    rows = f"id;video;start;end;split;box\n1;a;{cells};10 10 100 100\n2;a;0;1;;\n../3;b.mp4;0;1;;1 1 9 9\n"
    found = read(corpus(rows))
    assert found["a"].box == (10, 10, 100, 100)
    assert found["b"].box == (1, 1, 9, 9)
    assert found["c"] == NOT_ANNOTATED


def test_a_box_of_a_row_without_times_counts_for_its_spans(corpus: Callable) -> None:
    found = read(corpus("id;video;start;end;box\n1;a;1;2;\n2;a;x;3;1 1 9 9\n3;b;x;3;1 1 9 9\n", spans_only=True))
    assert found == {"a": ((pytest.approx((0.5, 2.5)),), (1, 1, 9, 9))}


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ("id;text;box\na;x; y;1 1 9 9\n", r"row 2: 4 fields under a header of 3, .*\[table\.ragged\]"),
        ("name;box\na;1 1 9 9\n", r"\[meta\.id_column\]"),
        ("id;text;box\na;Привет;1 1 9 9\n".encode("koi8-r"), r"\[table\.encoding\]"),
        ("id;text;box\na;x\x81;1 1 9 9\n".encode("latin-1"), r"\[table\.encoding\]"),
    ],
)
def test_a_box_that_cannot_be_read_is_an_error(corpus: Callable, meta: str | bytes, said: str) -> None:
    config = corpus("")
    (config.root / "meta.csv").write_bytes(meta if isinstance(meta, bytes) else meta.encode())
    with pytest.raises(UserError, match=said):
        read(config)


def test_a_table_without_a_column_box_is_not_read(corpus: Callable) -> None:
    assert read(corpus("id;mailbox;text\na;x; y;z\n")) == dict.fromkeys("abc", NOT_ANNOTATED)


def test_rows_whose_times_cannot_be_read_are_warned_of(corpus: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "id;video;start;end\n1;a;0;1\n2;b;00:00:02;00:00:03\n3;elsewhere;00:00:02;00:00:03\n4;;;\n"
    assert list(read(corpus(rows, spans_only=True))) == ["a"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "meta.csv row 3: clip '2': start '00:00:02', end '00:00:03', expected exact start and end" in told[0]
    assert all(line.startswith("warning: ") and "with colons but without milliseconds" in line for line in told[1:])
    assert read(corpus(rows)) == dict.fromkeys("abc", NOT_ANNOTATED)
    assert capsys.readouterr().err == ""


def test_where_no_time_can_be_read_the_ids_are_not_blamed(corpus: Callable) -> None:
    with pytest.raises(UserError) as caught:
        read(corpus("id;video;start;end\n1;a;00:00:00;00:00:01\n2;b;00:00:02;00:00:03\n", spans_only=True))
    *findings, last = caught.value.problems
    assert [line.rsplit(" ", 1)[1] for line in findings] == ["[meta.times]"] * 2 + ["[meta.numbers]"] * 2
    assert last.endswith("expected some; correct their times or leave out spans_only")


@pytest.mark.parametrize(
    ("meta", "spans_only", "said"),
    [
        (None, True, r"meta\.csv: no such file, expected the annotated spans"),
        ("id;video;start;end\n1;a;5;4\n", True, r"meta\.csv row 2: start 5 s and end 4 s, expected 0 <= start < end"),
        (
            "id;video;start;end\n1;x;1;2\n",
            True,
            r"none of its 1 rows gives a span of one of the 3 videos .* correct its ids",
        ),
        ("id;box\na;1 2 3\n", False, r"meta\.csv row 2: the box '1 2 3', expected x0 y0 x1 y1"),
        (
            "id;video;start;end;box\n1;a;0;1;1 1 9 9\n2;a;1;2;1 1 9 9\n3;a;2;3;2 2 9 9\n",
            False,
            r"row 2: different boxes of the video 'a' in the rows 2, 3, 4, expected one box for each video",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(
    corpus: Callable, meta: str | None, spans_only: bool, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read(corpus(meta, spans_only=spans_only))


def test_a_span_past_the_end_is_quarantined_with_its_place(corpus: Callable, discs: DetectorKind) -> None:
    config = corpus("id;video;start;end\n1;a;65;70\n2;b;2.9;70\n", spans_only=True, max_failed_fraction=1)
    outcome = extract_videos(config, detector=discs)
    assert outcome.quarantined == {"a": "no frame of 3.00 s lies in its annotated spans (64.5 to 70.5 s)"}
    assert outcome.extracted["b"].duration_s == pytest.approx(3.0)  # the contract reports the clip that ends later
    rules = [finding.rule for finding in validate(ContractConfig(root=config.root)).findings]
    assert "clip.inside_video" in rules


@pytest.mark.parametrize("name", ["ntsc.mp4", "variable.mkv"])
def test_rows_become_exact_frames(tmp_path: Path, discs: DetectorKind, name: str) -> None:
    """meta.csv -> clip -> frames of the arrays -> frames of the source, at 29.97 Hz and at a rate that varies."""
    times = [Fraction(k * 1001, 30000) for k in range(60)]
    if name == "variable.mkv":
        times = [Fraction(ms, 1000) for ms in np.cumsum([0, *[33, 34, 33, 100, 17, 250] * 10])[:60].tolist()]
    path = tmp_path / "videos" / name
    path.parent.mkdir()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 30000)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 16 + 3 * k, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 30000), Fraction(1, 30000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    bounds = {"first": (0, 7), "second": (7, 20), "last": (41, 59)}  # frames, the second one excluded
    rows = [f"{key};{path.stem};{float(times[a]):.4f};{float(times[b]):.4f}" for key, (a, b) in bounds.items()]
    rows = [row.replace(";0.0000", ";0") for row in rows]
    (tmp_path / "meta.csv").write_text("id;video;start;end\n" + "\n".join(rows), encoding="utf-8")
    clips = {clip.clip_id: clip for clip in scan_corpus(tmp_path).clips}
    for settings in ({}, {"spans_only": True, "span_padding_s": 0.0}):
        extract_videos(ExtractConfig(videos=[path], root=tmp_path, **settings), detector=discs)
        times_s = read_tracks(CorpusLayout(tmp_path).tracks(path.stem)).times_s
        for key, (first, stop) in bounds.items():
            # written with four decimals, a bound is off by up to 50 µs; Matroska rounds times to 1 ms
            clip, slack_s = clips[key], 6e-4
            inside = times_s[(times_s >= clip.start_s - slack_s) & (times_s < clip.end_s - slack_s)]
            assert inside == pytest.approx([float(time) for time in times[first:stop]], abs=slack_s)
