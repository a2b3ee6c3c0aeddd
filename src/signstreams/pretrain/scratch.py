"""Copies of the crops on the node's own disk, made once and read during the whole training.

A shared file system answers each random read only after its latency; a week of training does millions of them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from signstreams.errors import UserError
from signstreams.files import replacing
from signstreams.pretrain.crop_index import CropIndex, Names
from signstreams.progress import Progress

NUM_COPIES_AT_ONCE = 8  # a shared file system serves many slow reads at once
FREE_SHARE = 0.98  # of the scratch disk, at most


def copy_to_scratch(index: CropIndex, folder: str) -> CropIndex:
    """The same crops, read from copies of their files below ``folder``.

    Every process of a node may call this: the first one copies, the others wait for it. Copies of an earlier run are
    used again when size and modification time are those of the source.

    Args:
        index: Crops; only the files that hold them are copied.
        folder: Folder on the node's own disk; ``$NAMES`` are environment variables, such as ``$TMPDIR``.

    Raises:
        UserError: A variable that is not set, too little space, or a folder that cannot be written to or belongs to
            another user.
    """
    expanded = os.path.expandvars(folder)
    if "$" in expanded:
        raise UserError(
            f"dataset.scratch_dir '{folder}': this environment variable is not set; set it, or name a folder"
        )
    root = Path(expanded).expanduser().absolute() / f"signstreams_{os.getuid()}"  # in a shared /tmp each user's own
    used = np.unique(index.file)
    pairs = [(source, root / source.relative_to("/")) for source in (Path(index.files[i]).absolute() for i in used)]
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.is_symlink() or root.stat().st_uid != os.getuid():
            raise UserError(
                f"dataset.scratch_dir '{folder}': {root} is another user's, expected yours; name another folder"
            )
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _copy_all(pairs, root)
    except OSError as error:
        raise UserError(
            f"dataset.scratch_dir '{folder}': {error}; name a folder on the node's own disk, or leave it out"
        ) from None
    files = Names()
    places = dict(zip(used.tolist(), (str(target) for _, target in pairs), strict=True))
    for i in range(len(index.files)):
        files.add(places.get(i, index.files[i]))
    return dataclasses.replace(index, files=files)


def _copy_all(pairs: list[tuple[Path, Path]], root: Path) -> None:
    absent = [(source, target) for source, target in pairs if not _is_copied(source, target)]
    needed, free = sum(source.stat().st_size for source, _ in absent), shutil.disk_usage(root).free
    if needed > FREE_SHARE * free:
        raise UserError(
            f"dataset.scratch_dir: {root} has {free / 1e9:.2f} GB free, the crops take {needed / 1e9:.2f} GB; name a"
            " larger disk, or leave it out"
        )
    if not absent:
        return
    with (
        Progress(len(absent), "files", "copy crops to scratch") as progress,
        ThreadPoolExecutor(NUM_COPIES_AT_ONCE) as pool,
    ):
        for _ in pool.map(lambda pair: _copy(*pair), absent):
            progress.advance()


def _copy(source: Path, target: Path) -> None:
    with replacing(target, sync=False) as part:
        shutil.copyfile(source, part)
        stat = source.stat()
        os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _is_copied(source: Path, target: Path) -> bool:
    try:
        there = target.stat()
    except FileNotFoundError:
        return False
    here = source.stat()
    return (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)
