"""Crops of one stream and video: a stored (uncompressed) ZIP of JPEGs, or a folder of loose JPEGs with the same names.

A stored member is read with one ``pread``: its offset comes from the central directory, which is read once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from signstreams.array_types import Floats, Pixels
from signstreams.errors import DamagedFile
from signstreams.files import replacing
from signstreams.formats.layout import CorpusLayout
from signstreams.formats.video_sources import IMAGE_SUFFIXES
from signstreams.ids import shown
from signstreams.processes import files_to_keep_open
from signstreams.streams import SIDE_BY_SIDE

_EPOCH = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"(?P<video_id>.+)_f(?P<frame>\d{6,})\.jpe?g", re.IGNORECASE | re.DOTALL)
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Start of a ZIP member: signature, ..., length of its name, length of its extra field."""
LOCAL_SIGNATURE = b"PK\x03\x04"


def crop_name(video_id: str, frame: int) -> str:
    """``<video_id>_f000012.jpg``."""
    return f"{video_id}_f{frame:06d}.jpg"


def parse_crop_name(name: str) -> tuple[str, int] | None:
    """Video id and frame index of a crop's file name; None for any other file."""
    match = _NAME.fullmatch(name)
    return (match["video_id"], int(match["frame"])) if match else None


class CropWriter:
    """Write one archive: `add` frames in rising order; it appears under its name when the ``with`` block ends well."""

    def __init__(self, path: str | Path, video_id: str) -> None:
        self.path = Path(path)
        self.video_id = video_id
        self._last_frame = -1

    def __enter__(self) -> Self:
        self._files = ExitStack()
        part = self._files.enter_context(replacing(self.path))
        self._archive = self._files.enter_context(zipfile.ZipFile(part, "w", zipfile.ZIP_STORED))
        self._archive.filelist = _Directory(self.video_id)  # type: ignore[assignment]  # used as a list of members
        return self

    def __exit__(self, *exception: Any) -> None:
        self._files.__exit__(*exception)

    def add(self, frame: int, jpeg: bytes) -> None:
        """Append the JPEG of a frame."""
        assert frame > self._last_frame, f"frame {frame} after {self._last_frame}"
        self._last_frame = frame
        self._archive.writestr(_member(self.video_id, frame), jpeg)
        self._archive.NameToInfo.clear()  # frames rise, so that no name occurs twice


class _Directory:
    """Members of an archive that is being written, in 28 bytes each; a `ZipInfo` takes half a KB."""

    def __init__(self, video_id: str) -> None:
        self._video_id = video_id
        self._frames, self._offsets, self._sizes, self._crcs = array("q"), array("q"), array("q"), array("I")

    def append(self, member: zipfile.ZipInfo) -> None:
        """Called by `ZipFile` when a member is written."""
        key = parse_crop_name(member.filename)
        assert key is not None
        self._frames.append(key[1])
        self._offsets.append(member.header_offset)
        self._sizes.append(member.file_size)
        self._crcs.append(member.CRC)

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        for frame, offset, size, crc in zip(self._frames, self._offsets, self._sizes, self._crcs, strict=True):
            member = _member(self._video_id, frame)
            member.header_offset, member.file_size, member.compress_size, member.CRC = offset, size, size, crc
            yield member


