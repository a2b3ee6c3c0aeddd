"""The list behind the page, and the page clicked through in a browser: search, filters, order, viewer, keys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from signstreams.contract.report_page import render_page, worst_first
from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate, write_validation
from signstreams.contract.view_index import view_index
from signstreams.files import sha256_file, write_bytes
from signstreams.streams import STREAMS, BoxState

from .corpora import FPS_HZ, NUM_FRAMES, BrokenCorpus

EVIL = "<img src=x onerror=alert(1)>%2e%2e&#?"


def rows_of(script: str) -> dict[str, dict[str, Any]]:
    """Video to its row."""
    content = json.loads(script.removeprefix("showVideos(").removesuffix(");\n"))
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
    return {row["id"]: row for row in rows}


def index_of(corpus: BrokenCorpus) -> dict[str, dict[str, Any]]:
    validation = corpus.validate()
    ordered = worst_first(validation.report["videos"])
    return rows_of(view_index(ordered, validation.report, corpus.layout, validation.sources))


def test_a_row_has_what_videos_are_filtered_and_sorted_by(corpus: BrokenCorpus) -> None:
    write_bytes(corpus.layout.preview("one"), b"a picture")
    corpus.layout.pose("two").unlink()
    rows = index_of(corpus)
    assert next(iter(rows)) == "two"  # the worst first
    one, two = rows["one"], rows["two"]
    assert (one["signers"], one["splits"], two["splits"]) == (["ana"], ["train"], ["val"])
    assert (one["frames"], one["coverage"], one["estimated_ratio"]) == (NUM_FRAMES, [1.0, 1.0, 1.0, 0.9], 0.1)
    assert (one["preview"], one["view"], two["preview"]) == (True, True, False)
    assert one["source"] == "../videos/one.mp4"
    assert rows["Ñandú d'ayer"]["source"] == "../videos/%C3%91and%C3%BA%20d%27ayer.mp4"
    assert two["errors"] == 1 and len(two["rules"]) == 1
    assert two["findings"] == [["error", "file.present", "no such file"]]


def test_a_video_whose_faces_are_hidden_is_not_played(corpus: BrokenCorpus) -> None:
    for video in ("one", "two", "Ñandú d'ayer", "four"):
        corpus.change_metadata(video, face_privacy="blur")
    rows = index_of(corpus)
    assert all(row["source"] is None and row["view"] for row in rows.values())
    assert "faces hidden (blur)" in corpus.layout.view("one").read_text()


def test_what_no_browser_plays_has_no_address(corpus: BrokenCorpus) -> None:
    validation = validate(ContractConfig(root=corpus.root))
    sources = dict(validation.sources) | {"one": corpus.root / "one.gif", "two": corpus.root / "frames"}
    rows = rows_of(view_index(validation.report["videos"], validation.report, corpus.layout, sources))
    assert [rows[name]["source"] is None for name in ("one", "two", "four")] == [True, True, False]


def test_ids_are_data_and_lead_nowhere_unless_they_can_name_a_file(corpus: BrokenCorpus) -> None:
    report = validate(ContractConfig(root=corpus.root)).report
    ids = ["../../../etc/passwd", "..", "/etc/passwd", "</script>", "\udce1", EVIL]
    report["videos"] = [report["videos"][0] | {"video_id": video_id} for video_id in ids]
    (corpus.layout.root / "passwd.js").write_text("// signstreams view 1 {}")
    write_bytes(corpus.layout.preview(EVIL), b"a picture")
    script = view_index(report["videos"], report, corpus.layout, {})
    assert script.isascii() and "\n" not in script[:-1]
    rows = rows_of(script)
    assert [(row["preview"], row["view"], row["source"]) for row in rows.values()] == [(False, False, None)] * 5 + [
        (True, False, None)
    ]


def test_the_list_of_ten_thousand_videos_is_small_and_soon_there(corpus: BrokenCorpus) -> None:
    validation = corpus.validate()
    report = validation.report
    video = report["videos"][0]
    report["videos"] = [video | {"video_id": f"corpus_{number:06d}"} for number in range(10_000)]
    place = "processed/face/corpus_{:06d}.zip"
    report["findings"] = [
        {"severity": "warning", "rule": "coverage.low", "found": "face in 71.3% of 250 frames", "file": place.format(n)}
        for n in range(10_000)
    ]
    sources = {row["video_id"]: corpus.layout.videos / "one.mp4" for row in report["videos"]}
    began_s = time.perf_counter()
    script = view_index(report["videos"], report, corpus.layout, sources)
    assert time.perf_counter() - began_s < 20  # seconds, where it takes one: something quadratic would show
    assert len(script) < 3_000_000


# -- In a browser


def film(path: Path) -> None:
    """Two seconds of a grey square that gets lighter, VP9 in MP4: any Chromium plays it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 80, "yuv420p"
        for shade in range(20):
            image = np.full((80, 64, 3), 10 * shade + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def page(corpus: BrokenCorpus) -> Path:
    """The page of a corpus in which one video plays, and the hands of two others are bad."""
    layout = corpus.layout
    film(layout.videos / "one.mp4")
    source = layout.videos / "one.mp4"
    corpus.change_metadata("one", source_sha256=sha256_file(source), source_bytes=source.stat().st_size)
    (layout.videos / "four.mp4").rename(layout.videos / "four.gif")  # not played
    corpus.change_metadata("four", source_name="four.gif")
    for video in ("one", "two", "four"):
        picture = np.full((300, 640, 3), 90, np.uint8)
        write_bytes(layout.preview(video), cv2.imencode(".jpg", picture)[1].tobytes())

    def lose(tracks: Any) -> None:
        for stream in ("hand_l", "hand_r"):
            tracks.streams[stream].state[: NUM_FRAMES - 2] = BoxState.MISSING
            tracks.streams[stream].box[: NUM_FRAMES - 2] = -1

    corpus.change_tracks("two", lose)
    write_validation(layout, corpus.validate())
    assert set(STREAMS) == {"face", "hand_l", "hand_r"} and FPS_HZ == 10
    return layout.report_page


CARDS = "[...document.querySelectorAll('#gallery code')].map(code => code.textContent)"
NAME = "document.getElementById('viewer').open && document.getElementById('name').textContent"
READY = "!document.getElementById('player').hidden"
# Pixels of a canvas that are near a colour.
COUNT = """(() => { const canvas = document.querySelector('%s'), {width, height} = canvas;
  const pen = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  pen.drawImage(canvas, 0, 0);
  const {data} = pen.getImageData(0, 0, width, height), [r, g, b] = %s; let count = 0;
  for (let i = 0; i < data.length; i += 4)
    count += data[i + 3] > 200 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 60;
  return count; })()"""
PINK, BLUE = "[240, 70, 170]", "[46, 144, 250]"


def choose(tab: Any, name: str, value: str) -> None:
    tab.run(
        f"(() => {{ const one = document.getElementById({name!r}); one.value = {value!r};"
        " one.dispatchEvent(new Event('input', {bubbles: true})); return one.value; })()"
    )


def test_the_list_is_searched_filtered_and_sorted(browser: Any, page: Path) -> None:
    with browser.open(page, "desktop") as tab:
        tab.until("!document.getElementById('filters').hidden")
        everything = tab.run(CARDS)
        assert sorted(everything) == sorted(["one", "two", "Ñandú d'ayer", "four"])
        tab.click("#search")
        tab.type("ñandu\u0301")  # composed otherwise
        assert tab.run(CARDS) == ["Ñandú d'ayer"]
        assert tab.run("document.getElementById('count').textContent") == "1 of 4 videos"
        choose(tab, "search", "")
        choose(tab, "signer", "ana")
        assert sorted(tab.run(CARDS)) == ["four", "one"]
        choose(tab, "signer", "")
        choose(tab, "split", "val")
        assert tab.run(CARDS) == ["two"]
        choose(tab, "split", "")
        choose(tab, "kind", "no_hands_ratio")
        assert tab.run(CARDS) == ["two"]
        choose(tab, "kind", "")
        choose(tab, "sort", "no_hands_ratio")
        assert tab.run(CARDS)[0] == "two"
        assert "no hands 80" in tab.run("document.querySelector('#gallery figcaption').textContent")
        choose(tab, "sort", "id")
        assert tab.run(CARDS)[0] == "four"
        assert tab.look().complaints == []


def test_a_video_plays_with_points_boxes_and_crops_in_step(browser: Any, page: Path) -> None:
    with browser.open(page, "desktop") as tab:
        tab.until("!document.getElementById('filters').hidden")
        choose(tab, "search", "one")
        tab.click("#gallery button")
        tab.until(READY)
        assert tab.run(NAME) == "one" and tab.run("document.getElementById('notice').textContent") == ""
        tab.until("document.getElementById('movie').readyState >= 2")
        tab.until(f"{COUNT % ('#over', PINK)} > 50 && {COUNT % ('#over', BLUE)} > 50")
        tab.click("#points")
        assert tab.run(COUNT % ("#over", PINK)) == 0 and tab.run(COUNT % ("#over", BLUE)) > 50
        tab.click("#boxes")
        assert tab.run(COUNT % ("#over", BLUE)) == 0
        tab.click("#points")
        captions = "[...document.querySelectorAll('#cut figcaption')].map(one => one.textContent)"
        assert tab.run(captions) == ["right hand, detected", "face, detected", "left hand, detected"]
        choose(tab, "time", "0.4")
        tab.until("Math.abs(document.getElementById('movie').currentTime - 0.4) < 0.02")
        tab.until(f"({captions})[2] === 'left hand, filled'")
        tab.run("document.getElementById('viewer').focus()")
        tab.press(" ")
        tab.until("document.getElementById('play').textContent === 'Pause'")
        tab.until("document.getElementById('movie').currentTime > 0.6")
        tab.until("Number(document.getElementById('time').value) > 0.5")
        tab.click("#play")
        assert tab.run("document.getElementById('movie').paused")
        assert tab.look().unreadable == []
        tab.press("Escape")
        tab.until("!document.getElementById('viewer').open")
        assert tab.look().complaints == []


def test_the_browser_of_the_corpus_speaks_spanish(
    browser: Any, page: Path, corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    corpus.change_metadata("four", source_name="four.gif")
    write_validation(corpus.layout, corpus.validate())
    with browser.open(page, "phone") as tab:
        tab.until("!document.getElementById('filters').hidden")
        assert tab.run("document.documentElement.lang") == "es"
        assert tab.run("document.getElementById('count').textContent") == "4 de 4 videos"
        assert "sin manos en la mitad de los cuadros (1)" in tab.run("document.getElementById('kind').textContent")
        choose(tab, "sort", "no_hands_ratio")
        assert "sin manos 80" in tab.run("document.querySelector('#gallery figcaption').textContent")
        choose(tab, "search", "four")
        tab.click("#gallery button")
        tab.until(READY)
        assert "se dibujan sus recortes" in tab.run("document.getElementById('notice').textContent")
        known = tab.run("document.getElementById('known').textContent")
        assert "persona señante: ana" in known and known.endswith("una persona")
        captions = "[...document.querySelectorAll('#cut figcaption')].map(one => one.textContent)"
        assert tab.run(captions) == ["mano derecha, detectada", "cara, detectada", "mano izquierda, detectada"]
        tab.click("#play")
        tab.until("document.getElementById('play').textContent === 'Pausa'")
        seen = tab.look()
        assert (seen.complaints, seen.too_wide, seen.unreadable) == ([], [], [])


def test_arrows_lead_through_the_list_and_crops_stand_in_for_what_does_not_play(browser: Any, page: Path) -> None:
    with browser.open(page, "phone", scheme="dark") as tab:
        tab.until("!document.getElementById('filters').hidden")
        choose(tab, "sort", "id")
        tab.click("#gallery button")
        tab.until(READY)
        assert tab.run(NAME) == "four"
        assert "crops are drawn" in tab.run("document.getElementById('notice').textContent")
        assert tab.run(COUNT % ("#over", PINK)) > 20
        tab.click("#play")
        tab.until("Number(document.getElementById('time').value) > 0.3")
        seen = tab.look()
        assert (seen.complaints, seen.too_wide, seen.unreadable) == ([], [], [])
        tab.press("ArrowRight")
        tab.until(f"({NAME}) !== 'four'")
        tab.press("ArrowLeft")
        tab.until(f"({NAME}) === 'four'")
        tab.press("ArrowLeft")  # the first one
        assert tab.run(NAME) == "four" and tab.run("location.hash") == "#video=four"


def test_a_video_that_cannot_be_played_says_so(browser: Any, page: Path) -> None:
    with browser.open(page, "desktop") as tab:
        tab.until("!document.getElementById('filters').hidden")
        tab.run("location.hash = '#video=two'")  # its file holds nothing that a browser reads
        tab.until("document.getElementById('notice').textContent.includes('does not play the video')")
        assert tab.run(NAME) == "two"
        assert "no hands" in tab.run("document.getElementById('known').textContent")


def test_without_scripts_the_page_shows_its_own_pictures(browser: Any, page: Path) -> None:
    with browser.open(page, "desktop") as tab:
        tab.without_scripts()
        assert tab.run(CARDS) and tab.run("document.querySelectorAll('#gallery a img').length") == 3
        assert not tab.run("document.getElementById('filters').checkVisibility()")
        assert not tab.run("document.getElementById('viewer').checkVisibility()")


def test_an_evil_id_is_shown_as_it_is(browser: Any, corpus: BrokenCorpus) -> None:
    layout = corpus.layout
    report = corpus.validate().report
    report["videos"] = [report["videos"][0] | {"video_id": EVIL}]
    layout.view("one").rename(layout.view(EVIL))
    layout.report_page.write_text(render_page(report, layout), encoding="utf-8")
    layout.views.write_text(view_index(report["videos"], report, layout, {}))
    view = layout.view(EVIL).read_text()
    layout.view(EVIL).write_text(view.replace('showView("one"', f"showView({json.dumps(EVIL)}"))
    with browser.open(layout.report_page, "desktop") as tab:
        tab.until("!document.getElementById('filters').hidden")
        assert tab.run(CARDS) == [EVIL]
        tab.click("#gallery button")
        tab.until(READY)
        assert tab.run(NAME) == EVIL
        seen = tab.look()
        assert seen.complaints == [] and all("/contract/views" in url for url in seen.requests)
