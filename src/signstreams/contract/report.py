"""Report and manifest as plain data, with histograms. The same corpus gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import signstreams
from signstreams.contract.check_records import FileRecord, VideoCheck
from signstreams.contract.rules import RULES
from signstreams.corpus.corpus import Corpus
from signstreams.corpus.findings import SEVERITIES, Finding
from signstreams.files import digest
from signstreams.integrate.settings import few_clips
from signstreams.streams import STREAMS

FORMAT_VERSION = 1
NUM_BARS = 24  # most bars of a histogram


def histogram(values: Sequence[float]) -> dict[str, Any]:
    """Counts in equal intervals from the least to the greatest value, drawn by the page; without values ``count``."""
    if not values:
        return {"count": 0}
    array = np.asarray(values, float)
    least, greatest = float(array.min()), float(array.max())
    counts, _ = np.histogram(array, bins=NUM_BARS if greatest > least else 1)
    return {
        "count": len(array),
        "least": round(least, 4),
        "median": round(float(np.median(array)), 4),
        "greatest": round(greatest, 4),
        "counts": counts.tolist(),
    }


def report_order(finding: Finding) -> tuple[int, str, str, int, str]:
    """Sort key: errors first, then by rule, file and row."""
    return SEVERITIES.index(finding.severity), finding.rule, finding.file, finding.row or 0, finding.found


def build_report(
    corpus: Corpus, checks: Sequence[VideoCheck], splits: Mapping[str, Sequence[str]], findings: Sequence[Finding]
) -> dict[str, Any]:
    """Content of ``contract/report.json``; ``findings`` come in `report_order`."""
    counts = Counter(finding.severity for finding in findings)
    by_rule = Counter((finding.rule, finding.severity) for finding in findings)
    signers = {clip.video_id: clip.signer for clip in corpus.clips if clip.signer is not None}
    usable = [check for check in checks if check.status in ("ok", "loose")]
    return {
        "format_version": FORMAT_VERSION,
        "signstreams_version": signstreams.__version__,
        "verdict": "fail" if counts["error"] else "pass",
        "summary": {
            **{f"num_{severity}s": counts[severity] for severity in SEVERITIES},
            "num_videos": len(checks),
            "num_extracted": sum(check.status == "ok" for check in checks),
            "num_loose": sum(check.status == "loose" for check in checks),
            "num_quarantined": sum(check.status == "quarantined" for check in checks),
            "num_frames": sum(check.num_frames for check in usable),
            "duration_s": round(sum(check.duration_s or 0.0 for check in usable), 3),
            "num_clips": len(corpus.clips),
            "num_rows_without_times": len(corpus.meta.untimed_rows),
            "num_clips_by_split": {split: len(ids) for split, ids in splits.items()},
            "num_signers": len(set(signers.values())) or None,  # None: meta.csv names none
            "few_clips": few_clips(len(splits.get("train", ()))) if any(clip.text for clip in corpus.clips) else None,
        },
        "clip_lengths_s": histogram(_clip_lengths_s(corpus, checks)),
        "streams": {stream: _stream(stream, usable) for stream in STREAMS},
        "rules": [
            {"rule": rule, "severity": severity, "count": count, "expected": RULES[rule].expects}
            for (rule, severity), count in by_rule.items()  # in the order of the findings
        ],
        "findings": [asdict(finding) for finding in findings],
        "quarantined": [
            {"video_id": check.video_id, "reason": check.reason} for check in checks if check.status == "quarantined"
        ],
        "videos": _videos(corpus, checks, splits),
    }


def _videos(corpus: Corpus, checks: Sequence[VideoCheck], splits: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A row for each video: what its check found, and the signers and splits of its clips."""
    split_of = {clip_id: split for split, ids in splits.items() for clip_id in ids}
    signers: dict[str, set[str]] = {check.video_id: set() for check in checks}
    own_splits: dict[str, set[str]] = {check.video_id: set() for check in checks}
    for clip in corpus.clips:
        if clip.video_id in signers and clip.signer:
            signers[clip.video_id].add(clip.signer)
        if clip.video_id in signers and clip.clip_id in split_of:
            own_splits[clip.video_id].add(split_of[clip.clip_id])
    return [
        {
            **check.as_json(),
            "rules": dict(sorted(Counter(finding.rule for finding in check.findings).items())),
            "signers": sorted(signers[check.video_id]),
            "splits": sorted(own_splits[check.video_id], key=list(splits).index),
        }
        for check in checks
    ]


def build_manifest(files: Sequence[FileRecord]) -> dict[str, Any]:
    """Content of ``contract/manifest.json``; ``digest`` changes when any file does."""
    rows = [dict(vars(record)) for record in sorted(files, key=lambda record: record.path)]
    return {
        "format_version": FORMAT_VERSION,
        "digest": digest([(row["path"], row["sha256"]) for row in rows]),
        "num_files": len(rows),
        "num_bytes": sum(row["num_bytes"] for row in rows),
        "files": rows,
    }


def _clip_lengths_s(corpus: Corpus, checks: Sequence[VideoCheck]) -> list[float]:
    """Lengths of the clips, where known; a clip without a span is as long as its video."""
    videos_s = {check.video_id: check.duration_s for check in checks}
    lengths_s = (
        videos_s.get(clip.video_id) if clip.end_s is None or clip.start_s is None else clip.end_s - clip.start_s
        for clip in corpus.clips
    )
    return [length_s for length_s in lengths_s if length_s is not None]


def _stream(stream: str, checks: Sequence[VideoCheck]) -> dict[str, Any]:
    states: Counter[str] = Counter()
    for check in checks:
        states.update(check.states.get(stream, {}))
    num_frames = sum(check.num_frames for check in checks)
    num_found = sum(check.coverage.get(stream, 0.0) * check.num_frames for check in checks)
    return {
        "num_crops": sum(check.num_crops(stream) for check in checks),
        "coverage": round(num_found / num_frames, 4) if num_frames else 0.0,
        "states": dict(states),
    }
