"""Checks of what extraction records of a video: by itself, and against the tracks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from signstreams.array_types import Floats
from signstreams.contract import rules
from signstreams.corpus.findings import Finding, few
from signstreams.formats.metadata import VideoMetadata

RATE_RATIO, RATE_FRAMES = 0.02, 1.5
"""By how much the number of frames may differ from rate times length: a share of it, and frames at the ends."""


def check_metadata(value: VideoMetadata, name: str, fix: str) -> list[Finding]:
    """Status and reason agree, numbers can be, the signer's region lies inside the frame, spans rise."""
    found = (
        (rules.STATUS, _status(value)),
        (rules.NUMBERS, _numbers(value)),
        (rules.SIGNER, _signer(value)),
        (rules.SPANS, _spans(value.spans_s or ())),
    )
    return [rule.breach(name, text, fix) for rule, text in found if text]


def _status(value: VideoMetadata) -> str:
    if value.status == "quarantined":
        if not (value.reason or "").strip():
            return "quarantined without a reason"
        return f"quarantined with {value.num_frames:,} frames" if value.num_frames else ""
    return f"the reason of a quarantine ('{value.reason}') and the status ok" if value.reason is not None else ""


def _numbers(value: VideoMetadata) -> str:
    least = {"num_frames": 0, "num_pose_frames": 0, "num_face_frames": 0, "source_bytes": 0, "crop_px": 1}
    if value.status == "ok":
        least |= {"width_px": 1, "height_px": 1, "fps": 0, "source_fps": 0, "duration_s": 0}
    values = {field: getattr(value, field) for field in least}
    bad = [f"{field} {got}" for field, got in values.items() if not (math.isfinite(got) and got >= least[field])]
    return few(bad)


def _signer(value: VideoMetadata) -> str:
    signer = value.signer
    if signer.region_px is not None and value.status == "ok":
        x0, y0, x1, y1 = signer.region_px
        if not (0 <= x0 < x1 <= value.width_px and 0 <= y0 < y1 <= value.height_px):
            return f"the region {signer.region_px} in a frame of {value.width_px} x {value.height_px} px"
    if not all(math.isfinite(motion) and motion >= 0 for motion in signer.hand_motion):
        return f"the hand motion {few(signer.hand_motion)}"
    if signer.num_people is not None and len(signer.hand_motion) not in (0, signer.num_people):
        return f"the hand motion of {len(signer.hand_motion)} people, of {signer.num_people}"
    return ""


def _spans(spans_s: Sequence[tuple[float, float]]) -> str:
    wrong = [span for span in spans_s if not (math.isfinite(span[1]) and 0 <= span[0] < span[1])]
    wrong += [later for earlier, later in pairwise(spans_s) if later[0] < earlier[1]]
    return f"the spans {few(wrong)}" if wrong else ""


def check_times(value: VideoMetadata, times_s: Floats, name: str, fix: str) -> list[Finding]:
    """Frames lie in the spans that were extracted, before the end, and follow each other at the recorded rate.

    Args:
        value: The video's metadata.
        times_s: (T,) times of its frames, finite and rising.
        name: What findings call the tracks.
        fix: What findings advise.
    """
    if not len(times_s) or not value.fps > 0 or not math.isfinite(value.fps):
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
            findings.append(rules.SPANS.breach(name, found, fix))
    if times_s[-1] > value.duration_s + frame_s:
        found = f"the last frame at {times_s[-1]:.3f} s, after the end of the video at {value.duration_s:.3f} s"
        findings.append(rules.TRACKS_RATE.breach(name, found, fix, expects="frames inside the video"))
    runs = [run for run in runs if len(run) > 1]
    num_steps = sum(len(run) - 1 for run in runs)
    wanted = sum(float(run[-1] - run[0]) for run in runs) * value.fps
    if abs(num_steps - wanted) > RATE_RATIO * wanted + RATE_FRAMES * max(1, len(runs)):
        rate_hz = num_steps * value.fps / wanted
        found = f"{rate_hz:.4g} frames a second by their times, {value.fps:g} by the metadata"
        findings.append(rules.TRACKS_RATE.breach(name, found, fix))
    return findings
