"""Subtitles: SubRip (.srt) and WebVTT (.vtt), read and written; YouTube's json3, read; cues and faults of timed text.

SubRip has no standard: times with a comma, numbered cues (https://docs.fileformat.com/video/srt/). WebVTT is
https://www.w3.org/TR/webvtt1/. Both are read line by line around the lines that hold times, so that a missing number or
a blank line within a text loses nothing.
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signstreams.files import write_text
from signstreams.ids import composed, shown

SUBTITLE_SUFFIXES = (".srt", ".vtt")
CAPTION_SUFFIXES = (*SUBTITLE_SUFFIXES, ".json3")
"""What can be read; YouTube's json3 is never written."""

LINE_CHARACTERS = 42
"""Longest line of a subtitle that is written, as broadcasters have it (EBU, BBC: 37 to 42); words are never cut."""


@dataclass(frozen=True)
class Cue:
    """A text with the time that it is of, from ``start_s`` to before ``end_s``."""

    start_s: float  # seconds from the start of the video
    end_s: float  # seconds; after the start
    text: str = ""  # in one line
    line: int = field(default=0, compare=False)
    """Of the file that it was read from, from 1 (of json3 the number of the event); 0 when it was made."""


@dataclass(frozen=True)
class Fault:
    """What could not be read, or reads oddly, in a file of timed text."""

    kind: str  # short, to count by: "unreadable times", "no length"
    place: str  # within the file: "line 12", "annotation a7"
    found: str  # what is there
    line: int = field(default=0, compare=False)  # of the file, as that of a cue; 0 where it has none

    def __str__(self) -> str:
        return f"{self.place}: {self.found}"


UNREADABLE_TIMES, NO_LENGTH, LOST_TEXT = "unreadable times", "no length", "text without times"


# -- Reading

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?", re.ASCII)
_ARROW = re.compile(r"\s*[\d:.,\s]*-->[\d:.,\s]*")  # meant as times; an arrow in running text is none
_SRT_TAGS = re.compile(r"</?(?:[biu]|font(?: [^<>]*)?)>|\{an?\d\}|\{\\[^{}\n]{1,40}\}", re.IGNORECASE)
_VTT_TAGS = re.compile(r"</?(?:[biuvc]|lang|ruby|rt)(?:[ .\t][^<>]*)?>|<[\d:.]+>", re.IGNORECASE)
_VTT_BLOCKS = ("NOTE", "STYLE", "REGION", "WEBVTT")


def parse_subtitles(text: str, suffix: str) -> tuple[list[Cue], list[Fault]]:
    """Cues in the order of the file, and faults; ``text`` is without BOM, ``suffix`` one of `CAPTION_SUFFIXES`.

    Tags are removed, entities resolved and lines joined by a blank. A cue without text has an empty one. A cue whose
    times cannot be read, or whose end is not after its start, is a fault and no cue.

    Raises:
        ValueError: It is no json3, of a file that is called so.
    """
    if suffix.lower() == ".json3":
        return _parse_json3(text)
    is_vtt = suffix.lower() == ".vtt"
    lines = re.split(r"\r\n|\n|\r", text)
    timed = [number for number, line in enumerate(lines) if _TIMES.fullmatch(line) or _is_broken(line, lines, number)]
    cues, faults = [], []
    for place, number in enumerate(timed):
        following = timed[place + 1] if place + 1 < len(timed) else len(lines)
        body = lines[number + 1 : _start_of_cue(lines, following, number + 1)]
        if is_vtt:
            body, left = _up_to_blank_line(body)
            faults += [_fault(LOST_TEXT, number + 2 + at, shown(line)) for at, line in left]
        match = _TIMES.fullmatch(lines[number])
        if match is None:
            faults.append(_fault(UNREADABLE_TIMES, number + 1, shown(lines[number].strip()[:60])))
            continue
        start_s, end_s = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        if end_s <= start_s:
            faults.append(_fault(NO_LENGTH, number + 1, f"{start_s:g} to {end_s:g} s"))
            continue
        cues.append(Cue(start_s, end_s, _plain(body, is_vtt), number + 1))
    return cues, faults


def _fault(kind: str, line: int, found: str) -> Fault:
    return Fault(kind, f"line {line}", found, line)


