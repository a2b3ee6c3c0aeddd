"""Check of one video: its seven files, each by itself and against the others, and the clips that lie in it."""

from __future__ import annotations

import shlex
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from signstreams.config.contract import ContractConfig
from signstreams.contract import rules
from signstreams.contract.arrays import check_agreement, check_keypoints, check_pose, check_tracks, pose_frames
from signstreams.contract.clips import check_clips
from signstreams.contract.crops import ArchiveCheck, check_archive
from signstreams.contract.records import STATE_NAMES, FileRecord, VideoCheck
from signstreams.corpus.clips import Clip
from signstreams.files import sha256_file
from signstreams.formats.arrays import Keypoints, Pose, Tracks, read_keypoints, read_pose, read_tracks
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.metadata import VideoMetadata, read_metadata
from signstreams.ids import shown
from signstreams.streams import STREAMS, BoxState

_READ_ERRORS = (ValueError, OSError, EOFError, MemoryError, RuntimeError, zlib.error, struct.error)
"""What a damaged npz raises: a ZIP member may be cut, garbled, encrypted, or claim an absurd shape."""

Value = TypeVar("Value", Keypoints, Pose, Tracks, VideoMetadata)


def video_files(layout: CorpusLayout, video_id: str) -> dict[str, Path]:
    """Kind of file to its path, of everything that extraction writes for a video."""
    return {
        **{stream: layout.crops(stream, video_id) for stream in STREAMS},
        "pose": layout.pose(video_id),
        "keypoints": layout.keypoints(video_id),
        "tracks": layout.tracks(video_id),
        "metadata": layout.metadata(video_id),
    }


def extract_command(layout: CorpusLayout, source: Path) -> str:
    """What to run to have a video's files written again."""
    words = ["python", "scripts/extract_rois_v2.py", "--videos", str(source), "--root", str(layout.root), "--force"]
    return f"run: {shlex.join(words)}"


def check_video(
    layout: CorpusLayout, video_id: str, source: Path, clips: Sequence[Clip], config: ContractConfig
) -> VideoCheck:
    """Check everything that belongs to one video; needs nothing of the others.

    Args:
        layout: Where the files lie.
        video_id: Id of the video.
        source: The video's own file.
        clips: Clips of this video.
        config: Tolerances, and how many crops are decoded.
    """
    check = VideoCheck(video_id)
    paths = video_files(layout, video_id)
    there = {kind: path for kind, path in paths.items() if path.is_file()}
    fix = extract_command(layout, source)
    if not there:
        place = _name(layout, paths["metadata"])
        check.findings.append(rules.EXTRACTED.breach(place, f"nothing of the video {shown(video_id)}", fix))
        return check
    for kind in paths.keys() - there.keys():
        check.findings.append(rules.PRESENT.breach(_name(layout, paths[kind]), "no such file", fix))
    return _VideoChecker(layout, source, there, fix, config, check).run(clips)


