"""Index of millions of crops in arrays: 28 bytes per crop, and each name once, instead of an object per crop.

Three layouts: archives `<video>.zip`, loose JPEGs `<video>_f000000.jpg`, and plain images under any names, in a folder
with any sub-folders or in one stored ZIP. A plain image counts as a video of its own, since nothing is known of its
neighbours; the name of its sub-folder, which may be a label, is not used.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import shutil
import struct
import zipfile
from array import array
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from signstreams.array_types import Array, Ints
from signstreams.corpus.findings import few_ids
from signstreams.errors import DamagedFile, UserError
from signstreams.files import replacing
from signstreams.formats.crops import Crop, archive_members, parse_crop_name
from signstreams.formats.video_sources import IMAGE_SUFFIXES
from signstreams.progress import Progress

LOOSE = -1  # offset of a crop that is a file of its own
_END = struct.Struct(
    "<4s4xHHIIH"  # end of central directory: signature, entries here and in all, size, offset, comment
)
_ENTRY_BYTES = 46  # of a member in the central directory, without its name


class Names(Sequence[str]):
    """Many strings in one block of bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def add(self, name: str) -> int:
        """Append a name and return its number."""
        self._bytes += os.fsencode(name)
        self._ends.append(len(self._bytes))
        return len(self._ends) - 2

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:  # type: ignore[override]  # no slices
        return os.fsdecode(bytes(self._bytes[self._ends[i] : self._ends[i + 1]]))


@dataclass(frozen=True)
class CropIndex(Sequence[Crop]):
    """Crops, sorted by folder, video and frame; behaves as a list of `Crop`."""

    folders: list[Path]  # folders, as given
    videos: Names  # video ids
    video_folder: Sequence[int]  # number of each video's folder
    files: Names  # paths of archives and loose images
    mirrored: frozenset[int]  # numbers of the folders whose crops are mirrored as they are decoded
    video: Ints  # (N,) int32 into ``videos``
    frame: Ints  # (N,) int32 frame in the video
    file: Ints  # (N,) int32 into ``files``
    offset: Ints  # (N,) int64 as `Crop.offset`, or `LOOSE`
    size: Ints  # (N,) uint32 bytes of the image
    crc: Ints  # (N,) uint32; 0 for loose images

    def __len__(self) -> int:
        return len(self.video)

    @overload
    def __getitem__(self, i: int) -> Crop: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Crop]: ...
    def __getitem__(self, i: int | slice) -> Crop | Sequence[Crop]:
        if isinstance(i, slice):
            return self.take(np.arange(len(self))[i])
        offset = int(self.offset[i])
        is_loose = offset == LOOSE
        return Crop(
            self.videos[self.video[i]],
            int(self.frame[i]),
            Path(self.files[self.file[i]]),
            None if is_loose else offset,
            int(self.size[i]),
            None if is_loose else int(self.crc[i]),
            self.video_folder[self.video[i]] in self.mirrored,
        )

    def __iter__(self) -> Iterator[Crop]:
        return (self[i] for i in range(len(self)))

    def take(self, chosen: Array) -> CropIndex:
        """The crops with these numbers, or those where a mask is true; names are shared."""
        names = ("video", "frame", "file", "offset", "size", "crc")
        return dataclasses.replace(self, **{name: getattr(self, name)[chosen] for name in names})

    @property
    def digest(self) -> str:
        """Digest of names, frames, sizes and checksums in their order, and of what is mirrored: the same wherever the
        folders are.

        Archives carry the CRC-32 of every member in their directory, so nothing is read twice; loose files count by
        size.
        """
        state = hashlib.sha256()
        used, rank = np.unique(self.video, return_inverse=True)
        for video in used:
            state.update(f"{self.videos[video]}\0{self.video_folder[video]}\n".encode("utf-8", "surrogateescape"))
        for column in (rank.astype("<i4"), self.frame, self.size, self.crc, self.offset == LOOSE):
            state.update(np.ascontiguousarray(column).data)
        if self.mirrored:
            state.update(f"mirrored {sorted(self.mirrored)}".encode())
        return state.hexdigest()


