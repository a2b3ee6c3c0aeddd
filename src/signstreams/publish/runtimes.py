"""What the jobs of the workflow took, from the benchmark files that Snakemake writes beside their logs."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".benchmark.tsv"


@dataclass(frozen=True)
class Runtime:
    """Jobs of one kind.

    Attributes:
        name: Of the rule's logs: ``extract``, or ``pretrain hand_r`` where each job has a name that says something.
        num_jobs: Jobs counted.
        total_s: Wall time of all of them.
        median_s: Wall time of the one in the middle.
        longest_s: Wall time of the longest.
        cpu_s: Processor time of all of them.
        memory_mb: The most that one of them held.
    """

    name: str
    num_jobs: int
    total_s: float
    median_s: float
    longest_s: float
    cpu_s: float
    memory_mb: float


def read_runtimes(logs: Path, per_video: Iterable[str] = ("demo", "extract")) -> list[Runtime]:
    """Runtimes by kind of job, the longest in all first.

    Args:
        logs: Folder of the logs.
        per_video: Folders below it whose jobs are counted as one kind; elsewhere each job is told by itself.
    """
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted(logs.rglob(f"*{SUFFIX}")):
        *folders, last = path.relative_to(logs).parts
        name = folders if folders and folders[0] in set(per_video) else [*folders, last.removesuffix(SUFFIX)]
        found[" ".join(name)] += _rows(path)
    runtimes = [_runtime(name, rows) for name, rows in found.items() if rows]
    return sorted(runtimes, key=lambda runtime: -runtime.total_s)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _runtime(name: str, rows: list[dict[str, str]]) -> Runtime:
    seconds = [_number(row, "s") for row in rows]
    return Runtime(
        name,
        len(rows),
        sum(seconds),
        statistics.median(seconds),
        max(seconds),
        sum(_number(row, "cpu_time") for row in rows),
        max(_number(row, "max_rss") for row in rows),
    )


def _number(row: dict[str, str], key: str) -> float:
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError):  # "NA" of a job that ended before it was measured
        return 0.0
