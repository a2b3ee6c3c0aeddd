"""What the contract writes and says as a whole: report, manifest, page, copies, exit codes, tolerances."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import traceback
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from signstreams.commands import main
from signstreams.contract.report_page import render_page
from signstreams.contract.rules import RULES
from signstreams.contract.settings import ContractConfig
from signstreams.contract.validate import MAX_FILES, print_outcome, validate, write_validation
from signstreams.corpus.gloss import ctc_steps_needed
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import SPLITS
from signstreams.formats.video_sources import VideoSource
from signstreams.pages.render import MAX_ROWS

from .corpora import BrokenCorpus, rules_of


def test_the_manifest_names_every_file_with_its_checksum_frames_and_coverage(corpus: BrokenCorpus) -> None:
    manifest = corpus.validate().manifest
    files = {row["path"]: row for row in manifest["files"]}
    there = {p.relative_to(corpus.root).as_posix() for p in corpus.root.rglob("*") if p.is_file()}
    assert set(files) == {path for path in there if not path.startswith(("videos/", "contract/"))}
    hand = files["processed/hand_l/one.zip"]
    assert (hand["num_frames"], hand["coverage_ratio"], hand["video_id"]) == (9, 0.9, "one")
    assert files["processed/pose/one.npz"]["coverage_ratio"] == 1
    for path, row in files.items():
        assert row["sha256"] == sha256_file(corpus.root / path)
        assert row["num_bytes"] == (corpus.root / path).stat().st_size


def test_the_manifest_digest_changes_with_any_file_and_with_nothing_else(corpus: BrokenCorpus, tmp_path: Path) -> None:
    first = corpus.validate().manifest["digest"]
    moved = tmp_path / "elsewhere"
    shutil.copytree(corpus.root, moved)
    assert validate(ContractConfig(root=moved)).manifest["digest"] == first
    corpus.edit(corpus.layout.meta, "hola", "Hola")
    assert corpus.validate().manifest["digest"] != first


def test_the_report_sums_up_streams_videos_and_splits(corpus: BrokenCorpus) -> None:
    report = corpus.validate().report
    assert report["summary"] == {
        "num_errors": 0,
        "num_warnings": 0,
        "num_infos": 0,
        "num_videos": 4,
        "num_extracted": 4,
        "num_loose": 0,
        "num_quarantined": 0,
        "num_frames": 40,
        "duration_s": 4.0,
        "num_clips": 5,
        "num_rows_without_times": 0,
        "num_clips_by_split": {"train": 3, "val": 1, "test": 1},
        "num_signers": 3,
        "few_clips": "3 clips cannot teach translation; some thousands do",
    }
    states = {"missing": 4, "detected": 32, "tracked": 0, "filled": 4}
    assert report["streams"]["hand_l"] == {"num_crops": 36, "coverage": 0.9, "states": states}
    (video,) = [video for video in report["videos"] if video["video_id"] == "one"]
    assert video["coverage"] == {"pose": 1.0, "face": 1.0, "hand_l": 0.9, "hand_r": 1.0}
    assert video["num_clips"] == 2


def test_several_processes_find_the_same(corpus: BrokenCorpus) -> None:
    corpus.layout.pose("two").unlink()
    alone, together = corpus.validate(), corpus.validate(num_jobs=2)
    assert together.report == alone.report
    assert together.manifest == alone.manifest


def test_all_faults_come_at_once_errors_first(corpus: BrokenCorpus) -> None:
    corpus.layout.pose("two").unlink()
    corpus.layout.crops("face", "one").write_bytes(b"junk")
    corpus.edit(corpus.layout.meta, "c4;", "c 3/4;")
    corpus.edit(corpus.layout.gloss, "c1;HOLA;1\n", "")
    validation = corpus.validate()
    assert rules_of(validation, "error") == {"file.present", "crops.readable", "metadata.checksum", "meta.id"}
    severities = [finding["severity"] for finding in validation.report["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    counted = sum(rule["count"] for rule in validation.report["rules"])
    assert counted == len(validation.findings)


def test_a_corpus_of_videos_alone_needs_no_tables(corpus: BrokenCorpus) -> None:
    for name in ("meta.csv", "annotations/gloss.csv", "index/train.csv", "index/val.csv", "index/test.csv"):
        (corpus.root / name).unlink()
    validation = corpus.validate()
    assert validation.findings == []
    assert validation.report["summary"]["num_clips"] == 4


def test_videos_may_lie_elsewhere(corpus: BrokenCorpus, tmp_path: Path) -> None:
    corpus.layout.videos.rename(tmp_path / "footage")
    assert corpus.validate(videos_dir=tmp_path / "footage").findings == []


def test_a_few_quarantined_videos_are_warned_of_with_their_clips(corpus: BrokenCorpus) -> None:
    corpus.quarantine("one")
    validation = corpus.validate(max_failed_fraction=0.25)
    assert not validation.has_errors
    assert rules_of(validation, "warning") == {"quarantine.video", "quarantine.clips"}
    assert validation.report["quarantined"] == [{"video_id": "one", "reason": "is <cut> off"}]


def test_a_video_read_in_part_is_warned_of(corpus: BrokenCorpus) -> None:
    corpus.change_metadata("one", note="ends early")
    assert rules_of(corpus.validate(), "warning") == {"video.partial"}


def test_low_coverage_is_warned_of_by_stream(corpus: BrokenCorpus) -> None:
    validation = corpus.validate(coverage={"min_hand_ratio": 0.95})
    assert {finding.file for finding in validation.findings} == {
        f"processed/hand_l/{video_id}.zip" for video_id in ("one", "two", "Ñandú d'ayer", "four")
    }
    assert rules_of(validation, "warning") == {"coverage.low"}


def test_a_hand_that_is_never_seen_is_a_warning_unless_required(corpus: BrokenCorpus) -> None:
    for video_id in ("one", "two", "Ñandú d'ayer", "four"):
        corpus.layout.crops("hand_r", video_id).write_bytes(b"PK\x05\x06" + b"\0" * 18)
        corpus.seal(video_id)
    assert "streams.empty" in rules_of(corpus.validate(), "warning")
    assert "streams.empty" in rules_of(corpus.validate(required_streams=["hand_r"]), "error")


def test_few_unknown_glosses_are_a_warning(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.gloss, "c4;ADIÓS;2", "c4;ADIOS;3")
    assert "gloss.vocabulary" in rules_of(corpus.validate(max_unknown_gloss_fraction=0.5), "warning")


def test_lesser_faults_are_told_and_pass(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "gato", " ")
    corpus.edit(corpus.layout.meta, "0.8;10;8;ana", "0.8;10;80;ana")
    corpus.edit(corpus.layout.meta, "c3;two;casa;0.0;1.0;1.0;10;10;bea\n", "")
    corpus.edit(corpus.layout.index("val"), "c3", "c5")
    corpus.edit(corpus.layout.index("train"), "c5\n", "")
    corpus.edit(corpus.layout.gloss, "c3;HOLA ADIÓS;1 2\n", "")
    corpus.edit(corpus.layout.gloss, "c5;HOLA;1", "c5;;")
    corpus.change_metadata("two", settings_digest="other")
    (corpus.layout.processed / "pose" / "notes.txt").write_text("mine")
    validation = corpus.validate()
    assert not validation.has_errors, [finding.line() for finding in validation.findings]
    assert rules_of(validation, "warning") == {
        "clip.text",
        "clip.declared",
        "gloss.absent",
        "settings.agree",
        "file.foreign",
        "split.signer_disjoint",
    }
    assert rules_of(validation, "info") == {"video.no_clip"}


def test_nothing_is_said_of_clips_where_the_times_of_the_frames_cannot_be_believed(corpus: BrokenCorpus) -> None:
    corpus.change_tracks("one", lambda tracks: tracks.times_s.__imul__(-1))
    validation = corpus.validate()
    assert "tracks.times" in rules_of(validation, "error")
    assert not [finding for finding in validation.findings if finding.rule == "clip.frames"]


def test_clips_of_absent_videos_are_left_out_where_that_is_allowed(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "c2;one", "c2;fetched later")
    assert rules_of(corpus.validate(), "error") == {"clip.video_known"}
    allowed = {"allow_absent_videos": True, "max_unknown_gloss_fraction": 1}  # only the clip left out has one gloss
    validation = corpus.validate(**allowed)
    assert not validation.has_errors
    (finding,) = [finding for finding in validation.findings if finding.severity == "info"]
    assert finding.rule == "clip.video_known"
    assert finding.found == "1 clip of 1 video that is not there: 'fetched later' (row 3)"
    assert validation.report["summary"]["num_clips"] == 4
    assert validation.report["summary"]["num_clips_by_split"] == {"train": 2, "val": 1, "test": 1}
    corpus.edit(corpus.layout.index("val"), "c3", "c3\nc9")  # an id of no clip stays an error
    assert rules_of(corpus.validate(**allowed), "error") == {"split.known"}


def test_rows_without_times_pass_while_they_are_few(corpus: BrokenCorpus) -> None:
    corpus.edit(corpus.layout.meta, "0.5;1.0;0.5", "4.999.999.999.999.990;1.0;0.5")
    corpus.edit(corpus.layout.index("train"), "c2\n", "")
    corpus.edit(corpus.layout.gloss, "c2;ADIÓS ADIÓS;2 2\n", "")
    validation = corpus.validate(max_untimed_fraction=0.2, max_unknown_gloss_fraction=1)
    assert not validation.has_errors
    assert {"meta.times", "meta.numbers"} <= rules_of(validation, "warning")
    assert validation.report["summary"]["num_rows_without_times"] == 1


def test_a_table_without_any_clip_is_an_error(corpus: BrokenCorpus) -> None:
    corpus.layout.meta.write_text("id;text\n")
    assert "clip.any" in rules_of(corpus.validate(), "error")


@pytest.mark.parametrize(("decode", "is_found"), [("all", True), ("sample", True), ("none", False)])
def test_the_decode_setting_decides_which_crops_are_read(corpus: BrokenCorpus, decode: str, is_found: bool) -> None:
    corpus.write_crops("one", "hand_r", dict.fromkeys(range(10), b"no jpeg"))
    assert ("crops.decodes" in rules_of(corpus.validate(decode=decode), "error")) is is_found


def test_a_sample_spreads_over_a_long_archive(corpus: BrokenCorpus) -> None:
    from signstreams.contract.crops import NUM_SAMPLED, check_archive
    from signstreams.contract.inventory import artifacts_of

    frames = dict.fromkeys(range(3 * NUM_SAMPLED), b"no jpeg")
    corpus.write_crops("one", "face", frames)
    archive = artifacts_of(corpus.layout, "one")["face"]
    check = check_archive(archive, "one", num_frames=None, crop_px=None, decode="sample")
    assert [finding.found.split(" of ")[0] for finding in check.findings] == [str(NUM_SAMPLED)]
    assert len(check.frames) == 3 * NUM_SAMPLED


def test_ctc_needs_a_blank_between_equal_glosses() -> None:
    assert [ctc_steps_needed(labels) for labels in ([], ["a"], ["a", "b"], ["a", "a", "a"])] == [0, 1, 2, 5]


def test_a_failed_report_is_kept_beside_and_goes_when_the_corpus_is_corrected(corpus: BrokenCorpus) -> None:
    broken = corpus.layout.pose("two").read_bytes()
    corpus.layout.pose("two").unlink()
    copies = write_validation(corpus.layout, corpus.validate())
    assert [path.name for path in copies] == ["failed_report.json", "failed_report.html"]
    for path in (corpus.layout.report, corpus.layout.report_page, corpus.layout.manifest):
        path.unlink()  # as Snakemake does with the outputs of a failed job
    assert json.loads(copies[0].read_text())["verdict"] == "fail"
    corpus.layout.pose("two").write_bytes(broken)
    assert write_validation(corpus.layout, corpus.validate()) == []
    assert not any(path.exists() for path in copies)
    assert json.loads(corpus.layout.report.read_text())["verdict"] == "pass"


def test_the_same_corpus_gives_the_same_bytes(corpus: BrokenCorpus) -> None:
    paths = (corpus.layout.report, corpus.layout.report_page, corpus.layout.manifest)
    write_validation(corpus.layout, corpus.validate())
    first = [path.read_bytes() for path in paths]
    write_validation(corpus.layout, corpus.validate())
    assert [path.read_bytes() for path in paths] == first


class _Page(HTMLParser):
    """Collects tags and text, and complains of what does not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not any("http" in (value or "") for _, value in attrs)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_self_contained_and_escapes_what_it_shows(corpus: BrokenCorpus) -> None:
    corpus.quarantine("one")
    corpus.edit(corpus.layout.meta, "c5;four", "<script>alert(1)<b>;four")
    validation = corpus.validate()
    page = _Page()
    page.feed(render_page(validation.report, corpus.layout))
    assert page.open == []
    assert page.tags.count("script") == 2  # ours: what the page does, and the list of videos beside it
    text = "".join(page.words)
    assert "The corpus breaks the contract" in text
    assert "is <cut> off" in text
    assert "<script>alert(1)<b>" in text
    assert all(finding.found in text for finding in validation.findings)


