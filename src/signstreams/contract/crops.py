"""Checks of crops: archives open and hold nothing else, names are right, every JPEG is whole and has the right size."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from signstreams.contract import rules
from signstreams.contract.check_records import EXTRACT_AGAIN, LOOSE_FIX
from signstreams.contract.inventory import Artifact
from signstreams.corpus.findings import Finding, Rule, few, few_ids
from signstreams.errors import raise_if_of_machine
from signstreams.formats.crops import LOCAL_HEADER, LOCAL_SIGNATURE, parse_crop_name

NUM_SAMPLED = 100  # crops of an archive that ``decode: sample`` decodes
MAX_SIDE_PX = 4096  # A JPEG whose header claims more is not decoded: OpenCV would allocate that much memory
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DIRECTORY_BYTES, _END_BYTES, _END64_BYTES = 46, 22, 76
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"

Item = TypeVar("Item")


@dataclass
class CropsCheck:
    """Check of the crops of one stream and video, whose findings share ``fix``."""

    artifact: Artifact
    fix: str
    frames: list[int] = field(default_factory=list)  # that have a crop, in the order of the archive
    sides_px: set[int] = field(default_factory=set)  # of the right crops among those decoded
    findings: list[Finding] = field(default_factory=list)
    is_readable: bool = True

    def report(self, rule: Rule, found: str) -> None:
        """Add a finding."""
        self.findings.append(rule.breach(self.artifact.place, found, self.fix))


def check_archive(
    artifact: Artifact, video_id: str, num_frames: int | None, crop_px: int | None, decode: str
) -> CropsCheck:
    """Check the archive of one stream and video.

    The video's frames and the side of its crops are None when unknown: then crops need only be square.
    """
    check = CropsCheck(artifact, EXTRACT_AGAIN)
    try:
        with zipfile.ZipFile(artifact.path) as archive, artifact.path.open("rb") as file:
            handle = file.fileno()
            num_bytes = os.fstat(handle).st_size
            if oddity := _oddity(archive, handle, num_bytes):
                check.report(rules.CROPS_LAYOUT, oddity)
            crops = _name_crops(check, archive.infolist(), video_id)
            check.frames = [frame for frame, _ in crops]
            _check_frames(check, num_frames)
            members = _sampled(crops, decode)
            reads = ((frame, partial(_read_member, handle, member, num_bytes)) for frame, member in members)
            _check_jpegs(check, reads, crop_px)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise_if_of_machine(error, artifact.path)
        check.is_readable = False
        check.report(rules.CROPS_READABLE, str(error) or type(error).__name__)
    return check


def check_loose(artifact: Artifact, num_frames: int | None, decode: str) -> CropsCheck:
    """Check the loose crops of one stream and video, whose frames are None when unknown."""
    check = CropsCheck(artifact, LOOSE_FIX)
    crops = sorted((key[1], path) for path in artifact.paths() if (key := parse_crop_name(path.name)) is not None)
    check.frames = [frame for frame, _ in crops]
    _check_frames(check, num_frames)
    _check_jpegs(check, ((frame, partial(_read_file, path)) for frame, path in _sampled(crops, decode)), None)
    return check


def _oddity(archive: zipfile.ZipFile, handle: int, num_bytes: int) -> str:
    """What the archive holds besides members and their directory; empty when it is as extraction writes it."""
    members = archive.infolist()
    names = [len(member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")) for member in members]
    extras = sum(len(member.extra) + len(member.comment) for member in members)
    end = archive.start_dir + _DIRECTORY_BYTES * len(members) + sum(names) + extras
    signature, rest = os.pread(handle, 4, end), num_bytes - end
    if (signature, rest) not in ((_END, _END_BYTES), (_END64, _END_BYTES + _END64_BYTES)):
        return "bytes after the archive's end, or inside its directory"
    if (members[0].header_offset if members else archive.start_dir) != 0:
        return "bytes before the first member"
    ends = [
        member.header_offset + LOCAL_HEADER.size + size + member.compress_size
        for member, size in zip(members, names, strict=True)
    ]
    starts = [*(member.header_offset for member in members[1:]), archive.start_dir]
    overlaps = [member.filename for member, stop, start in zip(members, ends, starts, strict=False) if stop > start]
    if overlaps:
        return f"{len(overlaps):,} members that reach into the next: {few_ids(overlaps)}"
    return ""


def _name_crops(
    check: CropsCheck, members: Sequence[zipfile.ZipInfo], video_id: str
) -> list[tuple[int, zipfile.ZipInfo]]:
    """Frames and members that are crops of the video; the others are reported."""
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        check.report(rules.CROPS_STORED, f"{len(compressed):,} compressed members: {few_ids(compressed)}")
    crops, foreign = [], []
    for member in members:
        key = parse_crop_name(member.filename)
        if key is None or key[0] != video_id or not member.filename.endswith(".jpg"):
            foreign.append(member.filename)
        elif member.compress_type == zipfile.ZIP_STORED:
            crops.append((key[1], member))
    if foreign:
        check.report(rules.CROPS_NAME, f"{len(foreign):,} other members: {few_ids(foreign)}")
    return crops


def _check_frames(check: CropsCheck, num_frames: int | None) -> None:
    if unordered := [later for frame, later in pairwise(check.frames) if later <= frame]:
        check.report(rules.CROPS_ORDER, f"{len(unordered):,} frames out of order or repeated: {few(unordered)}")
    if num_frames is not None and (beyond := [frame for frame in check.frames if frame >= num_frames]):
        check.report(rules.CROPS_INDEX, f"{len(beyond):,} frames of {num_frames:,} or more: {few(beyond)}")


def _sampled(crops: Sequence[Item], decode: str) -> Sequence[Item]:
    if decode == "none":
        return []
    if decode == "all" or len(crops) <= NUM_SAMPLED:
        return crops
    return [crops[place * len(crops) // NUM_SAMPLED] for place in range(NUM_SAMPLED)]


def _read_member(handle: int, member: zipfile.ZipInfo, num_bytes: int) -> bytes:
    """Bytes of a stored member; a `ValueError` says what is wrong with it."""
    if member.file_size > num_bytes:  # before memory is allocated for it
        raise ValueError(f"it claims {member.file_size:,} bytes of an archive of {num_bytes:,}")
    name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    start = LOCAL_HEADER.size + len(name)
    data = os.pread(handle, start + member.file_size, member.header_offset)
    if len(data) < start:
        raise ValueError("the archive ends before it")
    signature, name_size, extra_size = LOCAL_HEADER.unpack_from(data)
    if signature != LOCAL_SIGNATURE or name_size != len(name) or data[LOCAL_HEADER.size : start] != name:
        raise ValueError("the archive's directory names another member")
    body = data[start:]
    if extra_size:
        body = os.pread(handle, member.file_size, member.header_offset + start + extra_size)
    if len(body) < member.file_size or zlib.crc32(body) != member.CRC:
        raise ValueError("its checksum is not that of the archive's directory")
    return body


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise_if_of_machine(error, path)
        raise ValueError(f"it cannot be read: {error.strerror}") from None


def _check_jpegs(check: CropsCheck, reads: Iterable[tuple[int, Callable[[], bytes]]], crop_px: int | None) -> None:
    """Report damaged crops and those of another shape than a square of ``crop_px``; note the sides of the others."""
    damaged, odd = [], []
    for frame, read in reads:
        try:
            height_px, width_px = inspect_jpeg(read())
        except ValueError as error:
            damaged.append(f"frame {frame} ({error})")
            continue
        if height_px != width_px or (crop_px is not None and height_px != crop_px):
            odd.append(f"frame {frame} ({width_px} x {height_px})")
        else:
            check.sides_px.add(height_px)
    num_crops = len(check.frames)
    if damaged:
        check.report(rules.CROPS_DECODE, f"{len(damaged):,} of {num_crops:,} crops are damaged: {few(damaged)}")
    if odd:
        wanted = f"{crop_px} x {crop_px} px" if crop_px else "a square"
        check.report(rules.CROPS_SIZE, f"{len(odd):,} of {num_crops:,} crops are not {wanted}: {few(odd)}")


def inspect_jpeg(data: bytes) -> tuple[int, int]:
    """Height and width of a whole JPEG in px; a `ValueError` says how it is damaged."""
    if not data.startswith(JPEG_START):
        raise ValueError("it is not a JPEG")
    if not data.endswith(JPEG_END):  # OpenCV fills the rest with grey, without an error
        raise ValueError("it is cut off")
    size = _jpeg_size(data)
    if size is None or 0 in size:
        raise ValueError("it has no size")
    if max(size) > MAX_SIDE_PX:
        raise ValueError(f"it claims {size[1]} x {size[0]} px")
    try:  # an eighth of the size: all of the scan is read, little of it transformed
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None:
            return size
    except cv2.error as error:
        raise_if_of_machine(error, "")
    raise ValueError("it does not decode")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in px by the frame header; None without one."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        if data[place + 1] in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
