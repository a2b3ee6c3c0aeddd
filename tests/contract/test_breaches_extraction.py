"""Videos that were extracted with other settings than planned fail the contract, whatever Snakemake knows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from signstreams.contract.extraction_checks import read_planned, write_planned
from signstreams.corpus.findings import Finding
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.video_metadata import DetectorInfo
from signstreams.language import translated

from .breaches import Breaches, BreakIt
from .corpora import CROP_PX, VIDEOS, BrokenCorpus

breaks = Breaches()


def config(**settings: Any) -> ExtractConfig:
    given = {"videos": [Path("v")], "root": Path("r"), "crop_px": CROP_PX} | settings
    return ExtractConfig.model_validate(given)


def extract(corpus: BrokenCorpus, *video_ids: str, **settings: Any) -> None:
    """As if these videos, or all, were extracted with these settings."""
    made = config(**settings)
    for video_id in video_ids or VIDEOS:
        corpus.change_metadata(video_id, settings=made.settings(), face_privacy=made.face_privacy)


def found(corpus: BrokenCorpus, **planned: Any) -> list[Finding]:
    write_planned(corpus.layout, config(**planned))
    return [finding for finding in corpus.validate().findings if finding.rule == "settings.planned"]


@breaks("settings.planned", "processed/metadata", "--forcerun extract")
def faces_were_to_be_hidden(corpus: BrokenCorpus) -> None:
    extract(corpus)
    write_planned(corpus.layout, config(face_privacy="blur"))


@breaks.each
def test_it_is_reported_by_file_rule_and_fix(
    corpus: BrokenCorpus, rule: str, file: str, fix: str, break_it: BreakIt
) -> None:
    corpus.must_report(rule, file, fix, break_it)


def test_videos_with_equal_differences_are_one_error_which_says_what_was_found_and_planned(
    corpus: BrokenCorpus,
) -> None:
    extract(corpus)
    extract(corpus, "four", "one", jpeg_quality=80)
    assert not [finding for finding in corpus.errors() if finding.rule == "settings.planned"]  # nothing is planned
    both, alone = found(corpus, jpeg_quality=80, fps=12), found(corpus, jpeg_quality=80)
    assert {finding.severity for finding in (*both, *alone)} == {"error"}
    assert [(finding.found, finding.expected) for finding in alone] == [
        ("2 videos were extracted with jpeg_quality 95: 'two', 'Ñandú d'ayer'", "jpeg_quality 80, as planned")
    ]
    assert {(finding.found, finding.expected) for finding in both} == {
        ("2 videos were extracted with fps none: 'four', 'one'", "fps 12, as planned"),
        (
            "2 videos were extracted with fps none, jpeg_quality 95: 'two', 'Ñandú d'ayer'",
            "fps 12, jpeg_quality 80, as planned",
        ),
    }
    (finding,) = alone
    assert finding.file == "processed/metadata" and "--crop-px 16 --jpeg-quality 80; or, in a workflow" in finding.fix
    assert "run snakemake with --forcerun extract" in finding.fix and "\n" not in finding.line()


def test_faces_that_were_to_be_hidden_are_told(corpus: BrokenCorpus) -> None:
    extract(corpus)
    (finding,) = found(corpus, face_privacy="blur")
    assert finding.found.startswith("4 videos were extracted with face_privacy none: ")
    extract(corpus, face_privacy="blur")
    assert not found(corpus, face_privacy="blur")


@pytest.mark.parametrize("planned", [{"max_buffer_mib": 512, "num_jobs": 4, "tracker": {"device": "cuda"}}, {}])
def test_settings_that_change_no_result_do_not_count(corpus: BrokenCorpus, planned: dict[str, Any]) -> None:
    extract(corpus)
    assert not found(corpus, **planned, frames_fps=12)  # of folders of images: these are files


def test_the_rate_of_a_folder_of_images_counts(corpus: BrokenCorpus) -> None:
    extract(corpus)
    corpus.change_metadata("two", source_name="two")
    (finding,) = found(corpus, frames_fps=12)
    assert finding.found == "1 video was extracted with frames_fps 25: 'two'"


def test_what_an_earlier_version_did_not_record_is_as_by_default(corpus: BrokenCorpus) -> None:
    for detector in ("tracker", "holistic"):
        assert not found(corpus, detector=detector)  # the settings of the good corpus are empty
    (finding,) = found(corpus, boxes={"face_scale": 1.5})
    assert finding.found.startswith("4 videos were extracted with boxes.face_scale 1.3: ")


def test_results_of_holistic_stay_where_the_default_detector_is_planned(corpus: BrokenCorpus) -> None:
    extract(corpus, detector="holistic")
    corpus.change_metadata("one", detector=DetectorInfo(name="mediapipe_holistic", version="1"))
    corpus.change_metadata("two", detector=DetectorInfo(name="mediapipe_holistic", version="1"))
    (finding,) = found(corpus)
    assert finding.found == "2 videos were extracted with detector holistic: 'four', 'Ñandú d'ayer'"
    assert len(found(corpus, tracker={"stride": 2})[0].found.split("'")) > 8  # all: nobody gets that by default


def test_videos_that_were_not_extracted_are_left_out(corpus: BrokenCorpus) -> None:
    extract(corpus)
    corpus.quarantine("one")
    corpus.layout.metadata("four").unlink()
    (finding,) = found(corpus, fps=12)
    assert finding.found == "2 videos were extracted with fps none: 'two', 'Ñandú d'ayer'"
    corpus.loosen("two", "Ñandú d'ayer")
    assert not found(corpus, fps=12)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 3}'])
def test_a_damaged_plan_is_none(corpus: BrokenCorpus, content: str) -> None:
    corpus.layout.planned_extraction.parent.mkdir()
    corpus.layout.planned_extraction.write_text(content, encoding="utf-8")
    assert read_planned(corpus.layout) is None and not corpus.validate().has_errors


def test_it_is_told_in_spanish(corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "es_AR.UTF-8")
    extract(corpus)
    for finding in found(corpus, fps=12):
        assert translated(finding.found).startswith("4 videos se extrajeron con fps none: ")
        assert translated(finding.expected) == "fps 12, según lo planeado"
        assert translated(finding.fix).startswith("correr: signstreams extract")