def test_the_page_lists_the_worst_video_first_and_says_where_it_stops(corpus: BrokenCorpus) -> None:
    report = corpus.validate().report
    video = report["videos"][0]
    report["videos"] = [video | {"video_id": f"v{number}"} for number in range(MAX_ROWS)]
    report["videos"].append(video | {"video_id": "worst", "coverage": video["coverage"] | {"face": 0.1}})
    page = render_page(report, corpus.layout)
    assert page.index("<code>worst</code>") < page.index("<code>v0</code>")
    assert f"The first {MAX_ROWS:,} of {MAX_ROWS + 1:,}" in page


def test_an_unreadable_table_does_not_make_every_id_look_unknown(corpus: BrokenCorpus) -> None:
    corpus.layout.meta.write_bytes("id;text\nc1;завтра\n".encode("koi8_r"))
    assert rules_of(corpus.validate(), "error") == {"table.encoding", "clip.any"}


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('"adiós; adiós"', '"adiós; adiós', "table.quotes"),
        ('"adiós; adiós"', "adiós; adiós", "table.ragged"),
        ("c2;", "../c2;", "meta.id"),
    ],
)
def test_what_follows_from_a_broken_row_is_not_reported_beside_it(
    corpus: BrokenCorpus, old: str, new: str, cause: str
) -> None:
    corpus.edit(corpus.layout.meta, old, new)
    assert cause in rules_of(corpus.validate(), "error")
    assert not {"split.known", "gloss.clip_known"} & rules_of(corpus.validate(), "error")


