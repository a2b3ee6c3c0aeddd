"""SubRip, WebVTT and json3: what is read, what is a fault, and that what is written reads back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signstreams.formats.subtitles import (
    LINE_CHARACTERS,
    LOST_TEXT,
    NO_LENGTH,
    UNREADABLE_TIMES,
    Cue,
    clock_time,
    format_subtitles,
    parse_subtitles,
    write_subtitles,
)

SRT = """1
00:00:01,000 --> 00:00:02,500
Hola, <i>¿qué
tal?</i>

2
00:00:03,000 --> 00:00:04,000

3
00:01:05,2 --> 01:01:06,250
{\\an8}Dos líneas

con una vacía
5
00:00:09,000 --> 00:00:08,000
al revés
6
00:00:10,0x0 --> 00:00:11,000
mal
"""


def test_subrip_is_read_around_its_lines_of_times() -> None:
    cues, faults = parse_subtitles(SRT.replace("\n", "\r\n"), ".srt")
    assert cues == [
        Cue(1.0, 2.5, "Hola, ¿qué tal?"),
        Cue(3.0, 4.0, ""),
        Cue(65.2, 3666.25, "Dos líneas con una vacía"),
    ]
    assert [(fault.kind, fault.place) for fault in faults] == [(NO_LENGTH, "line 15"), (UNREADABLE_TIMES, "line 18")]


def test_webvtt_is_read_without_its_comments_styles_tags_and_settings() -> None:
    text = """WEBVTT - a title

STYLE
::cue { color: lime }

NOTE a comment
over two lines

intro
00:01.000 --> 00:02.000 line:0 position:20%
<v Ana>Pan &amp; <c.loud>vino</c> &lt;3

00:02.000 --> 00:00:03.500
una <00:00:02.500>palabra

lost words
"""
    cues, faults = parse_subtitles(text, ".vtt")
    assert cues == [Cue(1.0, 2.0, "Pan & vino <3"), Cue(2.0, 3.5, "una palabra")]
    assert [(fault.kind, fault.place, fault.found) for fault in faults] == [(LOST_TEXT, "line 16", "'lost words'")]


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_what_is_written_reads_back(suffix: str, tmp_path: Path) -> None:
    cues = [
        Cue(0.0, 1.2345, "¿Qué hora es? & <nada>"),
        Cue(
            1.5,
            3600.001,
            "Una frase larga que no cabe en una sola línea de un subtítulo y se parte en tres o más",
        ),
        Cue(3601.0, 3602.0, ""),
        Cue(3602.0, 3603.0, "12"),
    ]
    path = tmp_path / f"out{suffix}"
    write_subtitles(path, cues)
    found, faults = parse_subtitles(path.read_text(encoding="utf-8"), suffix)
    assert not faults
    assert [cue.text for cue in found] == [cue.text for cue in cues]
    assert [(cue.start_s, cue.end_s) for cue in found] == [
        (0.0, 1.234),
        (1.5, 3600.001),
        (3601.0, 3602.0),
        (3602.0, 3603.0),
    ]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= LINE_CHARACTERS


def test_a_long_word_is_not_cut() -> None:
    word = "x" * 60
    cues, _ = parse_subtitles(format_subtitles([Cue(0, 1, f"a {word} b")], ".srt"), ".srt")
    assert cues[0].text == f"a {word} b"


def test_a_cue_without_length_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"cue 1: 1 to 1\.0001 s has no length"):
        format_subtitles([Cue(1, 1.0001, "x")], ".vtt")
    with pytest.raises(ValueError, match=r"expected one of \.srt, \.vtt"):
        format_subtitles([], ".txt")


def test_times_carry_over() -> None:
    assert clock_time(3599.9996) == "01:00:00.000"
    assert clock_time(0.0005, ",") == "00:00:00,000"


# What comes from outside, in the kinds that importers meet

TALK_SRT = """\
1
00:00:01,200 --> 00:00:03,400
<i>¿Dónde está</i>
el agua?

2
01:00:05,000 --> 01:00:06,500 X1:0 X2:10
{\\an8}Estoy bien &amp; tú.
"""
TALK_VTT = """\
WEBVTT - a title
Kind: captions

STYLE
::cue { color: lime }

NOTE
a remark --> of one

first
00:01.200 --> 00:03.400 align:start position:0%
<v Ana>¿Dónde<00:00:02.000><c> está</c>
el agua?

01:00:05.000 --> 01:00:06.500
Estoy bien &amp; tú.
"""
OUTSIDE = [Cue(1.2, 3.4, "¿Dónde está el agua?"), Cue(3605.0, 3606.5, "Estoy bien & tú.")]


@pytest.mark.parametrize(("text", "suffix", "lines"), [(TALK_SRT, ".srt", [2, 7]), (TALK_VTT, ".vtt", [11, 15])])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_cues_of_others_are_read_without_marks_and_with_their_lines(
    text: str, suffix: str, lines: list[int], newline: str
) -> None:
    cues, faults = parse_subtitles(text.replace("\n", newline), suffix)
    assert (cues, faults) == (OUTSIDE, [])
    assert [cue.line for cue in cues] == lines


def test_youtubes_json3_is_read() -> None:
    events = [
        {"tStartMs": 0, "dDurationMs": 99, "id": 1, "wpWinPosId": 1},
        {
            "tStartMs": 1200,
            "dDurationMs": 2200,
            "segs": [{"utf8": "¿Dónde está"}, {"utf8": "\nel agua?", "tOffsetMs": 9}],
        },
        {"tStartMs": 1300, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 3605000, "dDurationMs": 1500, "segs": [{"utf8": "Estoy bien & tú."}]},
        {"tStartMs": "soon", "dDurationMs": 1500, "segs": [{"utf8": "perdido"}]},
        {"tStartMs": 4000, "dDurationMs": 0, "segs": [{"utf8": "nada"}]},
    ]
    cues, faults = parse_subtitles(json.dumps({"wireMagic": "pb3", "events": events}), ".json3")
    assert cues == OUTSIDE
    assert [(fault.kind, fault.line) for fault in faults] == [(UNREADABLE_TIMES, 5), (NO_LENGTH, 6)]


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"events": 3}', "[" * 100_000])
def test_json_of_another_kind_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="holds no list of events, expected YouTube's captions as json3"):
        parse_subtitles(content, ".json3")


def test_times_that_cannot_be_read_are_named_with_their_line() -> None:
    cues, (fault,) = parse_subtitles(TALK_SRT.replace("00:00:01,200", "00:00:01:05"), ".srt")
    assert [cue.text for cue in cues] == ["Estoy bien & tú."]
    assert (fault.kind, fault.line) == (UNREADABLE_TIMES, 2) and "'00:00:01:05 --> 00:00:03,400'" in fault.found
