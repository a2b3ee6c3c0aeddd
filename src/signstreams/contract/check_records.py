"""Result of the check of one video, and its record, ``contract/videos/<video>.json``.

A video whose files are as recorded is not checked again. A record counts when it is whole, was made by the same rules
and settings, and each file has the size and modification time it names, or at least the checksum.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from signstreams.contract.inventory import Artifact, VideoFiles
from signstreams.contract.rules import CONTRACT_RULES
from signstreams.corpus.findings import Finding
from signstreams.files import digest, write_text
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import BoxState

# -- Result of a check

EXTRACT_AGAIN = ""
"""Fix of a finding that extracting the video again removes. `re_extraction_advice` replaces it by the command at the
end: a command names folders of this machine, and records must stay true when the corpus is copied."""
LOOSE_FIX = "write these files again with the tool that made them"  # the same for loose crops


@dataclass(frozen=True)
class FileRecord:
    """One file of the manifest."""

    path: str  # below the corpus root, with forward slashes; loose crops of a video share one, with a ``*``
    kind: str  # A key of `signstreams.contract.inventory.ENDINGS`; meta, gloss or index for tables
    video_id: str | None  # video it belongs to; None for tables
    num_bytes: int  # size
    sha256: str  # checksum
    num_frames: int | None = None  # crops of an archive, frames of an array; None for other files
    coverage_ratio: float | None = None  # share of the video's frames that it covers; None for other files


@dataclass
class VideoCheck:
    """Result of the check of one video."""

    video_id: str  # its id
    status: str = "absent"
    """``ok``, ``loose`` (crops of another tool), ``quarantined``, or ``absent`` when it was not extracted or its
    metadata cannot be read."""
    reason: str | None = None  # why it was quarantined
    findings: list[Finding] = field(default_factory=list)  # findings about its files and its clips
    files: list[FileRecord] = field(default_factory=list)  # its files
    num_frames: int = 0  # frames that all files agree on; 0 when there are none
    num_damaged_frames: int = 0  # frames that the video's decoder had to invent, as its metadata say
    fps: float | None = None  # frames per second that were extracted
    source_fps: float | None = None  # frames per second that the video declares
    duration_s: float | None = None  # length of the video
    crop_px: int | None = None  # side of its crops
    settings_digest: str | None = None  # digest of the extraction settings and of the detector with its version
    face_privacy: str | None = None  # what its crops hide of faces
    spans_s: list[tuple[float, float]] | None = None  # spans that were extracted; None for the whole video
    missing: list[str] = field(default_factory=list)  # for loose crops, what extraction would have written besides
    states: dict[str, dict[str, int]] = field(default_factory=dict)  # stream to the number of frames in each state
    coverage: dict[str, float] = field(default_factory=dict)
    """Pose, face, hand_l, hand_r to the share of frames in which it was found."""
    clip_frames: dict[str, int] = field(default_factory=dict)  # clip id to the number of frames in its span

    def add_file(self, artifact: Artifact, sha256: str, num_frames: int | None) -> None:
        """Add the record of a file, when its coverage is known."""
        kind, num_bytes = artifact.kind, sum(path.stat().st_size for path in artifact.paths())
        coverage_ratio = self.coverage.get(kind)
        record = FileRecord(artifact.place, kind, self.video_id, num_bytes, sha256, num_frames, coverage_ratio)
        self.files.append(record)

    def num_crops(self, stream: str) -> int:
        """Number of crops in the stream's archive."""
        return next((record.num_frames or 0 for record in self.files if record.kind == stream), 0)

    def as_json(self) -> dict[str, Any]:
        """Its row in the report."""
        return {
            "video_id": self.video_id,
            "status": self.status,
            "reason": self.reason,
            "num_frames": self.num_frames,
            "num_damaged_frames": self.num_damaged_frames,
            "fps": self.fps,
            "source_fps": self.source_fps,
            "duration_s": self.duration_s,
            "num_clips": len(self.clip_frames),
            "missing": self.missing,
            "coverage": {name: round(value, 4) for name, value in self.coverage.items()},
            "states": self.states,
            "num_errors": sum(finding.severity == "error" for finding in self.findings),
            "num_warnings": sum(finding.severity == "warning" for finding in self.findings),
        }


STATE_NAMES = {int(state): state.name.lower() for state in BoxState}


# -- Records

REVISION = 1
"""Raised when the check of a video finds something else in the same files: earlier records then no longer count."""


@dataclass
class _Record:
    """Content of a record."""

    rules: str  # `rules_digest` at the time of the check
    stamps: dict[str, str]  # kind of file to `Artifact.stamp` at the time of the check
    sums: dict[str, str]  # kind of file to checksum
    check: VideoCheck  # result; fixes that name folders of this machine are still `EXTRACT_AGAIN`


_ADAPTER = TypeAdapter(_Record)


@cache
def rules_digest(decode: str) -> str:
    """Digest of everything besides a video's files that decides the result of its check."""
    rules = sorted((rule.id, rule.severity, rule.expects) for rule in CONTRACT_RULES)
    return digest({"revision": REVISION, "rules": rules, "decode": decode})


def file_stamps(artifacts: Mapping[str, Artifact]) -> dict[str, str] | None:
    """Kind to `Artifact.stamp`; None when a file is a link or gone: such a video gets no record."""
    stamps = {}
    for kind, artifact in artifacts.items():
        try:
            stamp = artifact.stamp()
        except OSError:
            return None
        if stamp is None:
            return None
        stamps[kind] = stamp
    return stamps


def recorded_check(layout: CorpusLayout, video: VideoFiles, decode: str, *, may_read: bool) -> VideoCheck | None:
    """Result of an earlier check; None when the video must be checked again.

    With ``may_read``, checksums decide where only modification times differ; otherwise such files count as changed.
    """
    path, artifacts = layout.check(video.video_id), video.with_source()
    record = _read_record(path)
    if record is None or record.rules != rules_digest(decode) or record.check.video_id != video.video_id:
        return None
    stamps = file_stamps(artifacts)
    if stamps is None or stamps.keys() != record.stamps.keys():
        return None
    changed = [kind for kind in stamps if stamps[kind] != record.stamps[kind]]
    if changed:
        if not may_read:
            return None
        try:
            if any(artifacts[kind].sha256() != record.sums[kind] for kind in changed):
                return None
        except OSError:
            return None
        _write_record(path, replace(record, stamps=stamps))
    return record.check


def record_check(
    layout: CorpusLayout, check: VideoCheck, stamps: Mapping[str, str] | None, checksums: Mapping[str, str], decode: str
) -> None:
    """Write the record; remove it without ``stamps`` (a file is a link) or when a checksum lacks (it is unreadable)."""
    path = layout.check(check.video_id)
    if stamps is None or stamps.keys() != checksums.keys():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    _write_record(path, _Record(rules_digest(decode), dict(stamps), dict(checksums), check))


def _write_record(path: Path, record: _Record) -> None:
    content = _ADAPTER.dump_python(record, mode="json")
    text = json.dumps({"seal": digest(content), "record": content}, ensure_ascii=False, allow_nan=False)
    with contextlib.suppress(OSError):  # a record only saves time; writing the report beside it will report the fault
        write_text(path, text + "\n", sync=False)


def _read_record(path: Path) -> _Record | None:
    """The record if it is whole; its seal shows damage and changes by hand."""
    try:
        content = json.loads(path.read_bytes())
        if content["seal"] != digest(content["record"]):
            return None
        return _ADAPTER.validate_python(content["record"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None
