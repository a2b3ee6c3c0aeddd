"""The page of the contract: pictures, charts, groups of findings; and nothing keeps it from being written."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.contract.report import NUM_BARS, histogram
from signstreams.contract.report_page import (
    CROP_PX,
    MAX_PLACES,
    MAX_VIDEOS,
    NUM_CROPS,
    PREVIEW_PX,
    choose_videos,
    render_page,
    show_crops,
)
from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate, write_validation
from signstreams.files import write_bytes
from signstreams.formats.crops import CropReader
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import SignerInfo
from signstreams.pages.render import MAX_BYTES
from signstreams.streams import SIDE_BY_SIDE, STREAMS

from .corpora import BrokenCorpus


def jpeg(width: int = 400, height: int = 200) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


def page_of(corpus: BrokenCorpus) -> str:
    return render_page(validate(ContractConfig(root=corpus.root)).report, corpus.layout)


def images(page: str) -> list[np.ndarray]:
    found = [base64.b64decode(data) for data in re.findall(r'src="data:image/webp;base64,([^"]+)"', page)]
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in found]
    assert all(image is not None for image in decoded)
    return decoded


def test_crops_of_every_stream_are_shown_with_state_video_and_frame(corpus: BrokenCorpus) -> None:
    page = page_of(corpus)
    for stream in STREAMS:
        assert f"<h3>{stream}</h3>" in page
    shown = re.findall(r'<img loading="lazy" class="(\w+)" title="([^"]+) frame (\d+), (\w+)"', page)
    assert {state for state, *_ in shown} == {"detected", "filled"}
    assert all(state == named for state, _, _, named in shown)
    assert {unescape(video) for _, video, _, _ in shown} == {path.stem for path in corpus.layout.videos.glob("*.mp4")}
    assert all(image.shape == (CROP_PX, CROP_PX, 3) for image in images(page))


def test_the_rows_of_states_are_named_in_the_order_in_which_they_are_drawn(corpus: BrokenCorpus) -> None:
    page = page_of(corpus)
    names = {"hand_r": "right hand", "face": "face", "hand_l": "left hand"}
    assert re.findall('<div class="lane">([^<]*)</div>', page) == [names[stream] for stream in SIDE_BY_SIDE]


def test_the_page_is_whole_and_readable_in_a_browser(corpus: BrokenCorpus, looks_well: Callable[..., None]) -> None:
    write_bytes(corpus.layout.preview("one"), jpeg(1600, 700))
    corpus.layout.pose("two").unlink()
    layout = corpus.layout
    write_validation(layout, validate(ContractConfig(root=corpus.root)))
    assert "The corpus breaks the contract" in layout.report_page.read_text(encoding="utf-8")  # with findings to show
    looks_well(layout.report_page, shown=[layout.views, layout.preview("one")])


def test_the_page_in_spanish_says_the_same_and_its_data_are_the_same(
    corpus: BrokenCorpus,
    looks_well: Callable[..., None],
    left_in_english: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_bytes(corpus.layout.preview("one"), jpeg(1600, 700))
    corpus.layout.pose("two").unlink()
    layout = corpus.layout
    write_validation(layout, validate(ContractConfig(root=corpus.root)))
    made = {path: path.read_bytes() for path in layout.report.parent.rglob("*") if path.is_file()}
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    write_validation(layout, validate(ContractConfig(root=corpus.root)))
    page = layout.report_page.read_text(encoding="utf-8")
    assert '<html lang="es">' in page and "El corpus no cumple el contrato" in page
    assert "se esperaba: todos los archivos de un video" in page and "no existe ese archivo" in page
    assert left_in_english(page) == [] and len(left_in_english(made[layout.report_page].decode())) > 20
    other = [path.name for path, content in made.items() if path.read_bytes() != content]
    assert sorted(other) == ["failed_report.html", "report.html", "views.js"]  # which are for people
    looks_well(layout.report_page, shown=[layout.views, layout.preview("one")])


def test_a_preview_is_shown_with_what_is_known_of_the_video(corpus: BrokenCorpus) -> None:
    write_bytes(corpus.layout.preview("one"), jpeg(1600, 700))
    corpus.change_metadata(
        "one",
        signer=SignerInfo(chosen_by="hand_motion", num_people=2, region_px=(0, 0, 9, 9), hand_motion=[0.25, 3.0]),
        face_privacy="blur",
    )
    page = page_of(corpus)
    assert "of 2 people the one whose hands move most" in page and "0.2, 3.0" in page
    assert "faces hidden (blur)" in page
    assert 'href="../processed/preview/one.jpg"' in page
    assert max(image.shape[1] for image in images(page)) == PREVIEW_PX


@pytest.mark.parametrize("content", [b"", b"no picture", jpeg()[:300]])
def test_damaged_pictures_archives_and_tracks_do_not_keep_the_page_from_being_written(
    corpus: BrokenCorpus, content: bytes
) -> None:
    write_bytes(corpus.layout.preview("one"), content)
    for path in (corpus.layout.crops("face", "one"), corpus.layout.tracks("one"), corpus.layout.metadata("one")):
        path.write_bytes(content)
    corpus.layout.crops("hand_l", "one").write_bytes(corpus.layout.crops("hand_l", "one").read_bytes()[:-40])
    page = page_of(corpus)
    assert "breaks the contract" in page and "</html>" in page
    assert images(page)


def test_a_crop_that_does_not_decode_leaves_a_place(corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CropReader, "read", lambda *args: b"\xff\xd8 no picture \xff\xd9")
    page = page_of(corpus)
    assert not images(page)
    assert page.count(">damaged</span>") > 3


def test_the_same_corpus_gives_the_same_page(corpus: BrokenCorpus) -> None:
    write_bytes(corpus.layout.preview("one"), jpeg())
    assert page_of(corpus) == page_of(corpus)


def test_of_a_large_corpus_the_worst_and_some_of_the_others_are_shown() -> None:
    rows = [{"video_id": f"v{number}"} for number in range(10_000)]
    shown = choose_videos(rows)
    assert len(shown) == MAX_VIDEOS
    assert shown[: MAX_VIDEOS // 2] == rows[: MAX_VIDEOS // 2]
    assert shown[-1] == rows[-1]
    assert choose_videos(rows[:5]) == rows[:5]


def test_a_page_of_ten_thousand_videos_is_small_and_soon_there(corpus: BrokenCorpus) -> None:
    report = validate(ContractConfig(root=corpus.root)).report
    finding = {
        "severity": "warning",
        "rule": "coverage.low",
        "file": "f<x>",
        "row": None,
        "found": "<b>",
        "expected": "e",
    }
    report["videos"] = [report["videos"][0] | {"video_id": f"<v{number}>"} for number in range(10_000)]
    report["findings"] = [finding | {"fix": f"fix {number}"} for number in range(10_000)]
    for number in range(10_000):
        if number % 400 == 0:
            write_bytes(corpus.layout.preview(f"<v{number}>"), jpeg(1300, 600), sync=False)
    began_s = time.perf_counter()
    page = render_page(report, corpus.layout)
    assert time.perf_counter() - began_s < 30  # seconds where it takes one or two: something quadratic would show
    assert len(page.encode()) <= MAX_BYTES
    assert "10,000 times" in page and page.count("<li>") <= MAX_PLACES + 1
    assert "<v1>" not in page and "f<x>" not in page


def test_few_videos_share_the_places_for_crops(corpus: BrokenCorpus) -> None:
    shown = show_crops(corpus.layout, [path.stem for path in corpus.layout.videos.glob("*.mp4")])
    assert all(2 <= len(crops) <= NUM_CROPS for crops in shown.values())


def test_loose_crops_are_shown(tmp_path: Path) -> None:
    layout = CorpusLayout(tmp_path)
    for frame in range(20):
        write_bytes(layout.processed / "face" / f"a_f{frame:06d}.jpg", jpeg(64, 64), sync=False)
    shown = show_crops(layout, ["a"])
    assert [crop.frame for crop in shown["face"]] == list(range(20)) and all(
        crop.image is not None for crop in shown["face"]
    )


def test_histograms_count_every_value() -> None:
    data = histogram([1.0, 2.0, 2.0, 10.0])
    assert (data["count"], data["least"], data["median"], data["greatest"]) == (4, 1, 2, 10)
    assert len(data["counts"]) == NUM_BARS and sum(data["counts"]) == 4
    assert histogram([]) == {"count": 0}


def test_histograms_are_drawn_and_equal_values_are_a_line_of_text(corpus: BrokenCorpus) -> None:
    report = validate(ContractConfig(root=corpus.root)).report
    lengths_s = (1.0, 2.0, 2.0, 10.0)
    report["videos"] = [report["videos"][0] | {"duration_s": length_s, "fps": 25} for length_s in lengths_s]
    report["clip_lengths_s"] = histogram([])
    figures = re.findall("<figure>.*?</figure>", render_page(report, corpus.layout), re.DOTALL)
    (lengths,) = (figure for figure in figures if "Length of videos" in figure)
    assert re.findall(r": (\d)</title>", lengths) == ["1", "2", "1"]
    assert lengths.count("<rect") == 3 and "median 2 s" in lengths
    assert not any("Length of clips" in figure for figure in figures)
    (rates,) = (figure for figure in figures if "Frame rate extracted" in figure)
    assert "all 4: 25 fps" in rates and "<svg" not in rates
