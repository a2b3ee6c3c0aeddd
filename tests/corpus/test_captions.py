"""Captions of all three kinds, in the encodings and with the marks that they come with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from signstreams.corpus.captions import read_captions

SRT = """\
1
00:00:01,200 --> 00:00:03,400
<i>¿Dónde está</i>
el agua?

2
01:00:05,000 --> 01:00:06,500 X1:0 X2:10
{\\an8}Estoy bien &amp; tú.
"""
VTT = """\
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
CUES = [(1.2, 3.4, "¿Dónde está el agua?"), (3605.0, 3606.5, "Estoy bien & tú.")]


def cues(path: Path) -> list[tuple[float, float, str]]:
    found = read_captions(path, path.name)
    return [(cue.start_s, cue.end_s, cue.text) for cue in found.cues]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_subrip_is_read_in_every_encoding(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(SRT.replace("\n", newline).encode(encoding))
    assert cues(path) == CUES
    said = {issue.rule for issue in read_captions(path, "a.srt").issues}
    assert said == ({"table.converted"} if encoding in ("utf-16", "cp1252") else set())


def test_webvtt_is_read_without_its_styles_notes_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(VTT, encoding="utf-8")
    assert cues(path) == CUES
    (issue,) = read_captions(path, "a.vtt").issues
    assert (issue.rule, issue.row) == ("captions.cue", 8)  # the arrow in a note


def test_youtubes_json3_is_read(tmp_path: Path) -> None:
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
    ]
    path = tmp_path / "a.json3"
    path.write_text(json.dumps({"wireMagic": "pb3", "events": events}), encoding="utf-8")
    assert cues(path) == CUES
    assert [(issue.rule, issue.row) for issue in read_captions(path, "a.json3").issues] == [("captions.cue", 5)]


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"events": 3}', "[" * 100_000])
def test_json_of_another_kind_is_one_finding(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json3"
    path.write_text(content, encoding="utf-8")
    found = read_captions(path, "a.json3")
    assert (found.cues, [issue.rule for issue in found.issues]) == ([], ["table.encoding"])


def test_times_that_cannot_be_read_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text(SRT.replace("00:00:01,200", "00:00:01:05"), encoding="utf-8")
    found = read_captions(path, "a.srt")
    assert [cue.text for cue in found.cues] == ["Estoy bien & tú."]
    (issue,) = found.issues
    assert issue.row == 2 and "'00:00:01:05 --> 00:00:03,400'" in issue.found


def test_a_file_without_any_caption_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("only words\n", encoding="utf-8")
    found = read_captions(tmp_path / "a.srt", "a.srt")
    assert (found.cues, [issue.found for issue in found.issues]) == ([], ["no cue"])
