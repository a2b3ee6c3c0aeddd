"""Check of one extracted video: its seven files, each by itself and against the others. Clips are the join's matter."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from signstreams.contract import rules
from signstreams.contract.arrays import (
    PointSurvey,
    check_agreement,
    check_keypoints,
    check_pose,
    check_tracks,
    survey_keypoints,
)
from signstreams.contract.crops import ArchiveCheck, check_archive
from signstreams.contract.inventory import ENDINGS, SOURCE, Artifact
from signstreams.contract.metadata import check_metadata, check_times
from signstreams.contract.records import EXTRACT_AGAIN, STATE_NAMES, FileRecord, VideoCheck
from signstreams.corpus.findings import Finding, Rule
from signstreams.formats.arrays import Pose, Tracks, read_pose, read_tracks
from signstreams.formats.landmarks import NUM_KEYPOINTS, NUM_POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata, read_metadata
from signstreams.ids import shown
from signstreams.streams import STREAMS, BoxState

READ_ERRORS = (ValueError, OSError, EOFError, MemoryError, RuntimeError, zlib.error, struct.error)
"""What a damaged npz raises: a ZIP member may be cut, garbled, encrypted, or claim an absurd shape."""

FRAME_BYTES = {"keypoints": NUM_KEYPOINTS * 12, "pose": NUM_POSE * 12, "tracks": len(STREAMS) * 21 + 8}
"""Bytes of a frame in each npz."""
CLAIM_RATIO, CLAIM_SPARE_BYTES, MAX_CLAIM_BYTES = 4, 2**16, 2**33
"""A member of an npz may claim so many times the bytes that the video's frames need; 8 GiB at most."""

Value = TypeVar("Value", PointSurvey, Pose, Tracks, VideoMetadata)


def check_video(
    layout: CorpusLayout,
    video_id: str,
    source: Path,
    artifacts: Mapping[str, Artifact],
    decode: str,
    sums: Mapping[str, str],
    unreadable: Mapping[str, str],
) -> VideoCheck:
    """Check everything that extraction wrote for one video; needs nothing of the others, nor of meta.csv.

    The fix of most findings is `EXTRACT_AGAIN`, which `signstreams.contract.again.name_fixes` replaces.

    Args:
        layout: Where the files lie.
        video_id: Id of the video.
        source: The video's own file.
        artifacts: Kind to file, of those that are there.
        decode: Which crops are decoded: ``all``, ``sample`` or ``none``.
        sums: Kind to checksum, of those that can be read; ``source`` is that of the video.
        unreadable: Kind to the reason, of the others.
    """
    check = VideoCheck(video_id)
    fix = EXTRACT_AGAIN
    places = {kind: f"processed/{kind}/{video_id}{ending}" for kind, ending in ENDINGS.items()}
    if not artifacts:
        check.findings.append(
            rules.EXTRACTED.breach(places["metadata"], f"nothing of the video {shown(video_id)}", fix)
        )
        return check
    for kind in ENDINGS.keys() - artifacts.keys():
        check.findings.append(rules.PRESENT.breach(places[kind], "no such file", fix))
    return _VideoChecker(layout, source, artifacts, fix, decode, check).run(sums, unreadable)


def check_links(layout: CorpusLayout, artifacts: Mapping[str, Artifact], names: Mapping[str, str]) -> list[Finding]:
    """Files that lie elsewhere: a corpus that is copied or checked again would lose them."""
    findings = []
    root = layout.root.resolve()
    for kind, artifact in artifacts.items():
        links = [path for path in artifact.paths() if path.is_symlink()]
        away = [path for path in links if not path.resolve().is_relative_to(root)]
        if away:
            found = f"a link to {shown(str(away[0].resolve()))}" + (f", and {len(away) - 1:,} more" if away[1:] else "")
            findings.append(rules.LINK.breach(names[kind], found, "put the file itself there"))
    return findings