class _Builder:
    """Collects crops folder by folder; the numbers of a folder's videos follow their ids."""

    def __init__(self) -> None:
        self.videos, self.files, self.video_folder = Names(), Names(), array("i")
        self.singles = [array(kind) for kind in "iiiqII"]  # columns as in `CropIndex`, one value a crop
        self.blocks: list[list[Ints]] = []

    def add_video(self, video_id: str, folder: int) -> int:
        self.video_folder.append(folder)
        return self.videos.add(video_id)

    def add(self, video: int, frame: int, file: int, offset: int, size: int, crc: int) -> None:
        for column, value in zip(self.singles, (video, frame, file, offset, size, crc), strict=True):
            column.append(value)

    def add_block(self, video: int, file: int, frame: Ints, entries: Array) -> None:
        """Add a whole archive, which holds one video."""
        count = len(frame)
        self.blocks.append(
            [
                np.full(count, video, np.int32),
                frame.astype(np.int32),
                np.full(count, file, np.int32),
                entries["offset"].astype(np.int64),
                entries["size"],
                entries["crc"],
            ]
        )

    def build(self, folders: list[Path], mirrored: frozenset[int]) -> CropIndex:
        kinds = (np.int32, np.int32, np.int32, np.int64, np.uint32, np.uint32)
        singles = [np.frombuffer(column, kind) for column, kind in zip(self.singles, kinds, strict=True)]
        columns = [np.concatenate(parts) for parts in zip(singles, *self.blocks, strict=True)]
        video, frame = columns[0].astype(np.int64), columns[1]
        key = video << 32 | frame
        if (np.diff(key) < 0).any():
            order = np.argsort(key, kind="stable")
            columns = [column[order] for column in columns]
        return CropIndex(folders, self.videos, self.video_folder, self.files, mirrored, *columns)


def build_index(
    folders: Sequence[str | Path], mirrored: Collection[str] = ()
) -> tuple[CropIndex, list[tuple[Path, Exception | None]]]:
    """Index of all crops of the folders (or ZIP files), and the folders that gave none, each with its error.

    Crops of folders with one of the names ``mirrored`` are mirrored as they are decoded.

    FileNotFoundError: absent; ValueError or other OSError: a broken archive, empty files; None: there is no image.
    """
    builder = _Builder()
    problems: list[tuple[Path, Exception | None]] = []
    paths = [Path(folder) for folder in folders]
    for number, path in enumerate(paths):
        before = (len(builder.singles[0]), len(builder.blocks))
        try:
            if path.is_dir():
                _add_folder(builder, path, number)
            else:
                _add_archives(builder, [path], number)
        except (OSError, ValueError) as error:
            problems.append((path, error))
            continue
        if before == (len(builder.singles[0]), len(builder.blocks)):
            problems.append((path, None))
    index = builder.build(paths, frozenset(i for i, path in enumerate(paths) if path.name in mirrored))
    return index, problems + _empty_files(index)


def _empty_files(index: CropIndex) -> list[tuple[Path, Exception | None]]:
    """Folders with images of no bytes, as an interrupted copy leaves them; a training would meet them hours later."""
    folders: dict[int, list[Crop]] = {}
    for i in np.flatnonzero(index.size == 0).tolist():
        folders.setdefault(index.video_folder[index.video[i]], []).append(index[i])
    problems: list[tuple[Path, Exception | None]] = []
    for number, crops in folders.items():
        names = few_ids(c.path.name if c.offset is None else f"{c.path.name}, frame {c.frame}" for c in crops)
        found = f"{len(crops):,} images hold nothing (0 bytes): {names}"
        folder = index.folders[number]
        problems.append((folder, DamagedFile(folder, found, fix=crops[0].damage(ValueError()).fix)))
    return problems


def _add_folder(builder: _Builder, folder: Path, number: int) -> None:
    archives, loose = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".zip") and not entry.name.startswith("."):
                archives.append(Path(entry.path))
            elif (key := parse_crop_name(entry.name)) is not None:
                loose.append((*key, entry.path, entry.stat().st_size))
    if not archives and not loose:
        _add_images(builder, folder, number)
        return
    _add_archives(builder, sorted(archives), number)
    video, last_id = -1, None
    for video_id, frame, path, size in sorted(loose):
        if video_id != last_id:
            video, last_id = builder.add_video(video_id, number), video_id
        builder.add(video, frame, builder.files.add(path), LOOSE, size, 0)


