"""Caption files: SubRip (.srt), WebVTT (.vtt) and YouTube's json3, as texts with their times."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signstreams.corpus.findings import Finding, Rule
from signstreams.corpus.numbers import parse_time_s
from signstreams.corpus.table import CONVERTED, READABLE, decode_text
from signstreams.ids import shown

CAPTION_SUFFIXES = (".srt", ".vtt", ".json3")

CUE = Rule("captions.cue", "warning", "a line such as 00:00:01.200 --> 00:00:03.400 above each text")
CAPTION_RULES = (CUE,)

_ARROW = re.compile(r"^\s*(\S+)\s*-->\s*(\S+)(?:\s.*)?$")
_TAG = re.compile(r"<[^<>\n]{1,100}>|\{\\[^{}\n]{1,40}\}")  # <i>, <00:00:01.000>, <c.colour>, {\an8}


@dataclass(frozen=True)
class Cue:
    """One caption."""

    start_s: float  # of the video
    end_s: float
    text: str  # without marks of form; lines joined by a blank
    line: int  # of the file, from 1; of json3, the number of the event


@dataclass
class Captions:
    """Cues in the order of the file, and findings."""

    cues: list[Cue] = field(default_factory=list)
    issues: list[Finding] = field(default_factory=list)


def read_captions(path: Path, name: str) -> Captions:
    """Read a caption file; faults of its content are findings with ``name`` as their file.

    Raises:
        OSError: It cannot be read.
    """
    captions = Captions()
    try:
        text, encoding = decode_text(path.read_bytes())
    except ValueError as error:
        captions.issues.append(READABLE.breach(name, str(error), "save the file again as UTF-8"))
        return captions
    if encoding:
        fix = "check a text with accents, then save the file again as UTF-8"
        captions.issues.append(CONVERTED.breach(name, f"{encoding}, read as such", fix))
    if path.suffix.lower() == ".json3":
        _read_json3(text, name, captions)
    else:
        _read_blocks(text, name, captions)
    return captions


def _read_blocks(text: str, name: str, captions: Captions) -> None:
    """SubRip and WebVTT: blocks between empty lines, of which those with an arrow are cues."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if _ARROW.match(line)]
    arrows_in_text = {number for number, line in enumerate(lines) if "-->" in line} - set(starts)
    for number in sorted(arrows_in_text):
        _report(captions, name, f"the line {shown(lines[number].strip()[:60])}", number + 1)
    for place, number in enumerate(starts):
        match = _ARROW.match(lines[number])
        assert match is not None
        start_s, end_s = parse_time_s(match[1]), parse_time_s(match[2])
        if ":" not in match[1] or start_s is None or end_s is None:
            _report(captions, name, f"the times {shown(lines[number].strip()[:60])}", number + 1)
            continue
        last = starts[place + 1] if place + 1 < len(starts) else len(lines)
        body = lines[number + 1 : last]
        if "" in (stripped := [line.strip() for line in body]):
            body = body[: stripped.index("")]
        captions.cues.append(Cue(start_s, end_s, _plain(body), number + 1))
    if not starts and lines:
        _report(captions, name, "no cue", 1)


def _read_json3(text: str, name: str, captions: Captions) -> None:
    """YouTube's ``{"events": [{"tStartMs": ..., "dDurationMs": ..., "segs": [{"utf8": ...}, ...]}, ...]}``."""
    try:
        events = json.loads(text)["events"]
        assert isinstance(events, list)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        found = "no list of events"
        captions.issues.append(READABLE.breach(name, found, "fetch it again", expects="YouTube's captions as json3"))
        return
    for number, event in enumerate(events, 1):
        segments = event.get("segs") if isinstance(event, dict) else None
        if not segments:  # windows and styles
            continue
        try:
            words = "".join(str(segment["utf8"]) for segment in segments)
            start_ms, length_ms = (_whole(event[key]) for key in ("tStartMs", "dDurationMs"))
        except (KeyError, TypeError):
            if event.get("aAppend") != 1:  # a line break that scrolls the window
                _report(captions, name, f"event {number}: no text with times", number)
            continue
        if not words.strip():
            continue
        captions.cues.append(Cue(start_ms / 1000, (start_ms + length_ms) / 1000, _plain(words.splitlines()), number))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise TypeError
    return value


def _plain(lines: list[str]) -> str:
    text = html.unescape(_TAG.sub("", " ".join(line.strip() for line in lines)))
    return " ".join(text.split())


def _report(captions: Captions, name: str, found: str, line: int) -> None:
    captions.issues.append(CUE.breach(name, found, "correct it; it is left out", row=line))
