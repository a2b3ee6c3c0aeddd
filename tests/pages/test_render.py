"""What every page is owed: escaped texts, pictures that fit, no silent gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

from signstreams.pages.render import QUALITIES, ShownClip, percent, render, rounded

SCORES = {"split": "val", "bleu_4": 1.0, "chrf": 2.0, "rouge_l": 3.0}


def translations(*clips: ShownClip, **scores: Any) -> str:
    about = {"scores": SCORES | scores, "splits": [("val", SCORES)], "signers": [""], "rated": ["chrf"], "part": 1}
    about |= {"num_clips": len(clips), "num_shown": len(clips), "part_clips": 300, "parts": [""], "main_page": "x"}
    return render("translations.html", **about, clips=clips)


def test_markup_in_a_text_is_shown_not_obeyed() -> None:
    evil = "<script>alert('a & \"bb\"')</script>"
    texts = dict.fromkeys(("split", "video_id", "signer", "video", "picture"), evil)
    clip = ShownClip(evil, None, evil, evil, evil, evil, **texts, span_s=(0.0, 1.0), cues=[(0.0, 1.0, evil)])
    page = translations(clip, split=evil)
    assert page.count("<script") == 1 and page.count("alert(") == page.count("&lt;script&gt;alert(&#39;a") > 12
    assert '"bb"' not in page  # no attribute ends within a text


def test_control_characters_and_stray_bytes_are_shown_as_escapes() -> None:
    page = translations(ShownClip("a\x1b[31m\x00", None, "one\ntwo\tñ\u00a0", "stray \udcff"))
    assert r"a\x1b[31m\x00" in page and "one\ntwo\tñ\u00a0" in page and r"stray \udcff" in page
    page.encode()


def test_right_words_are_marked_whatever_their_case_and_punctuation() -> None:
    page = translations(ShownClip("one", None, "¿Dónde está?", "dónde, ESTÁ aquí"), ShownClip("two", None, "hola", ""))
    right = '<span class="right">dónde,</span> <span class="right">ESTÁ</span> aquí'
    assert right in page.replace("\n", "") and "<i>nothing</i>" in page


def test_pages_of_translations_are_in_the_readers_language(
    monkeypatch: pytest.MonkeyPatch, left_in_english: Callable[[str], list[str]]
) -> None:
    clip = ShownClip("one", None, "a b", "a", "A", "", {"chrf": 1.0}, "val", "v", "ana", (0.0, 1.0), video="v.mp4")
    about = {"title": "x", "duration_s": 9.0, "sentences": [], "cues": [], "address": None}
    note = "x: learned glosses alone (mska.translation_weight 0): there is no text"
    few = "8 clips cannot teach translation; some thousands do"

    def pages() -> list[str]:
        return [translations(clip, few_clips=few), render("translation.html", **about, notes=[note])]

    assert all(left_in_english(page) for page in pages())
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    first, second = pages()
    assert left_in_english(first) == left_in_english(second) == []
    assert "<dt>dicho</dt>" in first and "8 clips no alcanzan para enseñar a traducir" in first
    assert '"%(num)s of %(total)s": "%(num)s de %(total)s"' in first  # for the script
    assert (
        '<html lang="es">' in second
        and "aprendió solo glosas" in second
        and 'addTextTrack("subtitles", "traduc' in second
    )


def test_too_few_clips_are_said_on_the_page() -> None:
    said = "8 clips cannot teach translation; some thousands do"
    assert f"<p>{said}.</p>" in translations(few_clips=said) and "cannot teach" not in translations()


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'part' is undefined"):
        render("translations.html", scores=SCORES, num_clips=0)


def test_pictures_get_poorer_until_the_page_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8)
    sizes = [len(translations(ShownClip("one", noise, "a", "b")).encode())]
    while len(sizes) < len(QUALITIES):
        monkeypatch.setattr("signstreams.pages.render.MAX_BYTES", sizes[-1] - 1)
        sizes.append(len(translations(ShownClip("one", noise, "a", "b")).encode()))
    assert sizes == sorted(set(sizes), reverse=True)
    monkeypatch.setattr("signstreams.pages.render.MAX_BYTES", 0)
    assert len(translations(ShownClip("one", noise, "a", "b")).encode()) == sizes[-1]


def test_figures_for_people_have_a_dash_where_there_is_none() -> None:
    assert (rounded(None), rounded(3.14159), rounded(3.14159, 1)) == ("–", "3.14", "3.1")
    assert (percent(None), percent(0.923)) == ("–", "92 %")
