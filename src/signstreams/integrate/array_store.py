"""Arrays of videos, made once and mapped into memory: ``<folder>/<video>.npy``, and a journal of their sources.

A file is current only if the journal names it, with the same source and the right size: a killed run continues where it
stopped, and after a change of a video's files only its own array is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from signstreams.array_types import Array
from signstreams.errors import UserError
from signstreams.files import replacing
from signstreams.processes import files_to_keep_open

JOURNAL = "journal.jsonl"
STORES = 8  # more than a training reads from: up to four streams, times, pose, nodes


@dataclass(frozen=True)
class Record:
    """Entry of the journal for one array."""

    video: str  # id of the video
    source: str  # digest of the files it was made from
    shape: tuple[int, ...]  # shape of the array, frames first
    dtype: str  # data type of the array
    bytes: int  # size of the file
    sha256: str  # digest of the array's bytes


class ArrayStore:
    """A folder of arrays; several processes may add different videos at once, several threads may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = _read_journal(folder / JOURNAL)
        self._mapped = lru_cache(files_to_keep_open(STORES))(_map)  # each memory map keeps its file open

    def is_current(self, video_id: str, source: str) -> bool:
        """Whether the array of a video is complete and made from this source."""
        record = self.records.get(video_id)
        if record is None or record.source != source:
            return False
        try:
            return self.path(video_id).stat().st_size == record.bytes
        except OSError:
            return False

    def add(self, video_id: str, source: str, array: Array) -> None:
        """Write an array, then its entry in the journal; a `UserError` where that fails."""
        path = self.path(video_id)
        array = np.ascontiguousarray(array)
        try:
            with replacing(path, sync=False) as part:
                with part.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
                size = part.stat().st_size
            digest = hashlib.sha256(array.data).hexdigest()
            record = Record(video_id, source, array.shape, array.dtype.str, size, digest)
            line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
            journal = os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(journal, line.encode())  # one write: lines of several processes do not mix
            finally:
                os.close(journal)
        except OSError as error:
            reason = error.strerror or os.strerror(errno.ENOSPC)  # numpy reports a short write without errno
            raise UserError(
                f"{path}: cannot be written ({reason}); free space there, or name another --features"
            ) from None
        self.records[video_id] = record

    def reload(self) -> None:
        """Read the journal again, with what other processes have added."""
        self.records = _read_journal(self.folder / JOURNAL)

    def __getitem__(self, video_id: str) -> Array:
        """The array as a memory map.

        Raises:
            UserError: The file is missing or not the one that was written.
        """
        return self._mapped(self.path(video_id), self.records[video_id])

    def num_frames(self, video_id: str) -> int:
        """Number of frames of a video."""
        return self.records[video_id].shape[0]

    def path(self, video_id: str) -> Path:
        """File of a video; ids were checked when the corpus was read (`signstreams.ids`)."""
        return self.folder / f"{video_id}.npy"


def _map(path: Path, record: Record) -> Array:
    if 0 in record.shape:  # nothing to map
        return np.zeros(record.shape, record.dtype)
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != record.shape or array.dtype.str != record.dtype:
            raise ValueError(f"holds {array.dtype} {array.shape}, expected {record.dtype} {record.shape}")
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        advice = "remove the file and start again: it is made again"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "raise the limit on open files (ulimit -n 4096) and start again"
        raise UserError(f"{path}: {reason}; {advice}") from None
    return array


def _read_journal(path: Path) -> dict[str, Record]:
    """Video to its latest record; records that a crash or a full disk cut short are skipped."""
    records = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name another --features") from None
    for line in lines:
        try:
            # a torn record is directly followed by the next one
            content = json.loads(line[max(0, line.rfind('{"video": ')) :])
            record = Record(**{**content, "shape": tuple(content["shape"])})
        except (ValueError, TypeError, KeyError):
            continue
        records[record.video] = record
    return records