def _parse_json3(text: str) -> tuple[list[Cue], list[Fault]]:
    """YouTube's ``{"events": [{"tStartMs": ..., "dDurationMs": ..., "segs": [{"utf8": ...}, ...]}, ...]}``."""
    try:
        events = json.loads(text)["events"]
        if not isinstance(events, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("holds no list of events, expected YouTube's captions as json3") from None
    cues, faults = [], []
    for number, event in enumerate(events, 1):
        segments = event.get("segs") if isinstance(event, dict) else None
        if not segments:  # windows and styles
            continue
        try:
            words = "".join(str(segment["utf8"]) for segment in segments)
            start_ms, length_ms = (_whole_ms(event[key]) for key in ("tStartMs", "dDurationMs"))
        except (KeyError, TypeError):
            if event.get("aAppend") != 1:  # a line break that scrolls the window
                faults.append(Fault(UNREADABLE_TIMES, f"event {number}", "no text with times", number))
            continue
        if not words.strip():
            continue
        start_s, end_s = start_ms / 1000, (start_ms + length_ms) / 1000
        if not length_ms:
            faults.append(Fault(NO_LENGTH, f"event {number}", f"{start_s:g} to {end_s:g} s", number))
            continue
        cues.append(Cue(start_s, end_s, _plain(words.splitlines(), is_vtt=True), number))
    return cues, faults


def _whole_ms(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**40:
        raise TypeError
    return value


def _is_broken(line: str, lines: Sequence[str], number: int) -> bool:
    """Whether a line holds an arrow at the place of times, which cannot be read."""
    if "-->" not in line:
        return False
    is_first = number == 0 or not lines[number - 1].strip() or lines[number - 1].strip().isdecimal()
    return _ARROW.fullmatch(line) is not None or is_first


def _start_of_cue(lines: Sequence[str], timed: int, least: int) -> int:
    """Line where the cue with the times in line ``timed`` starts: at its number or name, if it has one."""
    if timed == len(lines) or timed <= least:
        return timed
    above = lines[timed - 1].strip()
    is_named = above and (timed - 1 == least or not lines[timed - 2].strip())
    return timed - 1 if above.isdecimal() or is_named else timed


def _up_to_blank_line(body: list[str]) -> tuple[list[str], list[tuple[int, str]]]:
    """The text of a WebVTT cue, and lines after it that are no comment, style or region."""
    end = next((at for at, line in enumerate(body) if not line.strip()), len(body))
    left: list[tuple[int, str]] = []
    in_block = False
    for at in range(end, len(body)):
        line = body[at].strip()
        if not line:
            in_block = False
        elif line.startswith(_VTT_BLOCKS):
            in_block = True
        elif not in_block:
            left.append((at, line))
    return body[:end], left


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "" for part in parts)
    milliseconds = int(fraction.ljust(3, "0"))
    return round(3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + milliseconds / 1000, 3)


def _plain(body: Iterable[str], is_vtt: bool) -> str:
    text = " ".join(" ".join(body).split())
    text = composed(html.unescape((_VTT_TAGS if is_vtt else _SRT_TAGS).sub("", text)))
    return " ".join(text.split())


# -- Writing


def write_subtitles(path: Path, cues: Iterable[Cue]) -> None:
    """Write cues as SubRip or WebVTT, by the ending of ``path``, whole or not at all.

    Raises:
        ValueError: It ends otherwise, or a cue has no length in milliseconds.
    """
    write_text(path, format_subtitles(cues, path.suffix))


def format_subtitles(cues: Iterable[Cue], suffix: str) -> str:
    """The text of a ``.srt`` or ``.vtt`` file; long texts are broken into lines at blanks."""
    kind = suffix.lower()
    if kind not in SUBTITLE_SUFFIXES:
        raise ValueError(f"the ending is '{suffix}', expected one of {', '.join(SUBTITLE_SUFFIXES)}")
    mark = "," if kind == ".srt" else "."
    blocks = [] if kind == ".srt" else ["WEBVTT\n"]
    for number, cue in enumerate(cues, start=1):
        times = clock_time(cue.start_s, mark), clock_time(cue.end_s, mark)
        if times[0] >= times[1]:
            raise ValueError(f"cue {number}: {cue.start_s} to {cue.end_s} s has no length in milliseconds")
        text = "\n".join(_broken(cue.text))
        if kind == ".vtt":
            text = html.escape(text, quote=False)
        blocks.append(f"{number}\n{times[0]} --> {times[1]}\n{text}\n")
    return "\n".join(blocks)


def clock_time(seconds: float, mark: str = ".") -> str:
    """``01:05:02.300``, with ``mark`` before the milliseconds."""
    whole, milliseconds = divmod(max(0, round(seconds * 1000)), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{mark}{milliseconds:03d}"


def _broken(text: str) -> list[str]:
    """Lines of a subtitle of about equal length, none longer than `LINE_CHARACTERS` unless a word is."""
    text = " ".join(text.split()).replace("-->", "→")  # an arrow of this kind would read as times
    num_lines = max(1, -(-len(text) // LINE_CHARACTERS))
    lines: list[str] = []
    for width in range(max(1, -(-len(text) // num_lines)), LINE_CHARACTERS + 1):
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        if len(lines) <= num_lines:
            break
    return lines