def test_missing_index_files_are_one_finding(corpus: BrokenCorpus) -> None:
    for split in SPLITS:
        corpus.layout.index(split).unlink()
    (finding,) = [finding for finding in corpus.validate().findings if finding.severity == "error"]
    assert (finding.file, finding.rule) == ("index", "split.present")
    assert finding.found == "no such files: train.csv, val.csv, test.csv"


def test_the_rate_that_a_gif_has_counts_as_well_as_the_one_it_declares(corpus: BrokenCorpus) -> None:
    """FFmpeg guesses 8.33 Hz for a GIF of frames of 12 and 13 hundredths of a second, which is 8 Hz."""
    corpus.change_metadata("one", source_fps=10.5, fps=10.5)
    assert "fps.declared" not in rules_of(corpus.validate(), "error")
    corpus.change_metadata("one", source_fps=10.5, fps=5.0)  # not all frames were extracted: their rate says nothing
    assert "fps.declared" in rules_of(corpus.validate(), "error")


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_checked(
    corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from signstreams.contract import inventory

    def read(path: Path) -> str:
        if path == corpus.layout.pose("two"):
            raise PermissionError(13, "Permission denied", str(path))
        return sha256_file(path)

    monkeypatch.setattr(inventory, "sha256_file", read)
    (finding,) = corpus.validate().findings
    assert (finding.file, finding.rule) == ("processed/pose/two.npz", "file.present")
    assert "Permission denied" in finding.found


def test_a_video_that_may_not_be_read_need_not_be_extracted_again(
    corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: VideoSource) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(source.path))

    monkeypatch.setattr(VideoSource, "sha256", refuse)
    findings = corpus.validate().findings
    assert {finding.rule for finding in findings} == {"metadata.source"}
    assert {finding.fix for finding in findings} == {"check permissions and disk"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["tracks", "pose", "keypoints", "hand_l", "loose pose", "loose face"])
