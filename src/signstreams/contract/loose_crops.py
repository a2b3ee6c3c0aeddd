"""Check of loose crops: JPEGs, pose and keypoints of another tool, without tracks, metadata or checksums.

Such a corpus serves pretraining. Its files must keep the same rules; a warning names those that are missing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from signstreams.array_types import Array
from signstreams.contract import rules
from signstreams.contract.arrays import MAX_FRAME_SIZES
from signstreams.contract.check_records import LOOSE_FIX, VideoCheck
from signstreams.contract.crops import check_loose
from signstreams.contract.inventory import PLAIN, PROCESSED, Artifact, VideoFiles
from signstreams.contract.video import READ_ERRORS, check_claims, check_links
from signstreams.corpus.findings import Finding, few, few_ids
from signstreams.errors import DamagedFile, raise_if_of_machine
from signstreams.formats.arrays import POSE_NORM, as_damage
from signstreams.formats.landmarks import NUM_KEYPOINTS, POSE
from signstreams.formats.layout import CorpusLayout
from signstreams.ids import shown
from signstreams.streams import STREAMS

METADATA_LINES = "metadata.jsonl"
OTHER_KEYPOINTS = 79  # points of a frame that the layout of the requirement allows besides 543 or more
MAY_LACK = ("video", "tracks", "metadata", "checksums", "pose", "keypoints", *STREAMS)
"""What a video of loose crops may lack, in the order of the report."""


def check_loose_video(layout: CorpusLayout, video: VideoFiles, decode: str, checksums: Mapping[str, str]) -> VideoCheck:
    """Check the loose crops of one video, its pose and its keypoints; those without a checksum cannot be read."""
    video_id, artifacts = video.video_id, video.artifacts
    check = VideoCheck(video_id, status="loose")
    check.findings += check_links(layout, artifacts)
    missing = {"tracks", "metadata", "checksums", *({"pose", "keypoints", *STREAMS} - artifacts.keys())}
    if video.source is None:
        missing.add("video")
    if missing.issuperset(STREAMS):
        place = f"{PROCESSED}/{STREAMS[0]}"
        check.findings.append(rules.LOOSE_CROPS.breach(place, f"no crop of the video {shown(video_id)}", LOOSE_FIX))
    points = {
        kind: _check_points(artifacts[kind], check.findings) for kind in ("pose", "keypoints") if kind in checksums
    }
    lengths = {kind: len(values) for kind, values in points.items() if values is not None}
    other_points = []
    if (keypoints := points.get("keypoints")) is not None:
        num_points = keypoints.shape[1]
        if num_points != NUM_KEYPOINTS:
            other_points = [f"keypoints of {NUM_KEYPOINTS} points ({num_points} are there)"]
        if num_points >= NUM_KEYPOINTS and len(keypoints):
            check.coverage["pose"] = float((keypoints[:, POSE, 2] > 0).any(axis=1).mean())
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{kind} {length:,}" for kind, length in sorted(lengths.items()))
        check.findings.append(rules.LENGTH.breach(artifacts["keypoints"].place, f"frames: {found}", LOOSE_FIX))
    num_frames = min(lengths.values(), default=None)
    sides: set[int] = set()
    last = -1
    for stream in STREAMS:
        if stream in checksums:
            crops = check_loose(artifacts[stream], num_frames, decode)
            check.findings += crops.findings
            lengths[stream], last = len(crops.frames), max(last, *crops.frames)
            sides |= crops.sides_px
    if len(sides) > 1:
        found = f"crops of {few(sorted(sides))} px"
        check.findings.append(rules.CROPS_SIZE.breach(f"{PROCESSED}/*/{video_id}_f*.jpg", found, LOOSE_FIX))
    check.crop_px = min(sides, default=None)
    check.num_frames = last + 1 if num_frames is None else num_frames
    if check.num_frames:
        check.coverage |= {stream: min(1.0, lengths.get(stream, 0) / check.num_frames) for stream in STREAMS}
    check.missing = [what for what in MAY_LACK if what in missing] + other_points
    for kind, artifact in artifacts.items():
        if kind in checksums:
            check.add_file(artifact, checksums[kind], lengths.get(kind))
        else:
            check.findings.append(rules.PRESENT.breach(artifact.place, "it cannot be read", "correct its permissions"))
    return check


def _check_points(artifact: Artifact, findings: list[Finding]) -> Array | None:
    """Pose or keypoints (T, L, 3), findings added; None when they cannot be read."""
    kind, name = artifact.kind, artifact.place
    readable, finite, in_range, wanted = {
        "pose": (rules.POSE_READABLE, rules.POSE_FINITE, rules.POSE_RANGE, "pose (T, 3L)"),
        "keypoints": (
            rules.KEYPOINTS_READABLE,
            rules.KEYPOINTS_FINITE,
            rules.KEYPOINTS_RANGE,
            f"keypoints (T, {OTHER_KEYPOINTS} or at least {NUM_KEYPOINTS}, 3)",
        ),
    }[kind]
    try:
        with as_damage(artifact.path):
            values = _load_points(artifact.path, kind)
            if values.dtype.kind != "f":
                raise ValueError(f"numbers of the type {values.dtype}")
            if kind == "pose" and values.ndim == 2 and values.shape[1] and values.shape[1] % 3 == 0:
                values = values.reshape(len(values), -1, 3)
            num_points = values.shape[1] if values.ndim == 3 and values.shape[2] == 3 else 0
            if not (num_points and (kind == "pose" or num_points == OTHER_KEYPOINTS or num_points >= NUM_KEYPOINTS)):
                raise ValueError(f"an array of the shape {values.shape}")
    except READ_ERRORS as error:
        found = DamagedFile.of(artifact.path, error).found
        findings.append(readable.breach(name, found, LOOSE_FIX, expects=f"{wanted} in floats, without pickles"))
        return None
    bad = ~np.isfinite(values).all(axis=(1, 2))  # (T,)
    if bad.any():
        found = f"{int(bad.sum()):,} frames with numbers that are not finite: {few(np.flatnonzero(bad).tolist())}"
        findings.append(finite.breach(name, found, LOOSE_FIX))
        return values
    far = ((values < (-MAX_FRAME_SIZES, -MAX_FRAME_SIZES, -1)) | (values > MAX_FRAME_SIZES)).any(axis=(1, 2))  # (T,)
    if far.any():
        found = f"{int(far.sum()):,} frames with numbers out of range: {few(np.flatnonzero(far).tolist())}"
        fix = "write fractions of the frame, not pixels"
        findings.append(in_range.breach(name, found, fix, expects=f"numbers within {MAX_FRAME_SIZES:g} frame sizes"))
    return values


def _load_points(path: Path, kind: str) -> Array:
    if path.suffix == PLAIN:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError("it holds several arrays")
        return np.asarray(values)
    check_claims(path, kind, None)
    with np.load(path, allow_pickle=False) as file:
        if kind not in file.files:
            raise ValueError(f"has no array '{kind}' (found {', '.join(file.files) or 'none'})")
        if kind == "pose" and "pose_norm" in file.files and str(file["pose_norm"]) != POSE_NORM:
            raise ValueError(f"pose_norm is '{file['pose_norm']}', expected '{POSE_NORM}'")
        return np.asarray(file[kind])


def check_loose_corpus(
    layout: CorpusLayout,
    checks: Sequence[VideoCheck],
    command: Callable[[], str],
    folders: Sequence[Path],
    known: Collection[str],
) -> list[Finding]:
    """Checks across videos: mixed layouts, crop sizes, what is missing, metadata.jsonl.

    ``command`` returns the command that extracts all videos; ``known`` are the ids of all videos.
    """
    loose = [check for check in checks if check.status == "loose"]
    findings = _check_metadata_lines(layout, known)
    if not loose:
        return findings
    archived = len(checks) - len(loose)
    if archived:
        found = (
            f"{len(loose):,} videos as loose crops, {archived:,} as archives; loose are "
            f"{few_ids(check.video_id for check in loose)}"
        )
        findings.append(rules.LOOSE_MIXED.breach(PROCESSED, found, "extract the loose ones again, then remove them"))
    sizes = sorted({check.crop_px for check in checks if check.crop_px is not None})
    if len(sizes) > 1:
        found = f"crops of {few(sizes)} px"
        findings.append(rules.LOOSE_SIZE.breach(PROCESSED, found, "write all crops in one size"))
    lacking: dict[str, list[str]] = defaultdict(list)
    for check in loose:
        for what in check.missing:
            lacking[what].append(check.video_id)
    fix = f"to complete them, {command()}, then remove the loose crops"
    if "video" in lacking:
        fix = f"put the videos into {folders[0]}; {fix}"
    for what, ids in sorted(lacking.items()):
        found = f"no {what} of {len(ids):,} of {len(loose):,} videos: {few_ids(ids)}"
        findings.append(rules.LOOSE_MISSING.breach(PROCESSED, found, fix))
    return findings


def _check_metadata_lines(layout: CorpusLayout, known: Collection[str]) -> list[Finding]:
    """Each line of metadata.jsonl, at the root or below processed/, is an object; a video that it names is known."""
    findings = []
    for path in (layout.root / METADATA_LINES, layout.processed / METADATA_LINES):
        if not path.is_file():
            continue
        name = path.relative_to(layout.root).as_posix()
        fix = "write the line again, or remove the file: nothing depends on it"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise_if_of_machine(error, path)
            findings.append(rules.LOOSE_LINES.breach(name, str(error), fix))
            continue
        for row, line in enumerate(lines, 1):
            if line.strip() and (found := _fault(line, known)):
                findings.append(rules.LOOSE_LINES.breach(name, found, fix, row=row))
    return findings


def _fault(line: str, known: Collection[str]) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    if not isinstance(value, dict):
        return f"a {type(value).__name__}"
    is_unknown = "video_id" in value and str(value["video_id"]) not in known
    return f"the unknown video {shown(str(value['video_id']))}" if is_unknown else ""