def check_claims(path: Path, kind: str, num_frames: int | None) -> None:
    """See that an npz does not unpack to more than its frames need, before memory is taken for it.

    Raises:
        ValueError: When it does.
    """
    most = MAX_CLAIM_BYTES
    if num_frames is not None:
        most = min(most, CLAIM_RATIO * num_frames * FRAME_BYTES[kind] + CLAIM_SPARE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return  # no npz: the reader says so
    if claimed > most:
        raise ValueError(f"claims {claimed:,} bytes of arrays, at most {most:,} can be")


class _VideoChecker:
    """State of the check of one video."""

    def __init__(
        self,
        layout: CorpusLayout,
        source: Path,
        artifacts: Mapping[str, Artifact],
        fix: str,
        decode: str,
        check: VideoCheck,
    ) -> None:
        self.layout, self.source, self.fix, self.decode, self.check = layout, source, fix, decode, check
        self.artifacts = dict(artifacts)
        self.names = {kind: f"processed/{kind}/{artifact.names[0]}" for kind, artifact in artifacts.items()}
        self.lengths: dict[str, int] = {}

    def run(self, sums: Mapping[str, str], unreadable: Mapping[str, str]) -> VideoCheck:
        """All checks, in the order in which later ones need earlier ones."""
        self.check.findings += check_links(self.layout, self.artifacts, self.names)
        for kind in self.artifacts.keys() & unreadable.keys():
            self._report(rules.PRESENT, kind, f"it cannot be read ({unreadable[kind]})", "mend permissions or disk")
            del self.artifacts[kind]
        metadata = self._read("metadata", read_metadata, rules.METADATA_READABLE)
        if metadata is not None:
            self._take_metadata(metadata, sums)
        keypoints = self._read("keypoints", survey_keypoints, rules.KEYPOINTS_READABLE)
        pose = self._read("pose", read_pose, rules.POSE_READABLE)
        tracks = self._read("tracks", read_tracks, rules.TRACKS_READABLE)
        if keypoints is not None:
            self.lengths["keypoints"] = keypoints.num_frames
            self.check.findings += check_keypoints(keypoints, self.names["keypoints"], self.fix)
        if pose is not None:
            self.lengths["pose"] = len(pose.pose)
            self.check.findings += check_pose(pose, self.names["pose"], self.fix)
        if tracks is not None:
            self.lengths["tracks"] = len(tracks.times_s)
            size_px = (metadata.width_px, metadata.height_px) if metadata is not None else None
            findings = check_tracks(tracks, size_px, self.names["tracks"], self.fix)
            if metadata is not None and not any(finding.rule == rules.TRACKS_TIMES.id for finding in findings):
                findings += check_times(metadata, tracks.times_s, self.names["tracks"], self.fix)
            self.check.findings += findings
        self._compare_lengths()
        archives = self._check_archives(tracks)
        self._measure(metadata, keypoints, tracks)
        self._record_files(sums, archives)
        return self.check

    def _read(self, kind: str, read: Callable[[Path], Value], rule: Rule) -> Value | None:
        if kind not in self.artifacts:
            return None
        path = self.artifacts[kind].path
        try:
            if kind in FRAME_BYTES:
                check_claims(path, kind, self.lengths.get("metadata"))
            return read(path)
        except READ_ERRORS as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self._report(rule, kind, text)
            return None

    def _report(self, rule: Rule, kind: str, found: str, fix: str | None = None) -> None:
        self.check.findings.append(rule.breach(self.names[kind], found, fix or self.fix))

    def _take_metadata(self, metadata: VideoMetadata, sums: Mapping[str, str]) -> None:
        check = self.check
        check.status, check.reason = metadata.status, metadata.reason
        check.fps, check.source_fps, check.duration_s = metadata.fps, metadata.source_fps, metadata.duration_s
        check.crop_px, check.settings_digest = metadata.crop_px, metadata.settings_digest
        check.face_privacy, check.spans_s = metadata.face_privacy, metadata.spans_s
        self.lengths["metadata"] = metadata.num_frames
        if metadata.video_id != check.video_id:
            self._report(rules.METADATA_VIDEO, "metadata", f"the record of {shown(metadata.video_id)}")
        check.findings += check_metadata(metadata, self.names["metadata"], self.fix)
        for kind in self.artifacts.keys() - {"metadata"}:
            if kind not in metadata.checksums:
                self._report(rules.CHECKSUM, "metadata", f"no checksum of {kind}")
            elif metadata.checksums[kind] != sums[kind]:
                self._report(rules.CHECKSUM, kind, "another checksum than its metadata records")
        if sums.get(SOURCE) != metadata.source_sha256:
            changed = "is another file than when it was extracted" if SOURCE in sums else "cannot be read"
            found = f"{shown(self.source.name)} {changed}"
            self._report(rules.SOURCE, "metadata", found)
        if metadata.status == "quarantined":
            fix = "replace the video and extract it again, or remove it"
            self._report(rules.QUARANTINED, "metadata", f"quarantined: {metadata.reason}", fix)
        else:
            if metadata.note:
                fix = "replace the video if it should be longer, convert it if it is interlaced"
                self._report(rules.PARTIAL, "metadata", metadata.note, fix)
            if metadata.num_frames == 0:
                self._report(rules.FRAMES, "metadata", "no frame")

    def _compare_lengths(self) -> None:
        if len(set(self.lengths.values())) > 1:
            found = ", ".join(f"{kind} {length:,}" for kind, length in sorted(self.lengths.items()))
            first = next(kind for kind in ("tracks", "keypoints", "pose", "metadata") if kind in self.lengths)
            self._report(rules.LENGTH, first, f"frames: {found}")
        elif self.lengths:
            self.check.num_frames = next(iter(self.lengths.values()))

    def _check_archives(self, tracks: Tracks | None) -> dict[str, ArchiveCheck]:
        archives = {}
        for stream in STREAMS:
            if stream not in self.artifacts:
                continue
            archive = check_archive(
                self.artifacts[stream].path,
                self.check.video_id,
                num_frames=min(self.lengths.values(), default=None),
                crop_px=self.check.crop_px,
                decode=self.decode,
                name=self.names[stream],
                fix=self.fix,
            )
            self.check.findings += archive.findings
            if tracks is not None and archive.is_readable:
                track = tracks.streams[stream]
                self.check.findings += check_agreement(track, archive.frames, stream, self.names[stream], self.fix)
            archives[stream] = archive
        return archives

    def _measure(self, metadata: VideoMetadata | None, keypoints: PointSurvey | None, tracks: Tracks | None) -> None:
        """Coverage and states, and whether the metadata counts them alike."""
        check = self.check
        num_frames = max(1, check.num_frames)
        if keypoints is not None:
            num_pose_frames = keypoints.num_pose_frames
            check.coverage["pose"] = num_pose_frames / num_frames
            if metadata is not None and metadata.num_pose_frames != num_pose_frames:
                found = f"num_pose_frames {metadata.num_pose_frames:,}, but {num_pose_frames:,} in the keypoints"
                self._report(rules.STATES, "metadata", found)
        if tracks is None:
            return
        for stream, track in tracks.streams.items():
            counts = np.bincount(track.state, minlength=len(BoxState))
            check.states[stream] = {name: int(counts[state]) for state, name in STATE_NAMES.items()}
            check.coverage[stream] = 1 - check.states[stream]["missing"] / num_frames if check.num_frames else 0.0
        if metadata is not None and metadata.states != check.states:
            self._report(rules.STATES, "metadata", "other counts of states")

    def _record_files(self, sums: Mapping[str, str], archives: Mapping[str, ArchiveCheck]) -> None:
        for kind, artifact in self.artifacts.items():
            is_archive = kind in archives
            self.check.files.append(
                FileRecord(
                    path=self.names[kind],
                    kind=kind,
                    video_id=self.check.video_id,
                    num_bytes=artifact.num_bytes(),
                    sha256=sums[kind],
                    num_frames=len(archives[kind].frames) if is_archive else self.lengths.get(kind),
                    coverage_ratio=self.check.coverage.get(kind) if is_archive or kind == "pose" else None,
                )
            )
