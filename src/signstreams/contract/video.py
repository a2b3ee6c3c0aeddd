"""Check of one extracted video: its seven files, each by itself and against the others. Clips are checked later."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from signstreams.array_types import Floats
from signstreams.contract import rules
from signstreams.contract.arrays import PointSurvey, check_agreement, check_tracks, survey_keypoints, survey_pose
from signstreams.contract.check_records import EXTRACT_AGAIN, STATE_NAMES, VideoCheck
from signstreams.contract.crops import check_archive
from signstreams.contract.inventory import ENDINGS, SOURCE, Artifact, VideoFiles
from signstreams.corpus.findings import Finding, Rule, few
from signstreams.errors import DamagedFile
from signstreams.formats.arrays import Tracks, read_pose, read_tracks
from signstreams.formats.landmarks import NUM_KEYPOINTS, NUM_POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_metadata import LONGEST_GAP_S, VideoMetadata, read_metadata
from signstreams.ids import shown
from signstreams.streams import STREAMS, BoxState

RATE_RATIO, RATE_FRAMES = 0.02, 1.5
"""The number of frames may differ from rate times length by a share of it, and by frames at the ends."""
READ_ERRORS = (DamagedFile, OSError, MemoryError)
"""What reading a processed file raises; MemoryError: an array claims an absurd shape."""

FRAME_BYTES = {"keypoints": NUM_KEYPOINTS * 12, "pose": NUM_POSE * 12, "tracks": len(STREAMS) * 21 + 8}
"""Bytes per frame in each npz."""
CLAIM_RATIO, CLAIM_SPARE_BYTES, MAX_CLAIM_BYTES = 4, 2**16, 2**33
"""An npz may claim four times the bytes that the video's frames need, and some; 8 GiB at most."""
CHECK_PERMISSIONS = "check permissions and disk"

Value = TypeVar("Value")


def check_video(
    layout: CorpusLayout, video: VideoFiles, decode: str, checksums: Mapping[str, str], unreadable: Mapping[str, str]
) -> VideoCheck:
    """Check everything that extraction wrote for one video whose source exists, without other videos and meta.csv.

    ``checksums`` are those of the files that can be read, ``unreadable`` says why others cannot; both are by kind, and
    hold the video as ``source``. The fix of most findings is `EXTRACT_AGAIN`.
    """
    check = VideoCheck(video.video_id)
    places = {kind: f"processed/{kind}/{video.video_id}{ending}" for kind, ending in ENDINGS.items()}
    if not video.artifacts:
        found = f"nothing of the video {shown(video.video_id)}"
        check.findings.append(rules.EXTRACTED.breach(places["metadata"], found, EXTRACT_AGAIN))
        return check
    for kind in ENDINGS.keys() - video.artifacts.keys():
        check.findings.append(rules.PRESENT.breach(places[kind], "no such file", EXTRACT_AGAIN))
    return _VideoChecker(layout, video, decode, check).run(checksums, unreadable)


def check_links(layout: CorpusLayout, artifacts: Mapping[str, Artifact]) -> list[Finding]:
    """Find files that are links to elsewhere: a corpus that is copied or moved would lose them."""
    findings = []
    root = layout.root.resolve()
    for artifact in artifacts.values():
        links = [path for path in artifact.paths() if path.is_symlink()]
        away = [path for path in links if not path.resolve().is_relative_to(root)]
        if away:
            found = f"a link to {shown(str(away[0].resolve()))}" + (f", and {len(away) - 1:,} more" if away[1:] else "")
            findings.append(rules.LINK.breach(artifact.place, found, "put the file itself there"))
    return findings


