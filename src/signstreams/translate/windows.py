"""Sentences that are longer than any clip of the training: read in windows that overlap, whose results are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from signstreams.formats.subtitles import Cue
from signstreams.segment.scores import Span

OVERLAP_S = 2.0
"""Common part of two windows, at most a quarter of one: a sign at the edge of one is in the midst of the other."""


@dataclass(frozen=True)
class Window:
    """A part of a sentence that the model reads at once."""

    start_s: float
    end_s: float
    own_s: Span  # what it answers for: windows overlap, these parts do not


def windows_of(span: Span, longest_s: float) -> list[Window]:
    """The span as one window, or as equally long ones of at most ``longest_s`` that overlap by `OVERLAP_S`."""
    start_s, end_s = span
    if not math.isfinite(end_s - start_s) or end_s - start_s <= longest_s:
        return [Window(start_s, end_s, span)]
    overlap_s = min(OVERLAP_S, longest_s / 4)
    count = math.ceil((end_s - start_s - overlap_s) / (longest_s - overlap_s))
    length_s = (end_s - start_s + (count - 1) * overlap_s) / count
    starts = [start_s + number * (length_s - overlap_s) for number in range(count)]
    cuts = [start_s, *(moment + overlap_s / 2 for moment in starts[1:]), end_s]
    return [
        Window(moment, min(end_s, moment + length_s), (cuts[number], cuts[number + 1]))
        for number, moment in enumerate(starts)
    ]


def joined_text(texts: Sequence[str]) -> str:
    """The texts of the windows of one sentence: words that end one and begin the next are said once."""
    words: list[str] = []
    for text in texts:
        following = text.split()
        most = min(len(words), len(following))
        bare = [_bare(word) for word in words], [_bare(word) for word in following]
        common = next((n for n in range(most, 0, -1) if bare[0][-n:] == bare[1][:n]), 0)
        words += following[common:]
    return " ".join(words)


def joined_glosses(windows: Sequence[Window], glosses: Sequence[Sequence[Cue]]) -> list[Cue]:
    """Glosses of the windows of one sentence, each from the window that answers for its middle."""
    out: list[Cue] = []
    for window, found in zip(windows, glosses, strict=True):
        first_s, last_s = window.own_s
        for cue in found:
            if not first_s <= (cue.start_s + cue.end_s) / 2 < last_s:
                continue
            if out and cue.start_s < out[-1].end_s:
                cue = Cue(out[-1].end_s, cue.end_s, cue.text)
            if cue.end_s > cue.start_s:
                out.append(cue)
    return out


def cut_to(cues: Sequence[Cue], start_s: float, end_s: float) -> list[Cue]:
    """The cues within a span, to the millisecond: a frame at its edge lasts longer than the span."""
    out = []
    last_s = start_s
    for cue in cues:
        first_s, until_s = max(cue.start_s, last_s), min(cue.end_s, end_s)
        if round(1000 * until_s) > round(1000 * first_s):
            out.append(Cue(first_s, until_s, cue.text))
            last_s = until_s
    return out


def _bare(word: str) -> str:
    return word.strip(".,;:!?¡¿").casefold()
