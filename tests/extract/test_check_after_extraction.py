"""Extraction leaves the contract's record of each video, so that the contract need not check it again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.contract.run_checks import check_after_extraction
from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import validate
from signstreams.extract.batch import extract_videos
from signstreams.extract.detectors import DetectorKind
from signstreams.extract.settings import ExtractConfig
from signstreams.formats.layout import CorpusLayout


@pytest.fixture
def layout(make_video: Callable, tmp_path: Path, discs: DetectorKind) -> CorpusLayout:
    """Two videos and one that cannot be read, extracted and checked beside."""
    path = make_video("a.mp4", 12)
    shutil.copy(path, path.with_name("b.mp4"))
    path.with_name("cut.mp4").write_bytes(path.read_bytes()[:200])
    config = ExtractConfig(videos=[path.parent], root=tmp_path, max_failed_fraction=1)
    extract_videos(config, detector=discs, on_result=check_after_extraction)
    return CorpusLayout(tmp_path)


def test_the_contract_takes_every_video_from_its_record(layout: CorpusLayout) -> None:
    config = ContractConfig(root=layout.root, max_failed_fraction=1)
    validation = validate(config)
    assert not validation.has_errors, [finding.line() for finding in validation.findings]
    assert [video["video_id"] for video in validation.report["quarantined"]] == ["cut"]
    assert validation.num_from_records == 3
    assert validate(config.model_copy(update={"recheck": True})).report == validation.report


def test_an_extraction_with_nothing_to_do_brings_back_a_record_that_is_gone(
    layout: CorpusLayout, discs: DetectorKind
) -> None:
    layout.check("a").unlink()
    kept = layout.check("b").stat()
    config = ExtractConfig(videos=[layout.videos], root=layout.root, max_failed_fraction=1)
    outcome = extract_videos(config, detector=discs, on_result=check_after_extraction)
    assert len(outcome.unchanged) == 3
    assert layout.check("a").is_file()
    assert layout.check("b").stat().st_ino == kept.st_ino  # not written again


def test_a_full_disk_at_the_record_costs_no_video(
    layout: CorpusLayout, discs: DetectorKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    for video_id in ("a", "b", "cut"):  # forced files may come out the same to the byte: an old record would hold
        layout.check(video_id).unlink()
    monkeypatch.setattr("signstreams.contract.check_records.write_text", refuse)
    config = ExtractConfig(videos=[layout.videos], root=layout.root, force=True, max_failed_fraction=1)
    assert len(extract_videos(config, detector=discs, on_result=check_after_extraction).extracted) == 2
    monkeypatch.undo()
    validation = validate(ContractConfig(root=layout.root, max_failed_fraction=1))
    assert (validation.has_errors, validation.num_from_records) == (False, 0)