def check_claims(path: Path, kind: str, num_frames: int | None) -> None:
    """Check that an npz does not unpack to far more than its frames need, before memory is allocated for it.

    Raises:
        DamagedFile: It does.
    """
    most = MAX_CLAIM_BYTES
    if num_frames is not None:
        most = min(most, CLAIM_RATIO * num_frames * FRAME_BYTES[kind] + CLAIM_SPARE_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return  # no npz: the reader reports it
    if claimed > most:
        raise DamagedFile(path, f"claims {claimed:,} bytes of arrays, at most {most:,} can be")


class _VideoChecker:
    """The checks of one video, which share what was read so far."""

    def __init__(self, layout: CorpusLayout, video: VideoFiles, decode: str, check: VideoCheck) -> None:
        assert video.source is not None
        self.layout, self.source, self.decode, self.check = layout, video.source, decode, check
        self.artifacts = dict(video.artifacts)
        self.lengths: dict[str, int] = {}

    def run(self, checksums: Mapping[str, str], unreadable: Mapping[str, str]) -> VideoCheck:
        """Run all checks; later ones need results of earlier ones."""
        self.check.findings += check_links(self.layout, self.artifacts)
        for kind in self.artifacts.keys() & unreadable.keys():
            self._report(rules.PRESENT, kind, f"it cannot be read ({unreadable[kind]})", CHECK_PERMISSIONS)
            del self.artifacts[kind]
        metadata = self._read("metadata", read_metadata, rules.METADATA_READABLE)
        if metadata is not None:
            self._check_metadata(metadata, checksums)
        keypoints = self._read("keypoints", survey_keypoints, rules.KEYPOINTS_READABLE)
        pose = self._read("pose", lambda path: survey_pose(read_pose(path)), rules.POSE_READABLE)
        tracks = self._read("tracks", read_tracks, rules.TRACKS_READABLE)
        for kind, survey in (("keypoints", keypoints), ("pose", pose)):
            if survey is not None:
                self.lengths[kind] = survey.num_frames
                self.check.findings += survey.findings(self.artifacts[kind].place)
        if tracks is not None:
            self.lengths["tracks"] = len(tracks.times_s)
            size_px = (metadata.width_px, metadata.height_px) if metadata is not None else None
            findings = check_tracks(tracks, size_px, self.artifacts["tracks"].place)
            if metadata is not None and not any(finding.rule == rules.TRACKS_TIMES.id for finding in findings):
                findings += check_times(metadata, tracks.times_s, self.artifacts["tracks"].place)
            self.check.findings += findings
        self._compare_lengths()
        self._check_archives(tracks)
        self._measure(metadata, keypoints, tracks)
        for kind, artifact in self.artifacts.items():
            self.check.add_file(artifact, checksums[kind], self.lengths.get(kind))
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
            self._report(rule, kind, DamagedFile.of(path, error).found)
            return None

    def _report(self, rule: Rule, kind: str, found: str, fix: str = EXTRACT_AGAIN) -> None:
        self.check.findings.append(rule.breach(self.artifacts[kind].place, found, fix))

    def _check_metadata(self, metadata: VideoMetadata, checksums: Mapping[str, str]) -> None:
        check = self.check
        check.status, check.reason = metadata.status, metadata.reason
        check.fps, check.source_fps, check.duration_s = metadata.fps, metadata.source_fps, metadata.duration_s
        check.crop_px, check.settings_digest = metadata.crop_px, metadata.settings_digest
        check.face_privacy, check.spans_s = metadata.face_privacy, metadata.spans_s
        check.num_damaged_frames = metadata.num_damaged_frames or 0
        self.lengths["metadata"] = metadata.num_frames
        if metadata.video_id != check.video_id:
            self._report(rules.METADATA_VIDEO, "metadata", f"the record of {shown(metadata.video_id)}")
        check.findings += check_metadata(metadata, self.artifacts["metadata"].place)
        for kind in self.artifacts.keys() - {"metadata"}:
            if kind not in metadata.checksums:
                self._report(rules.CHECKSUM, "metadata", f"no checksum of {kind}")
            elif metadata.checksums[kind] != checksums[kind]:
                self._report(rules.CHECKSUM, kind, "another checksum than its metadata records")
        if checksums.get(SOURCE) != metadata.source_sha256:
            name = shown(self.source.name)
            found, fix = f"{name} has changed since it was extracted", EXTRACT_AGAIN
            if SOURCE not in checksums:
                found, fix = f"{name} cannot be read", CHECK_PERMISSIONS
            self._report(rules.SOURCE, "metadata", found, fix)
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

    def _check_archives(self, tracks: Tracks | None) -> None:
        num_frames = min(self.lengths.values(), default=None)
        for stream in STREAMS:
            if stream not in self.artifacts:
                continue
            artifact, crop_px = self.artifacts[stream], self.check.crop_px
            archive = check_archive(artifact, self.check.video_id, num_frames, crop_px, self.decode)
            self.check.findings += archive.findings
            if tracks is not None and archive.is_readable:
                self.check.findings += check_agreement(tracks.streams[stream], archive.frames, stream, artifact.place)
            self.lengths[stream] = len(archive.frames)

    def _measure(self, metadata: VideoMetadata | None, keypoints: PointSurvey | None, tracks: Tracks | None) -> None:
        """Measure coverage and states, and check that the metadata has the same counts."""
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


# -- Metadata, by themselves and against the tracks


def check_metadata(value: VideoMetadata, name: str) -> list[Finding]:
    """Check that status and reason agree, numbers are possible, the signer's region is in the frame, and spans rise."""
    found = (
        (rules.STATUS, _status(value)),
        (rules.NUMBERS, _numbers(value)),
        (rules.SIGNER, _signer(value)),
        (rules.SPANS, _spans(value.spans_s or ())),
    )
    return [rule.breach(name, text, EXTRACT_AGAIN) for rule, text in found if text]


def _status(value: VideoMetadata) -> str:
    if value.status == "quarantined":
        if not (value.reason or "").strip():
            return "quarantined without a reason"
        return f"quarantined with {value.num_frames:,} frames" if value.num_frames else ""
    return f"the reason of a quarantine ('{value.reason}') and the status ok" if value.reason is not None else ""


def _numbers(value: VideoMetadata) -> str:
    if (value.num_damaged_frames or 0) > value.num_frames:
        return f"num_damaged_frames {value.num_damaged_frames} of {value.num_frames} frames"
    least = {"num_frames": 0, "num_pose_frames": 0, "num_face_frames": 0, "source_bytes": 0, "crop_px": 1}
    if value.status == "ok":
        least |= {"width_px": 1, "height_px": 1, "fps": 0, "source_fps": 0, "duration_s": 0}
    return few([f"{name} {getattr(value, name)}" for name, limit in least.items() if getattr(value, name) < limit])


def _signer(value: VideoMetadata) -> str:
    signer = value.signer
    if signer.region_px is not None and value.status == "ok":
        x0, y0, x1, y1 = signer.region_px
        if not (0 <= x0 < x1 <= value.width_px and 0 <= y0 < y1 <= value.height_px):
            return f"the region {signer.region_px} in a frame of {value.width_px} x {value.height_px} px"
    if any(motion < 0 for motion in signer.hand_motion):
        return f"the hand motion {few(signer.hand_motion)}"
    if signer.num_people is not None and len(signer.hand_motion) not in (0, signer.num_people):
        return f"the hand motion of {len(signer.hand_motion)} people, of {signer.num_people}"
    return ""


def _spans(spans_s: Sequence[tuple[float, float]]) -> str:
    wrong = [span for span in spans_s if not 0 <= span[0] < span[1]]
    wrong += [later for earlier, later in pairwise(spans_s) if later[0] < earlier[1]]
    return f"the spans {few(wrong)}" if wrong else ""


def check_times(value: VideoMetadata, times_s: Floats, name: str) -> list[Finding]:
    """Check that frames are in the extracted spans and before the end, and follow each other at the recorded rate.

    ``times_s`` (T,) is finite and rising.
    """
    if not len(times_s) or value.fps <= 0:
        return []
    findings = []
    frame_s = 1 / value.fps
    runs = [times_s]
    if value.spans_s is not None and not _spans(value.spans_s):
        inside = np.zeros(len(times_s), bool)
        runs = []
        for start_s, end_s in value.spans_s:
            here = (times_s >= start_s - frame_s) & (times_s <= end_s + frame_s) & ~inside
            inside |= here
            runs.append(times_s[here])
        if not inside.all():
            outside = np.flatnonzero(~inside).tolist()
            found = f"{len(outside):,} frames outside the spans of the metadata: frames {few(outside)}"
            findings.append(rules.SPANS.breach(name, found, EXTRACT_AGAIN))
    if times_s[-1] > value.duration_s + frame_s:
        found = f"the last frame at {times_s[-1]:.3f} s, after the end of the video at {value.duration_s:.3f} s"
        findings.append(rules.TRACKS_RATE.breach(name, found, EXTRACT_AGAIN, expects="frames inside the video"))
    without_gaps = [part for run in runs for part in np.split(run, np.flatnonzero(np.diff(run) > LONGEST_GAP_S) + 1)]
    found = _other_rate(without_gaps, value.fps)
    if found and _other_rate(runs, value.fps):  # earlier versions counted gaps into the rate
        findings.append(rules.TRACKS_RATE.breach(name, found, EXTRACT_AGAIN))
    return findings


def _other_rate(runs: Sequence[Floats], fps: float) -> str:
    """States that the times of runs of frames have another rate than ``fps``, Hz; empty when they have not."""
    runs = [run for run in runs if len(run) > 1]
    num_steps = sum(len(run) - 1 for run in runs)
    wanted = sum(float(run[-1] - run[0]) for run in runs) * fps
    if abs(num_steps - wanted) <= RATE_RATIO * wanted + RATE_FRAMES * max(1, len(runs)):
        return ""
    return f"{num_steps * fps / wanted:.4g} frames per second by their times, {fps:g} by the metadata"
