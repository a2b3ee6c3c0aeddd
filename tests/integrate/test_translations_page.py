"""`translations.html`: what it shows of each clip, how long lists are divided, what people do with it in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from signstreams.formats.layout import CorpusLayout
from signstreams.formats.subtitles import Cue
from signstreams.integrate.clips import ClipEntry, ClipSet, load_clips
from signstreams.integrate.evaluate import Prediction
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.translations_page import Sources, parts_folder, video_files, write_page

CONTENT = {"split": "val", "num_clips": 3, "bleu_4": 1.0, "chrf": 2.0, "rouge_l": 3.0}
TEXTS = ("El niño come pan.", "Mañana llueve en casa.", "El perro bebe agua.")


@pytest.fixture(scope="module")
def clips(tiny_config: Callable[..., IntegrateConfig]) -> ClipSet:
    return load_clips(tiny_config())


@pytest.fixture(scope="module")
def entries(clips: ClipSet) -> list[ClipEntry]:
    return clips.entries["val"]


@pytest.fixture(scope="module")
def sources(clips: ClipSet, processed_corpus: Path) -> Sources:
    """The corpus, whose videos no browser can play."""
    layout = CorpusLayout(processed_corpus)
    times_s = {video.video_id: clips.points.times_s[video.video_id] for video in clips.videos}
    return Sources(layout, video_files([layout.videos]), times_s)


def write(folder: Path, predictions: Sequence[Prediction], sources: Sources, **more: Any) -> str:
    """The page's text, of predictions by the head ``fuse``."""
    write_page(folder / "page.html", predictions, more.pop("content", CONTENT), sources, "fuse", **more)
    return (folder / "page.html").read_text(encoding="utf-8")


def numbered(entry: ClipEntry, count: int) -> list[Prediction]:
    entries = [replace(entry, clip_id=f"clip {n}", text=f"{n} casas") for n in range(count)]
    return [Prediction(e, "casas", {"fuse": ["CASA"]}) for e in entries]


def ids_in(page: str) -> list[str]:
    return re.findall(r'data-id="([^"]+)"', page)


def test_the_page_escapes_what_people_wrote_and_needs_no_other_file(
    entries: list[ClipEntry], sources: Sources, tmp_path: Path
) -> None:
    wild = "<script>alert('a & b')</script>"
    own = [replace(entries[0], clip_id=f"{wild}{n}", text=f"{wild} casa", gloss=(wild,), signer=wild) for n in (0, 1)]
    cues = [Cue(0.0, 0.5, wild)]
    page = write(tmp_path, [Prediction(e, f"casa {wild}", {"fuse": [wild]}, cues) for e in own], sources)
    assert page.count("<script") == 1 and page.count("alert(") == page.count("&lt;script&gt;alert(&#39;a")
    assert page.count("data:image/webp;base64,") == 2 and "http" not in page and "All 2 clips" in page
    assert '<span class="right">casa</span>' in page


def test_a_clip_has_its_scores_times_and_glosses(entries: list[ClipEntry], sources: Sources, tmp_path: Path) -> None:
    entry = replace(entries[0], text="uno dos tres cuatro", gloss=("A", "B"), signer="ana", frames=range(5, 25))
    predictions = [Prediction(entry, "uno dos tres cuatro", {"fuse": ["A"]}, [Cue(0.4, 0.6, "A")])]
    page = write(tmp_path, predictions, sources)
    for attribute in ('chrf="100.00"', 'bleu_4="100.00"', 'wer="50.00"', 'split="val"', 'signer="ana"'):
        assert f"data-{attribute}" in page
    assert 'data-start="0.200" data-end="1.000" data-duration="0.800"' in page
    assert '<div class="lane">recognised glosses</div>\n<div class="timeline">' in page
    assert 'data-t="0.400" title="A, 0:00.40 to 0:00.60" style="left:25.0%;width:25.0%">A</button>' in page


def test_glosses_are_rated_as_the_evaluation_cleans_them(
    entries: list[ClipEntry], sources: Sources, tmp_path: Path
) -> None:
    """PHOENIX's rules take a repetition for one gloss; without a text the worst are those of the highest WER."""
    own = [replace(entries[0], clip_id=f"clip {n}", gloss=("HAUS", "BAUM")) for n in (0, 1)]
    said = (["HAUS", "HAUS", "BAUM"], ["BAUM"])
    predictions = [Prediction(e, "", {"fuse": glosses}) for e, glosses in zip(own, said, strict=True)]
    content = {"split": "val", "num_clips": 2, "gloss": {"wer": 1.0, "head": "fuse"}}
    cleaned = write(
        tmp_path, predictions, sources, content=content, scoring=ScoringConfig(gloss_cleanup="phoenix2014t")
    )
    assert 'data-wer="0.00"' in cleaned and 'data-wer="50.00"' in cleaned
    assert ids_in(cleaned) == ["clip 1", "clip 0"] and "By gloss WER" in cleaned and "BLEU" not in cleaned
    assert write(tmp_path, predictions, sources, content=content).count('data-wer="50.00"') == 2


