"""Which videos one job extracts together, where a corpus has too many for a job each.

A finished batch keeps its videos for good, so that new ones disturb none; what is not finished is planned anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from signstreams.files import write_text
from signstreams.formats.layout import CorpusLayout

Plan = dict[str, list[str]]
"""Batch to the ids of its videos."""
_NAME = re.compile(r"b\d{5,}")


def plan_batches(layout: CorpusLayout, video_ids: Collection[str], videos_per_job: int) -> Plan:
    """Batches over all videos: finished ones as they are, the other videos by id, so many a batch.

    Args:
        layout: Where earlier plans and manifests lie; nothing is written.
        video_ids: All videos of the corpus; those that are gone drop out of their batches.
        videos_per_job: Most videos of a new batch.
    """
    kept = {name: ids for name, ids in read_plan(layout, video_ids).items() if layout.batch(name).is_file()}
    taken = {video_id for ids in kept.values() for video_id in ids}
    rest = sorted(video_id for video_id in video_ids if video_id not in taken)
    number = 0
    for start in range(0, len(rest), videos_per_job):
        while (name := f"b{number:05d}") in kept:
            number += 1
        kept[name] = rest[start : start + videos_per_job]
    return dict(sorted(kept.items()))


def read_plan(layout: CorpusLayout, video_ids: Collection[str]) -> Plan:
    """The plan as `write_plan` left it: what a job must go by, whatever else has been finished meanwhile."""
    known = set(video_ids)
    plan = {}
    for path in _listings(layout):
        ids = [line for line in path.read_text(encoding="utf-8").splitlines() if line in known]
        known -= set(ids)  # of two batches the first has it
        if ids:
            plan[path.stem] = ids
    return plan


def write_plan(layout: CorpusLayout, plan: Plan) -> None:
    """A listing for each batch; those that are as they should be are left alone, others than the plan's go."""
    for path in _listings(layout):
        if path.stem not in plan:
            path.unlink()
    for name, ids in plan.items():
        path, text = layout.batch_ids(name), "".join(f"{video_id}\n" for video_id in ids)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text, sync=False)


def _listings(layout: CorpusLayout) -> list[Path]:
    folder = layout.batch_ids("b").parent
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix == ".txt" and _NAME.fullmatch(path.stem))
