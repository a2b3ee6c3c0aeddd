"""Long sentences in windows: all of a sentence is read, no window is too long, and nothing is said twice."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from signstreams.formats.subtitles import Cue
from signstreams.translate.windows import OVERLAP_S, Window, cut_to, joined_glosses, joined_text, windows_of


@pytest.mark.parametrize("length_s", [10.0, 10.01, 19.0, 60.0, 3600.0])
def test_windows_cover_a_sentence_and_overlap(length_s: float) -> None:
    windows = windows_of((5.0, 5.0 + length_s), 10.0)
    assert windows[0].start_s == 5.0 and windows[-1].end_s == pytest.approx(5.0 + length_s)
    assert max(window.end_s - window.start_s for window in windows) <= 10.0 + 1e-9
    for one, other in pairwise(windows):
        assert one.end_s - other.start_s == pytest.approx(OVERLAP_S)
        assert one.own_s[1] == other.own_s[0] == pytest.approx((one.end_s + other.start_s) / 2)
    assert (windows[0].own_s[0], windows[-1].own_s[1]) == (5.0, 5.0 + length_s)


def test_a_sentence_that_fits_is_one_window() -> None:
    assert windows_of((1.0, 4.0), 3.0) == [Window(1.0, 4.0, (1.0, 4.0))]
    assert windows_of((0.0, math.inf), 3.0) == [Window(0.0, math.inf, (0.0, math.inf))]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Mañana llueve en casa.", "En casa hace frío."], "Mañana llueve en casa. hace frío."),
        (["uno dos", "tres"], "uno dos tres"),
        (["", "uno", ""], "uno"),
        (["sí sí sí", "sí sí"], "sí sí sí"),
    ],
)
def test_words_of_the_overlap_are_said_once(texts: list[str], expected: str) -> None:
    assert joined_text(texts) == expected


def test_a_gloss_comes_from_the_window_that_answers_for_its_middle() -> None:
    windows = windows_of((0.0, 18.0), 10.0)  # 0 to 10, 8 to 18, cut at 9
    glosses = [
        [Cue(1.0, 2.0, "A"), Cue(8.2, 9.4, "B"), Cue(9.4, 10.0, "C")],
        [Cue(8.0, 8.9, "X"), Cue(9.2, 10.5, "C"), Cue(11.0, 12.0, "D")],
    ]
    assert joined_glosses(windows, glosses) == [
        Cue(1.0, 2.0, "A"),
        Cue(8.2, 9.4, "B"),
        Cue(9.4, 10.5, "C"),
        Cue(11.0, 12.0, "D"),
    ]


def test_what_reaches_over_a_sentence_is_cut() -> None:
    cues = [Cue(0.5, 1.2, "A"), Cue(1.1, 1.8, "B"), Cue(1.8, 2.04, "C"), Cue(2.0, 2.1, "D")]
    assert cut_to(cues, 1.0, 2.0) == [Cue(1.0, 1.2, "A"), Cue(1.2, 1.8, "B"), Cue(1.8, 2.0, "C")]