def test_a_clip_plays_from_its_video_by_relative_path_and_has_its_pictures_without(
    entries: list[ClipEntry], sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "videos").mkdir()
    for entry in entries[1:]:
        (tmp_path / "videos" / f"{entry.video.video_id}.mp4").touch()
    files = video_files([tmp_path / "absent", tmp_path / "videos"])
    predictions = [Prediction(entry, "hola", {}) for entry in entries]
    text = write(tmp_path / "run", predictions, replace(sources, videos=files))
    assert text.count('class="film"') == len(entries) - 1 and text.count("<img ") == len(entries)
    last_s = (entries[1].frames[-1] + 1) / 25
    assert f'href="../videos/{quote(entries[1].video.video_id)}.mp4#t=0.000,{last_s:.3f}"' in text
    assert video_files([tmp_path / "absent"]) == {}


def test_the_page_shows_clips_whose_crops_are_gone(entries: list[ClipEntry], tmp_path: Path) -> None:
    page = write(tmp_path, [Prediction(entries[0], "", {})], Sources(CorpusLayout(tmp_path), {}, {}))
    assert "<i>nothing</i>" in page and re.search(r"<h2[^>]*>1 clip</h2>", page)


def test_a_long_list_is_divided_and_its_pictures_lie_beside_it(
    entries: list[ClipEntry], sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.integrate.translations_page.PART_CLIPS", 2)
    folder = parts_folder(tmp_path / "page.html")
    first = write(tmp_path, numbered(entries[0], 5), sources)
    parts = [first, *((folder / f"part_{n}.html").read_text(encoding="utf-8") for n in (2, 3))]
    assert sorted(clip for page in parts for clip in ids_in(page)) == [f"clip {n}" for n in range(5)]
    assert (
        "Clips 1 to 2 of 5" in first and "data:image" not in first and 'href="translations_parts/part_3.html"' in first
    )
    assert 'href="part_3.html"' in parts[1] and 'href="../page.html"' in parts[1]
    for place, page in enumerate(parts):
        for picture in re.findall(r'<img [^>]*src="([^"]+)"', page):
            assert ((folder if place else tmp_path) / picture).read_bytes()[8:12] == b"WEBP"
    write(tmp_path, numbered(entries[0], 4), sources)
    assert not (folder / "part_3.html").exists() and len(list((folder / "pictures").iterdir())) == 4
    write(tmp_path, numbered(entries[0], 2), sources)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_of_more_clips_than_a_browser_sorts_some_are_shown_from_the_worst_to_the_best(
    entries: list[ClipEntry], sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.integrate.translations_page.MAX_CLIPS", 3)
    own = [replace(entries[0], clip_id=f"clip {n}", text="uno dos tres cuatro cinco") for n in range(5)]
    words = ["uno", "dos", "tres", "cuatro", "cinco"]
    page = write(tmp_path, [Prediction(e, " ".join(words[: n + 1]), {}) for n, e in enumerate(own)], sources)
    assert ids_in(page) == ["clip 0", "clip 2", "clip 4"] and "3 of 5 clips" in page


# -- In a browser


def film(path: Path, num_frames: int = 50) -> None:
    """A video of two seconds that every Chromium plays."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            image = np.full((48, 64, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def used(entries: list[ClipEntry], sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three clips, of which two have a video that plays and the third one that does not."""
    folder = tmp_path_factory.mktemp("used")
    videos = [folder / "videos" / f"{entry.video.video_id}.webm" for entry in entries]
    videos[0].parent.mkdir()
    film(videos[0])
    shutil.copy(videos[0], videos[1])
    videos[2].write_bytes(b"no video")
    said = ("El niño come pan.", "Mañana llueve.", "¿Qué?")
    about = zip(entries, TEXTS, ("ana", "bruno", "ana"), ("val", "test", "test"), said, strict=True)
    predictions = [
        Prediction(
            replace(entry, clip_id=f"clip {n}", text=text, signer=signer, split=split, frames=range(5, 25)),
            hypothesis,
            {"fuse": ["CASA"]},
            [Cue(0.3, 0.5, "CASA"), Cue(0.6, 0.9, "AGUA")],
        )
        for n, (entry, text, signer, split, hypothesis) in enumerate(about)
    ]
    content = {**CONTENT, "split": "test", "val": CONTENT, "gloss": {"wer": 100.0, "head": "fuse"}}
    write(folder, predictions, replace(sources, videos=video_files([folder / "videos"])), content=content)
    return folder / "page.html"


SHOWN = (
    "[...document.querySelectorAll('article')].filter(e => e.checkVisibility()).map(e => e.dataset.id.slice(5)).join()"
)


def choose(tab: Any, selector: str, value: str) -> None:
    """Choose an option as a person's choice is heard: a closed list of options opens outside of the page."""
    tab.run(
        f"(() => {{ const e = document.querySelector({selector!r}); e.value = {value!r};"
        " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def test_the_list_is_searched_sorted_and_filtered(browser: Any, used: Path) -> None:
    with browser.open(used, "desktop") as tab:
        assert tab.run(SHOWN) == "2,1,0"  # the worst first
        tab.click("[name=search]")
        tab.type("NINO pan")  # whatever the case and the accents
        tab.until(f"{SHOWN} === '0'")
        assert tab.run("count.textContent") == "1 of 3"
        tab.click("[type=reset]")
        tab.until(f"{SHOWN} === '2,1,0'")
        choose(tab, "[name=sort]", "chrf -1")
        assert tab.run(SHOWN) == "0,1,2"
        choose(tab, "[name=sort]", "id 1")
        choose(tab, "[data-filter=signer]", "=ana")
        assert tab.run(SHOWN) == "0,2"
        choose(tab, "[data-filter=split]", "=test")
        assert tab.run(SHOWN) == "2"
        tab.click("[type=reset]")
        tab.until("count.textContent === '3 of 3'")
        tab.click("[name=from]")
        tab.type("30")
        tab.until(f"{SHOWN} === '1,0'")
        tab.click("[name=to]")
        tab.type("99")
        tab.until(f"{SHOWN} === '1'")
        assert tab.look().complaints == []


def test_a_clip_plays_its_span_by_mouse_and_by_keyboard(browser: Any, used: Path) -> None:
    video = "document.querySelector('article:not([hidden]) video')"
    with browser.open(used, "phone") as tab:
        choose(tab, "[data-filter=split]", "=val")
        tab.click("article:not([hidden]) .film")
        tab.until(f"{video}?.currentTime > 0.2")
        assert tab.run(f"{video}.currentSrc").endswith(".webm") and not tab.run(
            "document.querySelector('.film').hidden"
        )
        tab.until(f"{video}.paused && {video}.currentTime > 0.9 && {video}.currentTime < 1.3")  # at the clip's end
        assert tab.run("document.querySelector('article:not([hidden]) .timeline .now').textContent") == "AGUA"
        tab.click("article:not([hidden]) .timeline button")  # the first gloss
        tab.until(f"!{video}.paused")
        tab.until("document.querySelector('article:not([hidden]) .timeline .now')?.textContent === 'CASA'")
    with browser.open(used, "desktop") as tab:
        tab.run("document.getElementById('clip-clip%201').querySelector('.film').focus()")
        tab.press("Enter")
        tab.until("document.querySelector('video')?.currentTime > 0.2")
        assert tab.run("document.activeElement.tagName") == "VIDEO"


def test_what_cannot_be_played_keeps_its_frames_and_says_so(browser: Any, used: Path) -> None:
    with browser.open(used, "desktop") as tab:
        tab.click("article .film")  # the worst clip, whose file is none
        tab.until("document.querySelector('article p.error') !== null")
        assert "Not there, or of a kind" in tab.run("document.querySelector('article p.error').textContent")
        assert tab.run("document.querySelector('video') === null && document.querySelector('.film').checkVisibility()")


def test_without_scripts_the_list_is_there_and_links_to_the_videos(browser: Any, used: Path) -> None:
    with browser.open(used, "phone") as tab:
        tab.without_scripts()
        assert tab.run(SHOWN) == "2,1,0" and not tab.run("tools.checkVisibility()")
        assert tab.run("document.querySelectorAll('.film')[2].href").endswith(".webm#t=0.200,1.000")


def test_the_parts_of_a_long_list_are_searched_as_one(
    browser: Any, entries: list[ClipEntry], sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.integrate.translations_page.PART_CLIPS", 2)
    write(tmp_path, numbered(entries[0], 5), sources)
    with browser.open(tmp_path / "page.html", "desktop") as tab:
        tab.until("count.textContent === '5 of 5' && parts.hidden")
        choose(tab, "[name=sort]", "id 1")
        assert tab.run(SHOWN) == "0,1,2,3,4"
        assert tab.look().complaints == []  # the pictures of the parts are found from here too
        assert tab.run("new Set([...document.images].map(image => image.src)).size") == 5


def test_the_page_is_whole_and_readable_in_a_browser(
    entries: list[ClipEntry], sources: Sources, looks_well: Callable[[Path], None], tmp_path: Path
) -> None:
    about = {"gloss": {"wer": 100.0, "head": "fuse"}, "test": CONTENT}
    cues = [Cue(0.1 * n, 0.1 * n + 0.05, "CASA" * n) for n in range(1, 6)]
    predictions = [Prediction(e, f"casa {'x' * 200} {e.text}", {"fuse": ["CASA"] * 40}, cues) for e in entries]
    write(tmp_path, predictions, sources, content=CONTENT | about)
    looks_well(tmp_path / "page.html")
