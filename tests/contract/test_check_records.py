"""Records of checks: a video whose files are unchanged is not checked again, and no stale record counts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.contract import check_records, inventory, run_checks
from signstreams.contract.inventory import VideoFiles
from signstreams.contract.run_checks import check_after_extraction
from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import print_outcome, validate
from signstreams.files import digest, sha256_file
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import read_metadata
from signstreams.streams import STREAMS

from .corpora import VIDEOS, BrokenCorpus


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the videos that are checked from here on, not taken from their records."""
    ids: list[str] = []

    def check(layout: CorpusLayout, video: VideoFiles, *rest: Any) -> Any:
        ids.append(video.video_id)
        return real(layout, video, *rest)

    real = run_checks.check_video
    monkeypatch.setattr(run_checks, "check_video", check)
    return ids


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose checksum is taken from here on."""
    paths: list[Path] = []

    def read(path: Path) -> str:
        paths.append(Path(path))
        return real(path)

    real = inventory.sha256_file
    monkeypatch.setattr(inventory, "sha256_file", read)
    return paths


def multiply(corpus: BrokenCorpus, num_videos: int) -> None:
    """Make a corpus of videos alone, all extracted like ``two``."""
    layout = corpus.layout
    for path in (layout.meta, layout.gloss, *(layout.index(split) for split in ("train", "val", "test"))):
        path.unlink()
    for number in range(num_videos - len(VIDEOS)):
        video_id = f"v{number:02d}"
        source = layout.videos / f"{video_id}.mp4"
        source.write_bytes(video_id.encode() * 9)
        for kind in ("pose", "keypoints", "tracks"):
            shutil.copy(getattr(layout, kind)("two"), getattr(layout, kind)(video_id))
        shutil.copy(layout.metadata("two"), layout.metadata(video_id))
        for stream in STREAMS:
            corpus.write_crops(video_id, stream)
        corpus.change_metadata(
            video_id, video_id=video_id, source_sha256=sha256_file(source), source_bytes=source.stat().st_size
        )


def test_of_many_videos_only_the_changed_one_is_checked_again(
    corpus: BrokenCorpus, checked: list[str], read_paths: list[Path]
) -> None:
    multiply(corpus, 15)
    first = corpus.validate()
    assert first.findings == []
    assert (len(checked), first.num_from_records) == (15, 0)
    checked.clear()
    read_paths.clear()
    again = corpus.validate()
    assert (checked, read_paths, again.num_from_records) == ([], [], 15)
    assert (again.report, again.manifest) == (first.report, first.manifest)
    corpus.write_pose("v07", corpus_pose() * 2)
    changed = corpus.validate()
    assert checked == ["v07"]
    assert {finding.file for finding in changed.findings} == {"processed/pose/v07.npz"}
    assert {path.stem for path in read_paths if path.parent.parent.name == "processed"} == {"v07"}
    assert corpus.validate().report == changed.report == corpus.validate(recheck=True).report
    assert len(checked) == 16


def corpus_pose() -> Any:
    import numpy as np

    return np.full((10, 99), 0.8, np.float32)


def test_other_times_of_change_are_settled_by_checksums_once(
    corpus: BrokenCorpus, tmp_path: Path, checked: list[str], read_paths: list[Path]
) -> None:
    """As after a copy to another machine, or when Snakemake has touched the outputs of its job."""
    first = corpus.validate()
    moved = tmp_path / "elsewhere"
    shutil.copytree(corpus.root, moved, copy_function=shutil.copyfile)
    checked.clear()
    read_paths.clear()
    there = validate(ContractConfig(root=moved))
    assert checked == []
    assert there.report == first.report
    assert len([path for path in read_paths if path.parent.parent == moved / "processed"]) == 7 * len(VIDEOS)
    read_paths.clear()
    assert validate(ContractConfig(root=moved)).report == first.report
    assert [path for path in read_paths if path.suffix in (".zip", ".npz")] == []


def test_a_copied_corpus_advises_its_own_paths(corpus: BrokenCorpus, tmp_path: Path, checked: list[str]) -> None:
    corpus.write_pose("one", corpus_pose() * 2)
    (finding,) = corpus.validate().findings
    assert str(corpus.root / "videos") in finding.fix.replace("'\"'\"'", "'")
    moved = tmp_path / "elsewhere"
    shutil.copytree(corpus.root, moved)
    checked.clear()
    (moved_finding,) = validate(ContractConfig(root=moved)).findings
    assert checked == []
    assert f"--videos {moved}/videos/one.mp4 --root {moved}" in moved_finding.fix


def swap_with_two(path: Path) -> None:
    shutil.copy2(path.with_name("two.json"), path)


def edit_record(path: Path, change: Callable[[dict[str, Any]], Any], *, seal: bool) -> None:
    content = json.loads(path.read_text())
    change(content["record"])
    if seal:
        content["seal"] = digest(content["record"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-200]),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"seal": 1, "record": null}'),
        lambda path: edit_record(path, lambda record: record["check"]["findings"].clear(), seal=False),
        lambda path: edit_record(path, lambda record: record["check"].update(num_frames="many"), seal=True),
        lambda path: edit_record(path, lambda record: record.update(rules="of an earlier version"), seal=True),
        lambda path: edit_record(path, lambda record: record["stamps"].pop("pose"), seal=True),
        swap_with_two,
        lambda path: path.unlink(),
    ],
    ids=["cut", "bytes", "list", "nested", "null", "edited", "type", "rules", "stamps", "swapped", "absent"],
)
def test_a_record_that_is_damaged_or_of_something_else_is_not_believed(
    corpus: BrokenCorpus, checked: list[str], spoil: Callable[[Path], Any]
) -> None:
    corpus.write_pose("one", corpus_pose() * 2)
    report = corpus.validate().report
    assert report["verdict"] == "fail"
    spoil(corpus.layout.check("one"))
    checked.clear()
    assert corpus.validate().report == report
    assert checked == ["one"]
    checked.clear()
    assert corpus.validate().report == report
    assert checked == []


def test_another_decode_setting_or_revision_checks_again(
    corpus: BrokenCorpus, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write_crops("one", "hand_r", dict.fromkeys(range(10), b"no jpeg"))
    assert not corpus.validate(decode="none").has_errors
    assert corpus.validate().has_errors
    assert not corpus.validate(decode="none").has_errors
    checked.clear()
    monkeypatch.setattr(check_records, "REVISION", check_records.REVISION + 1)
    check_records.rules_digest.cache_clear()
    corpus.validate(decode="none")
    monkeypatch.undo()
    check_records.rules_digest.cache_clear()
    assert sorted(checked) == sorted(VIDEOS)


def test_a_tolerance_needs_no_new_check(corpus: BrokenCorpus, checked: list[str]) -> None:
    corpus.validate()
    checked.clear()
    validation = corpus.validate(coverage={"min_hand_ratio": 0.95}, clip_tolerance_s=0)
    assert checked == []
    assert {finding.rule for finding in validation.findings} == {"coverage.low"}


def test_a_file_that_came_or_went_is_seen(corpus: BrokenCorpus, checked: list[str]) -> None:
    data = corpus.layout.pose("one").read_bytes()
    corpus.layout.pose("one").unlink()
    assert corpus.validate().has_errors
    corpus.layout.pose("one").write_bytes(data)
    assert not corpus.validate().has_errors
    corpus.layout.tracks("one").unlink()
    assert corpus.validate().has_errors


def test_a_change_within_the_size_is_seen_by_its_time_and_without_it_by_recheck(corpus: BrokenCorpus) -> None:
    corpus.validate()
    path = corpus.layout.crops("face", "one")
    before, data = path.stat(), bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not corpus.validate().has_errors  # neither size nor time tells: docs/data_contract.md says so
    assert corpus.validate(recheck=True).has_errors
    assert corpus.validate().has_errors


def test_a_link_is_never_vouched_for(corpus: BrokenCorpus, checked: list[str]) -> None:
    path = corpus.layout.pose("one")
    path.symlink_to(path.rename(corpus.root / "pose_of_one.npz"))
    assert not corpus.validate().has_errors  # it stays below the root
    assert not corpus.layout.check("one").exists()
    checked.clear()
    corpus.validate()
    assert checked == ["one"]


def test_a_video_checked_beside_its_extraction_is_not_checked_again(
    corpus: BrokenCorpus, checked: list[str], read_paths: list[Path]
) -> None:
    beside = pickle.loads(pickle.dumps(check_after_extraction))  # noqa: S301  it goes to worker processes
    for video_id in VIDEOS:
        metadata = read_metadata(corpus.layout.metadata(video_id))
        beside(corpus.layout, video_id, corpus.layout.videos / f"{video_id}.mp4", metadata)
    assert sorted(checked) == sorted(VIDEOS)
    assert {path.parent.name for path in read_paths} == {"metadata"}  # the other checksums are known
    checked.clear()
    alone = corpus.validate(recheck=True)
    assert corpus.validate().report == alone.report
    checked.clear()
    beside(corpus.layout, "one", corpus.layout.videos / "one.mp4", read_metadata(corpus.layout.metadata("one")))
    assert checked == []


def test_several_processes_read_records_and_check_alike(corpus: BrokenCorpus) -> None:
    corpus.validate()
    for path in corpus.layout.processed.glob("*/*"):
        os.utime(path, (1, 1))
    corpus.write_pose("one", corpus_pose() * 2)
    together = corpus.validate(num_jobs=2)
    assert together.num_from_records == len(VIDEOS) - 1
    assert together.report == corpus.validate(recheck=True).report


def test_the_outcome_says_how_many_were_checked(corpus: BrokenCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.validate()
    corpus.write_pose("one", corpus_pose())
    print_outcome(corpus.validate(), corpus.layout, [])
    assert "checked 1 video, took 3 from their records" in capsys.readouterr().out


def test_a_record_that_cannot_be_written_is_no_error(corpus: BrokenCorpus) -> None:
    (corpus.root / "contract").write_text("in the way")
    assert corpus.validate().findings == []
