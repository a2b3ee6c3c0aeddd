"""Files that are either whole or absent: written aside, synced, renamed. Digests of files and of plain data."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CLOCKS_DIFFER_S = 10.0
_PART = ".part"


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it onto ``path`` when the block ends well, remove it when not.

    Args:
        path: Where the finished file goes; its folder is made.
        sync: Flush to disk before the rename, so that a power cut cannot leave an empty file under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:100]}."
    _remove_left_behind(path.parent, prefix)
    handle, part = _make_part(path.parent, prefix)
    try:
        try:
            yield part
        except OSError as error:  # of a write, such as on a full disk: the kernel does not say to what
            if error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        part.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if sync:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


def write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Write ``data`` whole or not at all."""
    with replacing(path, sync=sync) as part:
        part.write_bytes(data)


def write_text(path: str | Path, text: str, *, sync: bool = True) -> None:
    """Write UTF-8 text with ``\\n`` line ends, whole or not at all.

    A file name that is no UTF-8 holds lone surrogates; these are written as ``\\udce1``, which in JSON means the same.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), sync=sync)


def write_json(path: str | Path, content: Any, *, sync: bool = True) -> None:
    """Write ``content`` as indented JSON, keys in their order, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", sync=sync)


def read_json(path: str | Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: When it is not JSON or not UTF-8; the message says where.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("lists are nested too deeply") from error


def sha256_file(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_the_future(paths: Iterable[Path]) -> list[Path]:
    """Those last changed later than now, as by a machine whose clock is ahead; absent ones are passed over."""
    latest_s = time.time() + CLOCKS_DIFFER_S
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime > latest_s:
                found.append(path)
    return found


def digest(content: Any) -> str:
    """Hex digest of JSON-able data; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _make_part(folder: Path, prefix: str) -> tuple[int, Path]:
    """A new file, and the handle that locks it while it is written to."""
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_PART, dir=folder)
        _lock(handle)
        if os.fstat(handle).st_nlink:  # else somebody cleaned up in between
            return handle, Path(name)
        os.close(handle)


def _remove_left_behind(folder: Path, prefix: str) -> None:
    """Remove parts of processes that were killed: nobody holds their lock, which the kernel frees with its process."""
    with os.scandir(folder) as entries:
        parts = [entry.path for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(_PART)]
    for part in parts:
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to touch
            handle = os.open(part, os.O_RDWR)
            try:
                if _lock(handle):
                    os.unlink(part)
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Whether the file is now locked by this process; some network file systems know no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse to sync a folder; the rename itself is done
        pass
    finally:
        os.close(handle)