def _member(video_id: str, frame: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(crop_name(video_id, frame), _EPOCH)
    member.external_attr = 0o600 << 16
    return member


@dataclass(frozen=True)
class Crop:
    """Location of one crop: a file of its own (``offset`` is None), or a span of an archive."""

    video_id: str  # video it was cut from
    frame: int  # frame index in that video
    path: Path  # the JPEG, or the archive
    offset: int | None  # byte at which the local header of the ZIP member starts
    size: int  # bytes of the JPEG
    crc: int | None  # CRC-32 of the JPEG's bytes; None for a loose file
    is_mirrored: bool = False  # whether who decodes it is to mirror it: a left hand among right ones

    def damage(self, error: BaseException) -> DamagedFile:
        """What reading it raised; images that no extraction made, whose id is their own file name, are to be replaced.

        Such an id ends as a file does, in ``.jpg`` or the like.
        """
        if self.video_id.lower().endswith(IMAGE_SUFFIXES):
            place = self.path if self.offset is None else f"{self.path}/{self.video_id}"
            return DamagedFile.of(place, error, fix="replace or remove this image")
        return DamagedFile.of(self.path, error, frame=self.frame)


def list_crops(source: str | Path) -> list[Crop]:
    """Crops of an archive, of a folder of archives, or of a folder of loose JPEGs, by video and frame.

    Raises:
        FileNotFoundError: ``source`` is absent.
        DamagedFile: An archive cannot be read or holds a compressed member.
    """
    source = Path(source)
    if source.is_dir():
        crops = []
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.name.endswith(".zip") and not entry.name.startswith("."):
                    crops += _list_archive(Path(entry.path))
                elif (key := parse_crop_name(entry.name)) is not None:
                    crops.append(Crop(*key, Path(entry.path), None, entry.stat().st_size, None))
    else:
        crops = _list_archive(source)
    return sorted(crops, key=lambda crop: (crop.video_id, crop.frame))


def crops_digest(crops: list[Crop]) -> str:
    """Digest of names, sizes and checksums: the same crops give the same digest in any folder.

    The directory of an archive holds the CRC-32 of every member, so that no crop is read; loose files count by size.
    """
    state = hashlib.sha256()
    for crop in crops:
        state.update(f"{crop.video_id}\0{crop.frame}\0{crop.size}\0{crop.crc}\n".encode())
    return state.hexdigest()


class CropReader:
    """Reads the bytes of crops and keeps archives open. One per thread; after a fork, archives are opened again.

    At most ``max_open`` are open; None: as many as the process's limit on open files leaves to each of two readers.
    """

    def __init__(self, max_open: int | None = None) -> None:
        self.max_open = files_to_keep_open(2) if max_open is None else max_open
        self._handles: dict[Path, int] = {}
        self._pid = os.getpid()

    def read(self, crop: Crop) -> bytes:
        """JPEG bytes of ``crop``.

        Raises:
            OSError: The file is gone.
            DamagedFile: The archive changed since it was listed.
        """
        if crop.offset is None:
            return crop.path.read_bytes()
        handle = self._handle(crop.path)
        # One read takes header and body: the local header repeats the name, and our extra fields are empty. Where an
        # archive of another tool has one, a second read gets the rest.
        name_size = len(crop_name(crop.video_id, crop.frame).encode())
        data = os.pread(handle, LOCAL_HEADER.size + name_size + crop.size, crop.offset)
        if len(data) < LOCAL_HEADER.size:
            raise DamagedFile(crop.path, "the archive ends before it", frame=crop.frame)
        signature, name_size, extra_size = LOCAL_HEADER.unpack_from(data)
        if signature != LOCAL_SIGNATURE:
            found = f"no ZIP member at byte {crop.offset}, the archive changed while in use"
            raise DamagedFile(crop.path, found, frame=crop.frame)
        start = LOCAL_HEADER.size + name_size + extra_size
        body = data[start : start + crop.size]
        if len(body) < crop.size:
            body = os.pread(handle, crop.size, crop.offset + start)
        return body

    def close(self) -> None:
        """Close every archive."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def __getstate__(self) -> dict[str, object]:
        return {"max_open": self.max_open, "_handles": {}, "_pid": -1}  # a worker process opens its own

    def _handle(self, path: Path) -> int:
        if self._pid != os.getpid():
            self._handles, self._pid = {}, os.getpid()
        if path not in self._handles:
            if len(self._handles) >= self.max_open:
                os.close(self._handles.pop(next(iter(self._handles))))
            self._handles[path] = self._open(path)
        return self._handles[path]

    def _open(self, path: Path) -> int:
        """A handle of an archive; where the system has none left, all kept ones are closed, and fewer kept."""
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._handles:
                raise
        self.max_open = max(1, len(self._handles) // 2)
        self.close()
        return os.open(path, os.O_RDONLY)


def archive_members(path: Path) -> list[zipfile.ZipInfo]:
    """All members of a ZIP archive, crops or not.

    Raises:
        FileNotFoundError: It is absent.
        DamagedFile: It is no readable archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DamagedFile(path, f"is not a readable ZIP archive ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DamagedFile(path, "is not a readable ZIP archive (it refers to places outside of it)") from error
    num_bytes = path.stat().st_size
    for member in members:  # a reader takes the memory that is claimed
        if not 0 <= member.header_offset <= num_bytes - member.compress_size:
            raise DamagedFile(path, f"{shown(member.filename)} claims to be where the archive has ended")
    return members


def _list_archive(path: Path) -> list[Crop]:
    crops = []
    for member in archive_members(path):
        if (key := parse_crop_name(member.filename)) is None:
            continue  # the contract reports foreign members; a reader skips them
        if member.compress_type != zipfile.ZIP_STORED:
            raise DamagedFile(path, f"'{member.filename}' is compressed", expected="a stored member")
        crops.append(Crop(*key, path, member.header_offset, member.file_size, member.CRC))
    return crops


# -- A clip as one picture

NUM_FRAMES = 6
TILE_PX = 72
WIDTH_PX, HEIGHT_PX = NUM_FRAMES * TILE_PX, len(SIDE_BY_SIDE) * TILE_PX
_ABSENT = 230  # light grey


def clip_strip(layout: CorpusLayout, video_id: str, frames: Sequence[int], reader: CropReader) -> Pixels:
    """(`HEIGHT_PX`, `WIDTH_PX`, 3) uint8 BGR: `NUM_FRAMES` of a clip's frames, evenly spread; grey without a crop.

    There is at least one frame; the caller closes the reader.
    """
    import cv2

    shown = [frames[place] for place in evenly_spread(NUM_FRAMES, len(frames))]
    strip = np.full((HEIGHT_PX, WIDTH_PX, 3), _ABSENT, np.uint8)
    for row, stream in enumerate(SIDE_BY_SIDE):
        try:
            crops = {crop.frame: crop for crop in list_crops(layout.crops(stream, video_id))}
        except (OSError, ValueError):
            continue
        for column, frame in enumerate(shown):
            if frame not in crops:
                continue
            try:
                image = cv2.imdecode(np.frombuffer(reader.read(crops[frame]), np.uint8), cv2.IMREAD_COLOR)
            except (OSError, ValueError, cv2.error):
                continue
            if image is not None:
                top, left = row * TILE_PX, column * TILE_PX
                tile = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
                strip[top : top + TILE_PX, left : left + TILE_PX] = tile
    return strip


def most_different(features: Floats, groups: Sequence[tuple[str, ...]], count: int) -> list[int]:
    """Places of ``count`` rows of features (N, D) that differ most, or of all: farthest-first, from the middle one on.

    ``groups`` name what a row is of, such as (signer, video): each further row is of those that were chosen least
    often so far, by the first name, then the second, and of them the one farthest from all that are chosen.
    """
    distance = np.full(len(features), np.inf)  # of each row to the nearest chosen one
    chosen: list[int] = []
    counts: Counter[tuple[int, str]] = Counter()
    for _ in range(min(count, len(features))):
        left = [row for row in range(len(features)) if row not in chosen]
        rarest = min([counts[level] for level in enumerate(groups[row])] for row in left)
        left = [row for row in left if [counts[level] for level in enumerate(groups[row])] == rarest]
        row = max(left, key=lambda row: float(distance[row])) if chosen else left[len(left) // 2]
        chosen.append(row)
        counts.update(enumerate(groups[row]))
        distance = np.minimum(distance, np.linalg.norm(features - features[row], axis=1))
    return chosen


def evenly_spread(count: int, among: int, *, with_ends: bool = False) -> list[int]:
    """``count`` of ``among`` places, rising and evenly spread; they repeat where ``count`` exceeds ``among``.

    Each is in the middle of its part, as hands rest at the ends of a clip; ``with_ends`` includes first and last place.
    """
    if with_ends:
        step = (among - 1) / max(1, count - 1)
        return [round(part * step) for part in range(count)]
    return [(2 * part + 1) * among // (2 * count) for part in range(count)]