def _name(layout: CorpusLayout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()


class _VideoChecker:
    """State of the check of one video."""

    def __init__(
        self,
        layout: CorpusLayout,
        source: Path,
        paths: Mapping[str, Path],
        fix: str,
        config: ContractConfig,
        check: VideoCheck,
    ) -> None:
        self.source, self.paths, self.fix, self.config, self.check = source, dict(paths), fix, config, check
        self.names = {kind: _name(layout, path) for kind, path in paths.items()}
        self.lengths: dict[str, int] = {}

    def run(self, clips: Sequence[Clip]) -> VideoCheck:
        """All checks, in the order in which later ones need earlier ones."""
        sums = self._checksums()
        metadata = self._read("metadata", read_metadata, rules.METADATA_READABLE)
        keypoints = self._read("keypoints", read_keypoints, rules.KEYPOINTS_READABLE)
        pose = self._read("pose", read_pose, rules.POSE_READABLE)
        tracks = self._read("tracks", read_tracks, rules.TRACKS_READABLE)
        if metadata is not None:
            self._take_metadata(metadata, sums)
        if keypoints is not None:
            self.lengths["keypoints"] = len(keypoints.keypoints)
            self.check.findings += check_keypoints(keypoints, self.names["keypoints"], self.fix)
        if pose is not None:
            self.lengths["pose"] = len(pose.pose)
            self.check.findings += check_pose(pose, self.names["pose"], self.fix)
        if tracks is not None:
            self.lengths["tracks"] = len(tracks.times_s)
            size_px = (metadata.width_px, metadata.height_px) if metadata is not None else None
            self.check.findings += check_tracks(tracks, size_px, self.names["tracks"], self.fix)
        self._compare_lengths()
        archives = self._check_archives(tracks)
        self._measure(metadata, keypoints, tracks)
        self._record_files(sums, archives)
        if self.check.status == "ok":
            self._warn_of_coverage()
            times_s = tracks.times_s if tracks is not None else None
            clip_findings, self.check.clip_frames = check_clips(clips, self.check, times_s, self.config)
            self.check.findings += clip_findings
        return self.check

    def _checksums(self) -> dict[str, str]:
        """Checksum of every file; one that cannot be read is reported and left out of all further checks."""
        sums = {}
        for kind, path in list(self.paths.items()):
            try:
                sums[kind] = sha256_file(path)
            except OSError as error:
                self._report(rules.PRESENT, kind, f"it cannot be read ({error.strerror})", "mend permissions or disk")
                del self.paths[kind]
        return sums

    def _read(self, kind: str, read: Callable[[Path], Value], rule: rules.Rule) -> Value | None:
        if kind not in self.paths:
            return None
        try:
            return read(self.paths[kind])
        except _READ_ERRORS as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self._report(rule, kind, text)
            return None

    def _report(self, rule: rules.Rule, kind: str, found: str, fix: str | None = None) -> None:
        self.check.findings.append(rule.breach(self.names[kind], found, fix or self.fix))

    def _take_metadata(self, metadata: VideoMetadata, sums: Mapping[str, str]) -> None:
        check = self.check
        check.status, check.reason = metadata.status, metadata.reason
        check.fps, check.source_fps, check.duration_s = metadata.fps, metadata.source_fps, metadata.duration_s
        check.crop_px, check.settings_digest = metadata.crop_px, metadata.settings_digest
        self.lengths["metadata"] = metadata.num_frames
        if metadata.video_id != check.video_id:
            self._report(rules.METADATA_VIDEO, "metadata", f"the record of {shown(metadata.video_id)}")
        for kind in self.paths.keys() - {"metadata"}:
            if kind not in metadata.checksums:
                self._report(rules.CHECKSUM, "metadata", f"no checksum of {kind}")
            elif metadata.checksums[kind] != sums[kind]:
                self._report(rules.CHECKSUM, kind, "another checksum than its metadata records")
        num_bytes = self.source.stat().st_size
        if num_bytes != metadata.source_bytes:
            found = (
                f"{shown(self.source.name)} has {num_bytes:,} bytes, {metadata.source_bytes:,} when it was extracted"
            )
            self._report(rules.SOURCE, "metadata", found)
        if metadata.status == "quarantined":
            fix = "replace the video and extract it again, or remove it"
            self._report(rules.QUARANTINED, "metadata", f"quarantined: {metadata.reason}", fix)
        else:
            if metadata.note:
                self._report(rules.PARTIAL, "metadata", metadata.note, "replace the video if it should be longer")
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
            if stream not in self.paths:
                continue
            archive = check_archive(
                self.paths[stream],
                self.check.video_id,
                num_frames=min(self.lengths.values(), default=None),
                crop_px=self.check.crop_px,
                decode=self.config.decode,
                name=self.names[stream],
                fix=self.fix,
            )
            self.check.findings += archive.findings
            if tracks is not None and archive.is_readable:
                track = tracks.streams[stream]
                self.check.findings += check_agreement(track, archive.frames, stream, self.names[stream], self.fix)
            archives[stream] = archive
        return archives

    def _measure(self, metadata: VideoMetadata | None, keypoints: Keypoints | None, tracks: Tracks | None) -> None:
        """Coverage and states, and whether the metadata counts them alike."""
        check = self.check
        num_frames = max(1, check.num_frames)
        if keypoints is not None:
            num_pose_frames = pose_frames(keypoints)
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
        for kind, path in self.paths.items():
            is_archive = kind in archives
            self.check.files.append(
                FileRecord(
                    path=self.names[kind],
                    kind=kind,
                    video_id=self.check.video_id,
                    num_bytes=path.stat().st_size,
                    sha256=sums[kind],
                    num_frames=len(archives[kind].frames) if is_archive else self.lengths.get(kind),
                    coverage_ratio=self.check.coverage.get(kind) if is_archive or kind == "pose" else None,
                )
            )

    def _warn_of_coverage(self) -> None:
        limits = self.config.coverage
        for kind, ratio in self.check.coverage.items():
            if kind == "pose":
                least = limits.min_pose_ratio
            else:
                least = limits.min_face_ratio if kind == "face" else limits.min_hand_ratio
            if ratio < least and kind in self.names:
                fix = "look at the video: is the signer in the picture, lit and large enough?"
                found = f"{kind} in {ratio:.1%} of {self.check.num_frames:,} frames (warned of below {least:.0%})"
                self._report(rules.COVERAGE, kind, found, fix)