def test_what_keeps_a_check_from_reading_is_no_finding(
    corpus: BrokenCorpus, monkeypatch: pytest.MonkeyPatch, kind: str, code: int
) -> None:
    """Its checksum was read a moment before: a finding would be recorded, and name the wrong remedy."""
    name = kind.removeprefix("loose ")
    if name != kind:
        corpus.loosen()
    real = io.open

    def fail(file: object, *args: Any, **how: Any) -> Any:
        path = Path(str(file))
        if path.parent == corpus.layout.processed / name and path.name.startswith("two") and not is_summed(path):
            raise OSError(code, os.strerror(code), str(file))
        return real(file, *args, **how)

    def is_summed(path: Path) -> bool:
        return any(frame.name == "sha256_file" for frame in traceback.extract_stack())

    monkeypatch.setattr("builtins.open", fail)
    monkeypatch.setattr("io.open", fail)
    with pytest.raises(OSError, match="two") as caught:
        corpus.validate()
    assert caught.value.errno == code
    assert not corpus.layout.check("two").exists()


def test_a_report_that_cannot_be_written_is_one_line(corpus: BrokenCorpus) -> None:
    (corpus.root / "contract").write_text("in the way")
    with pytest.raises(UserError, match="expected to write the report"):
        write_validation(corpus.layout, corpus.validate())


