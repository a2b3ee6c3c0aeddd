"""Sentences from a table, subtitles, or an ELAN file: what is read, cut, left out and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.formats.elan import Tier, write_elan
from signstreams.formats.subtitles import Cue, write_subtitles
from signstreams.segment.given import OVERLAP, TWICE, check_within, read_segments


def test_subtitles_in_windows_1252_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes("1\r\n00:00:01,000 --> 00:00:02,000\r\nMañana\r\n".encode("cp1252"))
    assert read_segments(path, "a").segments == [Cue(1.0, 2.0, "Mañana")]


def test_overlaps_are_cut_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    write_subtitles(path, [Cue(4, 6, "c"), Cue(1, 3, "a"), Cue(2, 4, "b"), Cue(4, 5, "d")])
    given = read_segments(path, "a")
    assert given.segments == [Cue(1, 2, "a"), Cue(2, 4, "b"), Cue(4, 6, "c")]
    assert [fault.kind for fault in given.faults] == [OVERLAP, TWICE]
    assert given.warnings(path)[0].startswith(f"{path}: 1 times overlap: 1 to 3 s: the next one starts at 2 s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("video;start;end;texto\na.mp4;0,5;1,25;hola\nb;1;2;no\na;3;4,5;\n", [Cue(0.5, 1.25, "hola"), Cue(3, 4.5)]),
        ("start\tend\n00:00:01.500\t00:01:02.000\n", [Cue(1.5, 62.0)]),
    ],
)
def test_a_table_is_read_by_the_names_of_its_columns(text: str, expected: list[Cue], tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    path.write_text(text, encoding="utf-8")
    assert read_segments(path, "a").segments == expected


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    path.write_text("start,end,text\n1,2,a\n3,2,b\nx,5,c\n", encoding="utf-8")
    given = read_segments(path, "a")
    assert given.segments == [Cue(1, 2, "a")]
    assert [str(fault) for fault in given.faults] == ["row 3: 3 to 2 s", "row 4: start 'x', end '5'"]


def test_an_elan_tier_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "a.eaf"
    tiers = [
        Tier("uno", [Cue(1, 2, "x")]),
        Tier("dos", [Cue(3, 4, "y")]),
        Tier("gloss", [Cue(1, 2, "Z")], parent="uno"),
    ]
    write_elan(path, tiers)
    with pytest.raises(
        UserError, match=r"holds the tiers 'uno' \(1\), 'dos' \(1\), 'gloss' \(1\); name the one .* --tier"
    ):
        read_segments(path, "a")
    with pytest.raises(UserError, match=r"has no tier 'drei', expected one of 'uno'"):
        read_segments(path, "a", tier="drei")
    assert read_segments(path, "a", tier="dos").segments == [Cue(3, 4, "y")]
    write_elan(path, [tiers[0], tiers[2]])
    assert read_segments(path, "a").segments == [Cue(1, 2, "x")]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("absent.csv", None, "No such file or directory, expected"),
        ("a.csv", "begin,text\n1,a\n", "has 'begin', 'text', expected columns start and end"),
        ("a.csv", "video,start,end\nb,1,2\n", "no row is of the video 'a', its rows are of 'b'"),
        ("a.srt", "", "gives no sentence of 'a'"),
        ("a.srt", "1\n00:00:02,000 --> 00:00:01,000\nx\n", r"gives no sentence of 'a': line 2: 2 to 1 s"),
        ("a.eaf", "no xml", "is not XML"),
    ],
)
def test_a_file_that_gives_nothing_is_one_line(name: str, text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as raised:
        read_segments(path, "a")
    assert len(raised.value.problems) == 1 and str(path) in raised.value.problems[0]


def test_a_file_of_one_video_is_no_file_of_several(tmp_path: Path) -> None:
    for name, text in (("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nx\n"), ("a.csv", "start,end\n1,2\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"expected (a single one|one where several)"):
            read_segments(tmp_path / name, "a", is_only_video=False)


def test_times_of_another_video_are_said_before_anything_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("start,end\n1,2\n70,80\n", encoding="utf-8")
    given = read_segments(path, "a")
    (note,) = check_within(given, path, 70.5)
    assert (
        note == f"{path}: 1 of 2 sentences end after the video's end (70.50 s), the first at 80 s; they are cut there"
    )
    assert check_within(given, path, 79.9) == []
    with pytest.raises(UserError, match=r"1 of 2 sentences start after .* end \(60\.00 s\), the first at 70 s"):
        check_within(given, path, 60.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start_ms,end_ms\n1200,3400\n", (1.2, 3.4)),
        ("start_frame,end_frame\n30,85\n", (1.2, 3.4)),
        ("start_frame,end_frame,fps\n60,170,50\n", (1.2, 3.4)),
        ("Begin Time - msec\tEnd Time - msec\tGlosa\n1200\t3400\tX\n", (1.2, 3.4)),
        ("video_id;début;fin\nb;5;6\na;1,2;3,4\n", (1.2, 3.4)),
    ],
)
def test_times_have_the_unit_that_their_columns_state(text: str, expected: tuple[float, float], tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    path.write_text(text, encoding="utf-8")
    assert [(cue.start_s, cue.end_s) for cue in read_segments(path, "a", fps=25.0).segments] == [expected]


def test_times_in_frames_of_an_unknown_rate_are_no_seconds(tmp_path: Path) -> None:
    path = tmp_path / "segments.csv"
    path.write_text("start_frame,end_frame\n30,85\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"row 2: start '30', end '85' in frames, without frames per second"):
        read_segments(path, "a", fps=None)


def test_a_sentence_of_less_than_a_millisecond_is_left_out(tmp_path: Path) -> None:
    """No subtitle or ELAN file can hold it: it would fail when all is extracted and translated."""
    path = tmp_path / "segments.csv"
    path.write_text("start,end\n1,2\n3,3.0001\n4,6\n4.0002,5\n", encoding="utf-8")
    given = read_segments(path, "a")
    assert [(cue.start_s, cue.end_s) for cue in given.segments] == [(1, 2), (4.0002, 5)]
    assert [fault.place for fault in given.faults] == ["row 3", "4 to 6 s"]
