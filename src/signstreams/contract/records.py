"""What the check of one video gives back: findings, files, coverage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from signstreams.corpus.findings import Finding
from signstreams.streams import BoxState

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
