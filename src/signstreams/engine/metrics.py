"""Metrics of a run: one JSON object a line, such as ``{"step": 200, "train/loss": 6.41}``, steps rising."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class MetricsLog:
    """Append-only log; a resumed run drops what was logged after its checkpoint.

    Args:
        path: File of JSON lines; made when absent, never replaced (it may be a hard link).
        after_step: Step of the checkpoint the run goes on from; later lines are cut. None starts an empty log.
    """

    def __init__(self, path: str | Path, *, after_step: int | None = None) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keep = 0
        if after_step is not None and self.path.exists():
            keep = _bytes_until(self.path, after_step)
        self._file = self.path.open("ab")
        self._file.truncate(keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def log(self, record: Mapping[str, float | int | str | None], step: int) -> None:
        """Write one line at once; a number that is not finite becomes null, which JSON can hold."""
        line = {"step": step}
        line.update({name: _plain(value) for name, value in record.items()})
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Records of a log in their order; a last line cut short by a kill is left out."""
    records = []
    for line in Path(path).read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _bytes_until(path: Path, after_step: int) -> int:
    """Bytes of the whole lines up to ``after_step``, up to the first broken line."""
    keep = 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            is_kept = line.endswith(b"\n") and json.loads(line)["step"] <= after_step
        except (ValueError, KeyError, TypeError):
            break
        if not is_kept:
            break
        keep += len(line)
    return keep


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
