"""Records of the checks of one video: findings, files, coverage; kept in ``contract/videos/<video>.json``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from signstreams.contract.inventory import Artifact
from signstreams.contract.rules import CONTRACT_RULES
from signstreams.corpus.findings import Finding
from signstreams.files import digest, write_text
from signstreams.formats.layout import CorpusLayout
from signstreams.streams import BoxState

# What the check of one video gives back: findings, files, coverage.

EXTRACT_AGAIN = ""
"""Fix of what extracting the video again mends. The command names places of the machine: it is put in at the end, so
that records of checks stay true where the corpus is copied to."""


@dataclass(frozen=True)
class FileRecord:
    """One file of the manifest.

    Attributes:
        path: Below the corpus root, with forward slashes; loose crops of a video share one, with a ``*``.
        kind: face, hand_l, hand_r, pose, keypoints, tracks, metadata; meta, gloss or index for tables.
        video_id: Video it belongs to; None for tables.
        num_bytes: Size.
        sha256: Checksum of its bytes.
        num_frames: Crops of an archive, frames of an array; None where it has none.
        coverage_ratio: Share of the video's frames that it covers; None where that means nothing.
    """

    path: str
    kind: str
    video_id: str | None
    num_bytes: int
    sha256: str
    num_frames: int | None = None
    coverage_ratio: float | None = None


@dataclass
class VideoCheck:
    """Result of one video.

    Attributes:
        video_id: Its id.
        status: ``ok``, ``loose`` (crops of another tool), ``quarantined``, or ``absent`` when it was not extracted or
            its metadata cannot be read.
        reason: Why it was quarantined.
        findings: Breaches of its files and its clips.
        files: What is there.
        num_frames: Frames that all files agree on; 0 when there are none.
        fps: Frames a second of what was extracted.
        source_fps: Frames a second that the video declares.
        duration_s: Length of the video.
        crop_px: Side of its crops.
        settings_digest: Of the extraction settings and the detector with its version.
        face_privacy: What its crops show of faces.
        spans_s: Spans that were extracted; None for all of it.
        missing: Of a video of loose crops: what extraction would have written besides.
        states: Stream to frames in each state.
        coverage: pose, face, hand_l, hand_r to the share of frames in which it was found.
        clip_frames: Clip id to the frames its span holds.
    """

    video_id: str
    status: str = "absent"
    reason: str | None = None
    findings: list[Finding] = field(default_factory=list)
    files: list[FileRecord] = field(default_factory=list)
    num_frames: int = 0
    fps: float | None = None
    source_fps: float | None = None
    duration_s: float | None = None
    crop_px: int | None = None
    settings_digest: str | None = None
    face_privacy: str | None = None
    spans_s: list[tuple[float, float]] | None = None
    missing: list[str] = field(default_factory=list)
    states: dict[str, dict[str, int]] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    clip_frames: dict[str, int] = field(default_factory=dict)

    def num_crops(self, stream: str) -> int:
        """Crops that the stream's archive holds."""
        return next((record.num_frames or 0 for record in self.files if record.kind == stream), 0)

    def as_json(self) -> dict[str, Any]:
        """Row of the report."""
        return {
            "video_id": self.video_id,
            "status": self.status,
            "reason": self.reason,
            "num_frames": self.num_frames,
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


# Records of checks, ``contract/videos/<video>.json``: a video whose files are as they were is not checked again.
#
# A record is believed when it is whole, was made by the same rules and settings, and every file has the size and the time
# of change it names, or at least the checksum. Otherwise the video is checked anew.

REVISION = 1
"""Raised when the check of a video finds something else in the same files: records of earlier checks then lapse."""


@dataclass
class _Record:
    """Content of a record.

    Attributes:
        rules: `rules_digest` it was made by.
        stamps: Kind of file to `Artifact.stamp` as of the check.
        sums: Kind of file to checksum.
        check: What was found; the fix that names the video's place is still to be put in (`EXTRACT_AGAIN`): records
            hold no path of the machine, as the corpus may be copied to another one.
    """

    rules: str
    stamps: dict[str, str]
    sums: dict[str, str]
    check: VideoCheck


_ADAPTER = TypeAdapter(_Record)


@cache
def rules_digest(decode: str) -> str:
    """Digest of all that decides about a video besides its files."""
    rules = sorted((rule.id, rule.severity, rule.expects) for rule in CONTRACT_RULES)
    return digest({"revision": REVISION, "rules": rules, "decode": decode})


def take_stamps(artifacts: Mapping[str, Artifact]) -> dict[str, str] | None:
    """Kind to stamp; None when a file is a link or gone: then no record can vouch for it."""
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


def take_sums(artifacts: Mapping[str, Artifact]) -> tuple[dict[str, str], dict[str, str]]:
    """Kind to checksum of every file that can be read, and to the reason of every other."""
    sums, unreadable = {}, {}
    for kind, artifact in artifacts.items():
        try:
            sums[kind] = artifact.sha256()
        except OSError as error:
            unreadable[kind] = error.strerror or str(error)
    return sums, unreadable


def recall(
    layout: CorpusLayout, video_id: str, artifacts: Mapping[str, Artifact], decode: str, *, may_read: bool
) -> VideoCheck | None:
    """What an earlier check found; None when it must be done again.

    Args:
        layout: Where the record lies.
        video_id: Id of the video.
        artifacts: Kind to file, of those that are there; `SOURCE` is the video.
        decode: Which crops are decoded now.
        may_read: Read files whose time of change differs, to compare their checksums; otherwise they count as changed.
    """
    path = layout.check(video_id)
    record = _read(path)
    if record is None or record.rules != rules_digest(decode) or record.check.video_id != video_id:
        return None
    stamps = take_stamps(artifacts)
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
        _write(path, replace(record, stamps=stamps))
    return record.check


def remember(
    layout: CorpusLayout,
    check: VideoCheck,
    stamps: Mapping[str, str] | None,
    sums: Mapping[str, str],
    decode: str,
) -> None:
    """Write the record of a check; where a file could not be read or is a link, remove it.

    Args:
        layout: Where the record goes.
        check: What was found.
        stamps: Kind to stamp, taken before the check.
        sums: Kind to checksum.
        decode: Which crops were decoded.
    """
    path = layout.check(check.video_id)
    if stamps is None or stamps.keys() != sums.keys():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return
    _write(path, _Record(rules_digest(decode), dict(stamps), dict(sums), check))


def _write(path: Path, record: _Record) -> None:
    content = _ADAPTER.dump_python(record, mode="json")
    text = json.dumps({"seal": digest(content), "record": content}, ensure_ascii=False, allow_nan=False)
    with contextlib.suppress(OSError):  # only a saving of time; the report is written beside it and says what is amiss
        write_text(path, text + "\n", sync=False)


def _read(path: Path) -> _Record | None:
    """A record that is whole; the seal tells damage and changes by hand."""
    try:
        content = json.loads(path.read_bytes())
        if content["seal"] != digest(content["record"]):
            return None
        return _ADAPTER.validate_python(content["record"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None
