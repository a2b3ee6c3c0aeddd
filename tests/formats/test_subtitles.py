"""SubRip and WebVTT: what is read, what is a fault, and that what is written reads back."""

from __future__ import annotations

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
