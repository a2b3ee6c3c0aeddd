"""Files that are either whole or absent: written aside, synced, renamed. Digests of files and of plain data.

A file that is being written is called ``.<name>.<8 characters>.part`` and stands beside its target. Its writer holds a
lock on it, which the kernel releases when the process ends, however it ends: that tells a leftover from a living part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PART = ".part"
_PART_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
_HOST = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
"""Locks may be known to one machine alone, so that machines do not share the names of parts."""


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it onto ``path`` when the block ends well, remove it otherwise.

    The folder is created; the cost does not depend on how many files it holds. ``sync`` flushes to disk before the
    rename, so that a power cut cannot leave an empty file under the final name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = _open_part(path)
    try:
        try:
            yield part
        except OSError as error:  # of a write, such as on a full disk: the kernel does not name the file
            if error.filename is None and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        if sync:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        if _is_at(handle, part):  # else it was renamed, and the name may be another writer's by now
            part.unlink()
        os.close(handle)


def remove_leftovers(*folders: str | Path) -> None:
    """Remove the parts that killed processes left in ``folders`` and in the folders directly below them.

    A stage calls it once, when it starts, since each folder is listed. Parts of living writers stay, absent folders are
    skipped.
    """
    for folder in folders:
        for inner in _remove_parts(folder):
            _remove_parts(inner)


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


def link_or_copy(path: Path, target: Path) -> None:
    """The same file under a second name; a copy where the disk has no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


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


def digest(content: Any) -> str:
    """Hex digest of JSON-able data; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def _open_part(path: Path) -> tuple[int, Path]:
    """An empty part for ``path``, and the handle that locks it while it is written.

    The usual name is always the same, so that the next writer takes over what a killed one left.
    """
    prefix = f".{path.name[:100]}."
    usual = path.with_name(f"{prefix}{_HOST}{_PART}")
    try:
        handle = os.open(usual, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:  # somebody else's leftover, which we may not open
        pass
    else:
        locked = _lock(handle)
        if locked and _is_at(handle, usual):
            os.ftruncate(handle, 0)
            return handle, usual
        os.close(handle)
        if locked is None:
            usual.unlink(missing_ok=True)
    while True:  # another process writes the same file, or the file system has no locks
        part = path.with_name(f"{prefix}{secrets.token_hex(4)}{_PART}")
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(handle)
        if _is_at(handle, part):
            return handle, part
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether ``path`` still is the open file: between opening and locking, somebody may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_parts(folder: str | Path) -> list[str]:
    """Remove the parts in ``folder`` that no living process writes; returns the folders in it."""
    try:
        with os.scandir(folder) as entries:
            inside = [(entry.path, entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:  # absent, or not ours to see
        return []
    for path, name, is_folder in inside:
        if is_folder or not _PART_NAME.fullmatch(name):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to touch
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _lock(handle):
                    os.unlink(path)
            finally:
                os.close(handle)
    return [path for path, _, is_folder in inside if is_folder]


def _lock(handle: int) -> bool | None:
    """Whether the file is now locked by this process; None on a file system without locks, as some in networks are."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse to sync a folder; the rename itself is done
        pass
    finally:
        os.close(handle)
