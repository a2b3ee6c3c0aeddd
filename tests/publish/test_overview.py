"""The overview page: all stages, escaped, self-contained; and what is there of a run that has not ended."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from signstreams.commands import main
from signstreams.formats.crops import HEIGHT_PX, TILE_PX, WIDTH_PX
from signstreams.integrate.protocols import published_figures
from signstreams.integrate.scoring_settings import ScoringConfig
from signstreams.publish.figures import verdict_of_run
from signstreams.publish.overview import CANDIDATES_PER_VIDEO, render_overview
from signstreams.streams import STREAMS

from .conftest import as_of_before, change_judge, put_another_first


class Reader(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def render(run: Any, **settings: Any) -> Reader:
    return Reader(render_overview(run.root, run.work_dir, run.logs, settings))


def test_the_page_of_the_backbones_leaves_out_what_was_made_from_them(finished: Any) -> None:
    whole = " ".join(render(finished).words)
    shown = render_overview(finished.root, finished.work_dir, finished.logs, {}, pretraining_only=True)
    text = " ".join(Reader(shown).words)
    assert "What the run made" in whole and "BLEU-4" in whole
    assert "The pretrained backbones" in text and "3 of 3" in text and "RankMe" in text
    for later in ("What the run made", "BLEU-4", "Translation", "Sequence pretraining"):
        assert later not in text, later


def test_every_stage_is_there_with_its_figures(finished: Any) -> None:
    page = render(finished, corpus={"root": "data/año"})
    text = " ".join(page.words)
    for expected in (
        "20",
        "2 min 17 s",
        "pass",
        "3 of 3",
        "5.9",
        "56.5",
        "92 %",
        "88 %",
        "61 %",
        "unseen\nsigners:\n20-NN",
        "200.0",
        "vit_tiny",
        "4.00",
    ):
        assert expected in page.words, expected
    assert "Mañana querré un libro." in text and "data/año" in text and "de val" not in text
    assert "pretrain face" in page.words and "1 min 05 s" in page.words
    assert re.search(r"python\s+3\.1[1-4]\.", text)
    # three a stream, two of the judge, the frames of the one clip of test, and the crops of its one video
    assert page.tags.count("img") == 9 + 2 + 1 + CANDIDATES_PER_VIDEO


def test_a_sequence_pretraining_is_there_where_the_run_has_one(with_sequence: Any) -> None:
    page = render(with_sequence)
    row = page.words[page.words.index("most frequent") :]
    assert [word for word in row if word.strip()][4:10] == ["44 %", "30 %", "12 %", "2.50", "20", "starts from it"]
    assert page.tags.count("img") == 9 + 2 + 1 + 1 + CANDIDATES_PER_VIDEO
    (with_sequence.work_dir / "sequence" / "best.pt").unlink()
    assert "Sequence pretraining" not in render(with_sequence).words


def test_no_text_becomes_markup_and_nothing_is_fetched(finished: Any) -> None:
    page = render(finished, evil="<script>alert(1)</script>")
    assert "script" not in page.tags
    assert "<script>alert('Ñandú')</script>" in page.words
    assert page.sources and all(address.startswith("data:image/webp;base64,") for address in page.sources)
    assert not any(":" in address for address in page.links)


def test_links_lead_from_the_page_to_the_others_that_are_there_wherever_it_is(finished: Any, tmp_path: Path) -> None:
    (finished.work_dir / "multistream_v9" / "translations.html").write_text("page")
    for page in (finished.work_dir / "overview.html", tmp_path / "elsewhere" / "deep" / "page.html"):
        shown = Reader(render_overview(finished.root, finished.work_dir, finished.logs, {}, page))
        files = [(page.parent / unquote(link)).resolve() for link in shown.links if not link.startswith("#")]
        assert [file.relative_to(tmp_path.resolve()).as_posix() for file in files] == [
            "data/año/contract/report.html",
            "work/multistream_v9/translations.html",
            *(f"work/dino_{stream}/README.md" for stream in STREAMS),
        ]
        assert all(file.is_file() for file in files)
    (finished.work_dir / "report.html").write_text("page")
    (finished.work_dir / "pretraining.html").write_text("page")
    assert "pretraining.html" in render(finished).links
    assert "report.html" in Reader(render_overview(finished.root, finished.work_dir, finished.logs, {})).links


def test_the_other_pages_get_links_to_the_overview_when_it_is_written(finished: Any, tmp_path: Path) -> None:
    contract, translations = (
        finished.root / "contract/report.html",
        finished.work_dir / "multistream_v9/translations.html",
    )
    overview, pretraining = finished.work_dir / "overview.html", finished.work_dir / "pretraining.html"
    for page in (contract, translations):
        page.write_bytes(b'<h1>\xc3\xb1\r\n</h1><div class="pages"></div><div class="pages"></div>')
        os.utime(page, ns=(10**18, 10**18))
    folders = ["--root", str(finished.root), "--work-dir", str(finished.work_dir), "--logs", str(finished.logs)]

    def linked(page: Path) -> list[str]:
        links = [link for link in Reader(page.read_text(encoding="utf-8")).links if not link.startswith("#")]
        assert all((page.parent / unquote(link)).is_file() for link in links), page
        return [(page.parent / unquote(link)).resolve().name for link in links if link.endswith(".html")]

    main(["overview", *folders, "--output", str(pretraining)])
    assert linked(contract) == ["pretraining.html", "translations.html"] and linked(pretraining) == [
        "report.html",
        "translations.html",
    ]
    main(["overview", *folders])
    assert linked(contract) == ["overview.html", "pretraining.html", "translations.html"]
    assert linked(translations) == ["overview.html", "pretraining.html", "report.html"]
    assert linked(pretraining) == ["overview.html", "report.html", "translations.html"]
    assert linked(overview) == ["pretraining.html", "report.html", "translations.html"]
    for page in (contract, translations):
        assert page.stat().st_mtime_ns == 10**18  # Snakemake sees no new result
        data = page.read_bytes()
        assert data.startswith(b"<h1>\xc3\xb1\r\n</h1>") and data.endswith(b'<div class="pages"></div>')
        assert page.read_text().count(">model card of face</a>") == 1


def test_a_page_that_cannot_be_changed_does_not_stop_the_overview(finished: Any) -> None:
    contract = finished.root / "contract/report.html"
    contract.unlink()
    contract.mkdir()
    main(["overview", "--root", str(finished.root), "--work-dir", str(finished.work_dir)])
    assert (finished.work_dir / "overview.html").is_file()


def test_the_verdict_stands_first_as_on_the_terminal(finished: Any) -> None:
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    expected = verdict_of_run(finished.root, finished.work_dir)
    shown = re.findall('<li class="([a-z]+)"><b>[a-z]+</b> ([^<]+)</li>', unescape(page).replace("\u00a0%", " %"))
    assert shown == [(s.grade, s.text) for s in expected]
    assert page.index("</ul>") < page.index("<nav>")


def test_sample_crops_differ_and_say_of_whom_they_are(finished: Any) -> None:
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    frames = [int(frame) for frame in re.findall('<figure title="video, frame ([0-9]+)">', page)]
    assert sorted(frames) == [2, 7, 12, 17, 22, 27, 32, 37]  # evenly over the video's forty
    assert page.count("<figcaption>ana</figcaption>") == len(frames)


def test_the_contents_lead_to_every_section(finished: Any) -> None:
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    links = re.findall('<a href="#([^"]+)">', page)
    assert links == re.findall('<h2 id="([^"]+)">', page) and len(links) > 5


def test_a_translation_stands_beside_its_frames_and_right_words_are_marked(finished: Any) -> None:
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    (strip,) = re.findall('alt="frames of the clip" src="data:image/webp;base64,([^"]+)"', page)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(strip), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (HEIGHT_PX, WIDTH_PX, 3)
    half = TILE_PX // 2
    shown = image[3 * half, half::TILE_PX, 0] / 5  # the frames' numbers, from the brightness of the faces
    assert shown == pytest.approx([12, 16, 20, 24, 28, 32], abs=1)  # of 10 to 33
    assert (image[half] > 200).all()  # no right hand was found: grey
    assert '<span class="right">MAÑANA</span>' in page


def test_too_few_clips_are_said_above_the_scores(finished: Any) -> None:
    said = "8 clips cannot teach translation; some thousands do"
    assert not any("cannot teach" in word for word in render(finished).words)
    path = finished.work_dir / "multistream_v9" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "few_clips": said}), encoding="utf-8")
    assert f"{said}." in render(finished).words


def test_papers_on_a_known_corpus_stand_below_our_scores(finished: Any) -> None:
    assert not any("Papers on" in word for word in render(finished).words)
    path = finished.work_dir / "multistream_v9" / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    scores["published"] = published_figures(finished.root, "phoenix2014t", ScoringConfig(), "test")
    scores["bleu_signature"] = "nrefs:1|case:mixed|tok:13a"
    scores["gloss"] = {"wer": 41.5, "head": "left", "decoding": "greedy CTC (beam 1)", "cleanup": "none"}
    path.write_text(json.dumps(scores), encoding="utf-8")
    page = render(finished)
    text = " ".join(page.words)
    assert "Papers on PHOENIX-2014T" in text and "our glosses are not cleaned" in text
    assert "tok:13a; WER of the left head, greedy CTC (beam 1), clean-up: none" in text
    place = page.words.index("MSKA")
    assert [page.words.index(word, place) for word in ("54.8", "29.0", "19.8")] == [place + 2, place + 3, place + 4]
    assert "–" in page.words[page.words.index("GFSLT-VLP") :]  # a paper without WER


def test_predictions_of_before_tell_no_frames(finished: Any) -> None:
    path = finished.work_dir / "multistream_v9" / "predictions.csv"
    path.write_text("clip_id,split,reference,hypothesis\ntwo,test,hola a todos,hola\n", encoding="utf-8")
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    assert "hola a todos" in page and '<span class="right">hola</span>' in page and "frames of the clip" not in page


def test_pictures_are_reduced(finished: Any) -> None:
    page = render_overview(finished.root, finished.work_dir, finished.logs, {})
    assert 'width="1100" height="22"' in page


@pytest.mark.parametrize("gone", ["multistream_v9", "dino_hand_l", "all"])
def test_a_stage_that_has_not_run_is_left_out(gone: str, finished: Any) -> None:
    if gone == "all":
        for folder in (finished.root, finished.work_dir, finished.logs):
            shutil.rmtree(folder)
    else:
        shutil.rmtree(finished.work_dir / gone)
    text = " ".join(render(finished).words)
    if gone == "multistream_v9":
        assert "No model was trained yet." in text and "BLEU-4 (test)" not in text
    if gone == "dino_hand_l":
        assert "2 of 3" in text
    if gone == "all":
        assert "0 of 3" in text and "None was pretrained yet." in text


def test_scores_of_another_model_are_not_shown(finished: Any) -> None:
    (finished.work_dir / "multistream_v9" / "best.pt").write_text("another model")
    text = " ".join(render(finished).words)
    assert "scores.json is of another best.pt" in text
    assert "BLEU-4 (test)" not in text and "Mañana querré un libro." not in text


def test_a_report_on_another_backbone_is_not_shown(finished: Any) -> None:
    change_judge(finished, "hand_l", as_of_before)
    (finished.work_dir / "dino_hand_r" / "backbone.pt").write_text("pretrained anew")
    page = render(finished)
    assert "judge.json is not known to be of the backbone.pt beside it: hand_l, hand_r." in " ".join(page.words)
    assert "92 %" not in page.words and "Judge" not in page.words
    assert page.tags.count("img") == 9 + 1 + CANDIDATES_PER_VIDEO  # without the judge's pictures


def test_of_two_backbones_judged_at_once_that_of_the_run_is_shown(finished: Any) -> None:
    change_judge(finished, "hand_l", put_another_first)
    words = render(finished).words
    assert words.count("92 %") > 2 and "11 %" not in words


def test_the_command_writes_the_page(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["overview", "--output", str(tmp_path / "page.html")]
    folders = ["--root", str(finished.root), "--work-dir", str(finished.work_dir), "--logs", str(finished.logs)]
    main([*output, *folders, "--settings", '{"seed": 7}'])
    assert '"seed": 7' in " ".join(Reader((tmp_path / "page.html").read_text(encoding="utf-8")).words)
    with pytest.raises(SystemExit, match="2"):
        main([*output, "--settings", "[1]"])
    assert "is not a JSON object" in capsys.readouterr().err
