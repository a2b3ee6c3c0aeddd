"""The command that a finding prints extracts the video as it was: no setting of the corpus is lost."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from signstreams.cli import parse
from signstreams.contract.re_extraction_advice import POINTS_FOLDER, setting_flags
from signstreams.corpus.findings import Finding
from signstreams.extract.settings import ExtractConfig

from .corpora import VIDEOS, BrokenCorpus

BLURRED = {"face_privacy": "blur", "fps": 12.5, "crop_px": 16}


def config_of(**fields: Any) -> ExtractConfig:
    return ExtractConfig(videos=[Path("v")], root=Path("r"), **fields)


def keep(corpus: BrokenCorpus, *video_ids: str, **fields: Any) -> None:
    """Have metadata keep these settings."""
    for video_id in video_ids:
        settings = config_of(**fields).settings()
        corpus.change_metadata(video_id, settings=settings, settings_digest=json.dumps(settings))


def only_finding(corpus: BrokenCorpus) -> Finding:
    (finding,) = [finding for finding in corpus.errors() if "signstreams extract" in finding.fix]
    return finding


def given(fix: str) -> ExtractConfig:
    """The config that the command of a fix stands for."""
    words = shlex.split(fix.partition(": ")[2].partition("; or, in a workflow")[0])
    assert words[:2] == ["signstreams", "extract"]
    return parse(ExtractConfig, words[2:])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        BLURRED,
        {"frames_fps": 30, "jpeg_quality": 80, "spans_only": True, "span_padding_s": 0.25},
        {"detector": "holistic", "holistic": {"stride": 2}, "boxes": {"hand_scale": 1.7}, "signer": {"choose": "none"}},
        {"detector": "precomputed", "precomputed": {"folder": POINTS_FOLDER, "units": "px"}},
    ],
)
def test_the_flags_give_the_settings_back(fields: dict[str, Any]) -> None:
    settings = config_of(**fields).settings()
    flags = list(setting_flags(settings))
    assert parse(ExtractConfig, ["--videos", "v", "--root", "r", *flags]).settings() == settings
    assert bool(flags) == bool(fields)


def test_what_this_version_does_not_know_is_passed_over() -> None:
    assert list(setting_flags({"colour": "sepia", "boxes": {"depth": 3}, "crop_px": 64})) == ["--crop-px", "64"]


def test_a_damaged_file_is_written_again_with_the_settings_of_its_video(corpus: BrokenCorpus) -> None:
    keep(corpus, "one", **BLURRED)
    corpus.layout.pose("one").write_bytes(b"junk")
    (fix,) = {finding.fix for finding in corpus.errors()}
    expected = {"videos": [corpus.layout.videos / "one.mp4"], "root": corpus.root, "force": True}
    assert given(fix) == config_of(**BLURRED).model_copy(update=expected)
    assert fix.endswith("; or, in a workflow, remove the file and run snakemake again")


def test_a_record_of_an_earlier_check_does_not_hide_the_settings(corpus: BrokenCorpus) -> None:
    keep(corpus, "one", **BLURRED)
    corpus.layout.pose("one").unlink()
    fixes = [only_finding(corpus).fix, only_finding(corpus).fix]
    assert "--face-privacy blur" in fixes[0]
    assert fixes[0] == fixes[1]
    assert fixes[0].endswith("; or, in a workflow, run snakemake again")


@pytest.mark.parametrize("fault", ["absent", "unreadable"])
def test_without_its_own_metadata_a_video_is_extracted_as_the_others_are(corpus: BrokenCorpus, fault: str) -> None:
    keep(corpus, *VIDEOS, **BLURRED)
    if fault == "absent":
        for path in corpus.layout.processed.glob("*/one.*"):
            path.unlink()
    else:
        corpus.layout.metadata("one").write_text("[" * 100_000)
    assert given(only_finding(corpus).fix).settings() == config_of(**BLURRED).settings()


def test_where_nobody_knows_the_settings_the_fix_says_so(corpus: BrokenCorpus) -> None:
    keep(corpus, "two", "four", **BLURRED)
    corpus.layout.metadata("one").unlink()
    (finding,) = [finding for finding in corpus.errors() if finding.file.endswith("one.json")]
    assert finding.fix.startswith("run with the settings you used: signstreams extract --videos ")
    assert "--face-privacy" not in finding.fix


def test_loose_crops_are_made_whole_as_the_archives_are(corpus: BrokenCorpus) -> None:
    keep(corpus, *VIDEOS, **BLURRED)
    corpus.loosen("one")
    fixes = {finding.fix for finding in corpus.validate().findings if finding.rule == "loose.missing"}
    assert len(fixes) == 1
    assert "--face-privacy blur" in fixes.pop()