def _add_images(builder: _Builder, folder: Path, number: int, within: str = "") -> None:
    """Add images under any names, sub-folders included, in the order of their names."""
    found: list[tuple[str, str, int | None]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                found.append((entry.name, entry.path, None))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                found.append((entry.name, entry.path, entry.stat().st_size))
    for name, path, size in sorted(found):
        if size is None:
            _add_images(builder, Path(path), number, f"{within}{name}/")
        else:
            builder.add(builder.add_video(within + name, number), 0, builder.files.add(path), LOOSE, size, 0)


def _add_archives(builder: _Builder, paths: Sequence[Path], number: int) -> None:
    for path in paths:
        if (block := read_directory(path)) is not None:
            video_id, frame, entries = block
            builder.add_block(builder.add_video(video_id, number), builder.files.add(str(path)), frame, entries)
        else:
            _add_members(builder, path, number)


def _add_members(builder: _Builder, path: Path, number: int) -> None:
    """Add an archive by any writer, member by member: the crops or, where no name is a crop's, all images."""
    members = [member for member in archive_members(path) if not member.filename.endswith("/")]
    keys = [parse_crop_name(member.filename) for member in members]
    if not any(keys):
        keys = [(m.filename, 0) if m.filename.lower().endswith(IMAGE_SUFFIXES) else None for m in members]
    file = builder.files.add(str(path))
    videos: dict[str, int] = {}
    named = [(key, member) for key, member in zip(keys, members, strict=True) if key is not None]
    for key, member in sorted(named, key=lambda pair: pair[0]):
        if member.compress_type != zipfile.ZIP_STORED:
            raise DamagedFile(path, f"'{member.filename}' is compressed", expected="a stored member (zip -0)")
        if key[0] not in videos:
            videos[key[0]] = builder.add_video(key[0], number)
        builder.add(videos[key[0]], key[1], file, member.header_offset, member.file_size, member.CRC)


def read_directory(path: Path) -> tuple[str, Ints, Array] | None:
    """Video id, frames and (offset, size, crc) of an archive that `CropWriter` wrote; None for any other.

    The members' names are equally long, so that the central directory is one array: fifty times faster than `zipfile`,
    which makes an object per member.
    """
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        if length < _END.size:
            return None
        file.seek(length - _END.size)
        signature, here, count, size, start, comment = _END.unpack(file.read(_END.size))
        is_plain = signature == b"PK\x05\x06" and here == count and not comment and count not in (0, 0xFFFF)
        if not is_plain or size % count or size // count <= _ENTRY_BYTES or start + size + _END.size != length:
            return None
        file.seek(start)
        data = file.read(size)
    name_bytes = size // count - _ENTRY_BYTES
    head = {"signature": "V4", "versions": "V4", "flags": "<u2", "method": "<u2", "time": "V4", "crc": "<u4"}
    sizes = {"packed": "<u4", "size": "<u4", "name_bytes": "<u2", "extra": "<u2", "comment": "<u2"}
    tail = {"attributes": "V8", "offset": "<u4", "name": ("u1", (name_bytes,))}
    entries = np.frombuffer(data, np.dtype([*head.items(), *sizes.items(), *tail.items()]))
    names, digits = entries["name"], entries["name"][:, -10:-4].astype(np.int32) - ord("0")
    first = names[0].tobytes()
    key = parse_crop_name(first.decode("utf-8", "replace"))
    is_ours = (
        key is not None
        and (first.isascii() or bool((entries["flags"] & 0x800).all()))
        and not (entries["flags"] & 1).any()
        and not entries["method"].any()
        and int((entries["offset"].astype(np.int64) + entries["size"]).max()) <= start
        and (entries["signature"] == np.void(b"PK\x01\x02")).all()
        and (entries["name_bytes"] == name_bytes).all()
        and not entries["extra"].any()
        and not entries["comment"].any()
        and (names[:, :-10] == names[0, :-10]).all()
        and (names[:, -4:] == names[0, -4:]).all()
        and first[-4:].lower() == b".jpg"
        and ((digits >= 0) & (digits <= 9)).all()
        and first[:-10].endswith(b"_f")
    )
    if not is_ours or key is None:
        return None
    return key[0], digits @ (10 ** np.arange(5, -1, -1)), entries


# -- Copies on the node's own disk: a shared file system answers each random read after its latency, and a week of
# training does millions of them

NUM_COPIES_AT_ONCE = 8  # a shared file system serves many slow reads at once
FREE_SHARE = 0.98  # of the scratch disk, at most


def copy_to_scratch(index: CropIndex, folder: str) -> CropIndex:
    """The same crops, read from copies of the files that hold them, below ``folder``, in which ``$NAMES`` are expanded.

    Every process of a node may call this: the first one copies, the others wait for it. Copies of an earlier run are
    used again when size and modification time are those of the source.

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
        shutil.copy2(source, part)


def _is_copied(source: Path, target: Path) -> bool:
    try:
        there = target.stat()
    except FileNotFoundError:
        return False
    here = source.stat()
    return (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)
