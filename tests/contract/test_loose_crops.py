"""Loose crops of another tool: what is there is checked, what is missing is named, and pretraining can use it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from signstreams.formats.crops import list_crops

from .corpora import VIDEOS, BrokenCorpus, rules_of


def drop_tables(corpus: BrokenCorpus) -> None:
    for path in (corpus.layout.meta, corpus.layout.gloss):
        path.unlink()
    shutil.rmtree(corpus.layout.index("train").parent)


def test_loose_crops_pass_and_the_report_says_what_is_missing(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    validation = corpus.validate()
    assert not validation.has_errors, [finding.line() for finding in validation.findings]
    assert rules_of(validation, "warning") == {"loose.missing"}
    found = [finding.found.split(":")[0] for finding in validation.findings]
    assert found == [f"no {what} of 4 of 4 videos" for what in ("checksums", "metadata", "tracks")]
    assert all("signstreams extract --videos" in finding.fix for finding in validation.findings)
    for video in validation.report["videos"]:
        assert (video["status"], video["missing"]) == ("loose", ["tracks", "metadata", "checksums"])
        assert video["coverage"] == {"pose": 1.0, "face": 1.0, "hand_l": 0.9, "hand_r": 1.0}
    assert validation.report["summary"]["num_loose"] == 4
    assert validation.report["streams"]["hand_l"] == {"num_crops": 36, "coverage": 0.9, "states": {}}
    assert len(list_crops(corpus.layout.processed / "face")) == 40  # what --train-dir reads


def test_nothing_but_crops_and_fewer_keypoints_without_videos_or_tables(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    drop_tables(corpus)
    shutil.rmtree(corpus.layout.videos)
    for video_id in VIDEOS:
        corpus.layout.pose(video_id).unlink()
        corpus.layout.keypoints(video_id).unlink()
    keypoints = np.full((10, 79, 3), 0.5, np.float32)
    np.save(corpus.layout.keypoints("one").with_suffix(".npy"), keypoints)
    validation = corpus.validate()
    assert not validation.has_errors, [finding.line() for finding in validation.findings]
    lacking = {video["video_id"]: video["missing"] for video in validation.report["videos"]}
    assert sorted(lacking) == sorted(VIDEOS)
    assert lacking["one"][-1] == "keypoints of 543 points (79 are there)"
    assert {"video", "tracks", "metadata", "checksums", "pose"} < set(lacking["one"])
    assert "keypoints" in lacking["two"]
    assert any("put the videos into" in finding.fix for finding in validation.findings)
    assert validation.report["summary"]["num_clips"] == 4


def test_more_points_in_another_layout_are_accepted(corpus: BrokenCorpus) -> None:
    corpus.loosen("one")
    np.savez(corpus.layout.keypoints("one"), keypoints=np.full((10, 553, 3), 0.5, np.float16))
    corpus.layout.pose("one").unlink()
    np.save(corpus.layout.pose("one").with_suffix(".npy"), np.full((10, 51), -1.0))
    assert not corpus.validate().has_errors


def test_the_manifest_holds_a_stream_of_loose_crops_in_one_row(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    manifest = corpus.validate().manifest
    rows = {row["path"]: row for row in manifest["files"]}
    row = rows["processed/hand_l/one_f*.jpg"]
    crops = list(corpus.layout.processed.glob("hand_l/one_f*.jpg"))
    assert (row["num_frames"], row["num_bytes"]) == (9, sum(path.stat().st_size for path in crops))
    assert len([path for path in rows if path.startswith("processed/")]) == 4 * 5
    crops[0].write_bytes(crops[1].read_bytes())
    assert corpus.validate().manifest["digest"] != manifest["digest"]


def test_a_mixed_corpus_is_named_as_such(corpus: BrokenCorpus) -> None:
    corpus.loosen("two")
    validation = corpus.validate()
    assert not validation.has_errors, [finding.line() for finding in validation.findings]
    (finding,) = [finding for finding in validation.findings if finding.rule == "loose.mixed"]
    assert finding.found == "1 videos as loose crops, 3 as archives; loose are 'two'"


def test_loose_crops_beside_the_archive_of_the_same_video_stay_an_error(corpus: BrokenCorpus) -> None:
    corpus.loosen("two")
    crop = next(corpus.layout.processed.glob("face/two_f*.jpg"))
    (crop.parent / crop.name.replace("two", "one")).write_bytes(crop.read_bytes())
    (finding,) = [finding for finding in corpus.validate().findings if finding.severity == "error"]
    assert (finding.rule, finding.file) == ("file.unexpected", "processed/face")
    assert "one_f" in finding.found


def test_loose_videos_keep_their_record_until_a_crop_changes(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    first = corpus.validate()
    again = corpus.validate()
    assert (again.num_from_records, again.report, again.manifest) == (4, first.report, first.manifest)
    path = next(corpus.layout.processed.glob("face/one_f*.jpg"))
    path.write_bytes(path.read_bytes()[:-9])
    changed = corpus.validate()
    assert (changed.num_from_records, rules_of(changed, "error")) == (3, {"crops.decodes"})


def test_sampling_reads_few_crops(corpus: BrokenCorpus) -> None:
    corpus.loosen()
    next(corpus.layout.processed.glob("face/one_f*.jpg")).write_bytes(b"no jpeg")
    assert corpus.validate(decode="sample").has_errors
    assert not corpus.validate(decode="none").has_errors


@pytest.mark.parametrize("name", ["metadata.jsonl", "processed/metadata.jsonl"])
def test_lines_of_metadata_are_read(corpus: BrokenCorpus, name: str) -> None:
    corpus.loosen()
    path = corpus.root / name
    path.write_text('{"video_id": "one", "frames": 10}\n\n{"note": "mine"}\n')
    assert not corpus.validate().has_errors
    path.write_text('{"video_id": "one"}\n{"video_id": "nine"}\n[1]\n')
    found = [finding for finding in corpus.validate().findings if finding.rule == "loose.metadata"]
    assert [(finding.file, finding.row) for finding in found] == [(name, 2), (name, 3)]
