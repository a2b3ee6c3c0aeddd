"""Checks of the clips of one video against what was extracted from it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from signstreams.array_types import Floats
from signstreams.config.contract import ContractConfig
from signstreams.contract import rules
from signstreams.contract.records import VideoCheck
from signstreams.contract.video import READ_ERRORS
from signstreams.corpus.clips import Clip
from signstreams.corpus.findings import Finding
from signstreams.ids import shown

META = "meta.csv"
DECLARED_S, DECLARED_RATIO = 0.5, 0.05
"""A declared duration or number of frames may be off by half a second, or by a twentieth."""


def check_clips(
    clips: Sequence[Clip], check: VideoCheck, times_s: Floats | None, config: ContractConfig
) -> tuple[list[Finding], dict[str, int]]:
    """Check spans and declared numbers.

    Args:
        clips: Clips of the video.
        check: What is known of the video.
        times_s: (T,) rising time of each frame; None when they are not known.
        config: Tolerances.

    Returns:
        Findings, and the number of frames of each clip (empty without ``times_s``).
    """
    findings: list[Finding] = []
    num_frames: dict[str, int] = {}
    for clip in clips:
        findings += _check_span(clip, check, config)
        if times_s is not None and len(times_s):
            start_s, end_s = span_s(clip)
            findings += _check_extracted(clip, check)
            num_frames[clip.clip_id] = int(np.diff(np.searchsorted(times_s, (start_s, end_s)))[0])
            if num_frames[clip.clip_id] == 0:
                found = f"clip {shown(clip.clip_id)} from {start_s:g} to {end_s:g} s holds no frame"
                findings.append(rules.CLIP_FRAMES.breach(META, found, "correct start and end", row=clip.row))
        findings += _check_declared(clip, check, config)
    return findings, num_frames


def read_times(path: Path) -> Floats | None:
    """(T,) times of the frames, without the rest of the tracks; None when they cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            times_s: Floats = file["times_s"]
            return times_s
    except (*READ_ERRORS, KeyError, zipfile.BadZipFile):
        return None


def span_s(clip: Clip) -> tuple[float, float]:
    """First moment and end of a clip; everything for a whole video."""
    if clip.start_s is None or clip.end_s is None:
        return 0.0, float("inf")
    return clip.start_s, clip.end_s


def _check_span(clip: Clip, check: VideoCheck, config: ContractConfig) -> list[Finding]:
    if clip.end_s is None or check.duration_s is None or clip.end_s <= check.duration_s + config.clip_tolerance_s:
        return []
    found = f"clip {shown(clip.clip_id)} ends at {clip.end_s:g} s, its video at {check.duration_s:.2f} s"
    return [rules.CLIP_INSIDE.breach(META, found, "correct the times, or replace a truncated video", row=clip.row)]


def _check_extracted(clip: Clip, check: VideoCheck) -> list[Finding]:
    """Of a video whose spans alone were extracted."""
    if clip.start_s is None or clip.end_s is None or check.spans_s is None:
        return []
    frame_s = 1 / check.fps if check.fps else 0.0
    end_s = min(clip.end_s, check.duration_s or clip.end_s)
    if any(start - frame_s <= clip.start_s and end_s <= end + frame_s for start, end in check.spans_s):
        return []
    found = f"clip {shown(clip.clip_id)} from {clip.start_s:g} to {clip.end_s:g} s is not among the extracted spans"
    return [rules.CLIP_EXTRACTED.breach(META, found, "extract its video again", row=clip.row)]


def _check_declared(clip: Clip, check: VideoCheck, config: ContractConfig) -> list[Finding]:
    findings = []
    if (
        clip.fps is not None
        and check.source_fps
        and abs(clip.fps - check.source_fps) > config.fps_tolerance * check.source_fps
    ):
        found = f"clip {shown(clip.clip_id)} declares {clip.fps:g} fps, its video has {check.source_fps:g}"
        fix = "correct the column fps or remove it: times come from the video's timestamps"
        findings.append(rules.FPS.breach(META, found, fix, row=clip.row))
    length_s = check.duration_s if clip.end_s is None or clip.start_s is None else clip.end_s - clip.start_s
    if length_s is None or not check.source_fps:
        return findings
    slack_s = max(DECLARED_S, DECLARED_RATIO * length_s)
    declared_s = (
        ("duration", clip.duration_s),
        ("frame_count", None if clip.frame_count is None else clip.frame_count / check.source_fps),
    )
    for column, value_s in declared_s:
        if value_s is not None and abs(value_s - length_s) > slack_s:
            found = f"clip {shown(clip.clip_id)}: {column} means {value_s:.2f} s, but it lasts {length_s:.2f} s"
            fix = "correct the column or remove it; it is not used"
            findings.append(rules.CLIP_DECLARED.breach(META, found, fix, row=clip.row))
    return findings