def test_faults_far_into_a_long_video_are_counted_over_all_pieces() -> None:
    from signstreams.contract import arrays

    pose = np.full((3 * arrays.PIECE_FRAMES, 33, 3), 0.5, np.float32)
    pose[arrays.PIECE_FRAMES + 7 :: 10, 4] = (2, 0.5, 1)
    (finding,) = arrays.survey_pose(pose.reshape(-1, 99)).findings("pose.npz")
    count = len(range(arrays.PIECE_FRAMES + 7, len(pose), 10))
    assert f"{count:,} points are out of range in {count:,} frames" in finding.found
    assert f"frame {arrays.PIECE_FRAMES + 7} point 4" in finding.found


def test_an_absent_root_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        validate(ContractConfig(root=tmp_path / "absent"))


def test_the_command_exits_with_2_after_an_error_and_returns_otherwise(
    corpus: BrokenCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["validate", "--root", str(corpus.root)])
    assert capsys.readouterr().out.startswith("contract: pass: 0 errors, 0 warnings in 4 videos")
    corpus.layout.pose("two").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "--root", str(corpus.root)])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "processed/pose/two.npz: no such file" in line
    assert printed.out.startswith("contract: fail: 1 error, 0 warnings in 4 videos")
    assert "failed_report.html" in printed.out
    assert json.loads(corpus.layout.report.read_text())["verdict"] == "fail"


def test_many_findings_of_a_rule_are_cut_with_a_count(corpus: BrokenCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    validation = corpus.validate()
    capsys.readouterr()
    rule = RULES["pose.finite"]
    for more, said in (
        (1234, "1,234 more findings of this rule in 1,234 files"),
        (1, "1 more finding of this rule in 1 file"),
    ):
        many = [rule.breach(f"processed/pose/v{number}.npz", "nan", "fix it") for number in range(MAX_FILES + more)]
        print_outcome(replace(validation, findings=many), corpus.layout, [])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == MAX_FILES + 1
        assert lines[-1] == f"error: {said}, see contract/report.json [pose.finite]"


def test_warnings_are_printed_as_lines(corpus: BrokenCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.change_metadata("one", note="ends early")
    print_outcome(corpus.validate(), corpus.layout, [])
    captured = capsys.readouterr()
    assert "warning: processed/metadata/one.json: ends early" in captured.err
    assert "error" not in captured.err


def test_the_documentation_lists_every_rule_with_its_severity(project: Path) -> None:
    text = (project / "docs" / "contract_rules.md").read_text(encoding="utf-8")
    for rule in RULES.values():
        assert f"| `{rule.id}` | {rule.severity} | {rule.expects} |" in text, rule.id
