"""Checks of crops: archives open and hold nothing else, names are right, every JPEG is whole and has the right size."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from signstreams.contract import rules
from signstreams.contract.check_records import EXTRACT_AGAIN, LOOSE_FIX
from signstreams.contract.inventory import Artifact
from signstreams.corpus.findings import Finding, Rule, few, few_ids
from signstreams.formats.crops import LOCAL_HEADER, LOCAL_SIGNATURE, parse_crop_name

NUM_SAMPLED = 100  # crops of an archive that ``decode: sample`` decodes
MAX_SIDE_PX = 4096  # A JPEG whose header claims more is not decoded: OpenCV would allocate that much memory
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DIRECTORY_BYTES, _END_BYTES, _END64_BYTES = 46, 22, 76
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"

Item = TypeVar("Item")
Report = Callable[[Rule, str], None]


@dataclass
class ArchiveCheck:
    """Frames that have a crop, in the order of the archive, and findings."""

    frames: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_readable: bool = True


def check_archive(
    artifact: Artifact, video_id: str, *, num_frames: int | None, crop_px: int | None, decode: str
) -> ArchiveCheck:
    """Check the archive of one stream and video.

    Args:
        artifact: The archive.
        video_id: Video that its crops were cut from.
        num_frames: Frames of the video; None when unknown.
        crop_px: Declared side of the crops; None when unknown, then they need only be square.
        decode: Crops to decode: ``all``, ``sample`` or ``none``.
    """
    check = ArchiveCheck()

    def report(rule: Rule, found: str) -> None:
        check.findings.append(rule.breach(artifact.place, found, EXTRACT_AGAIN))

    try:
        with zipfile.ZipFile(artifact.path) as archive, artifact.path.open("rb") as file:
            members = archive.infolist()
            num_bytes = os.fstat(file.fileno()).st_size
            if oddity := _oddity(archive, file.fileno(), num_bytes):
                report(rules.CROPS_LAYOUT, oddity)
            crops = _name_crops(members, video_id, report)
            check.frames = [frame for frame, _ in crops]
            _check_frames(check.frames, num_frames, report)
            chosen = _sampled(crops, decode)
            reads = ((frame, *_read_member(file.fileno(), member, num_bytes)) for frame, member in chosen)
            _check_jpegs(reads, len(crops), crop_px, report)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        check.is_readable = False
        report(rules.CROPS_READABLE, str(error) or type(error).__name__)
    return check


def check_loose(artifact: Artifact, *, num_frames: int | None, decode: str) -> tuple[ArchiveCheck, set[int]]:
    """Check the loose crops of one stream and video.

    Args:
        artifact: The crops.
        num_frames: Frames of the video; None when unknown.
        decode: Crops to decode: ``all``, ``sample`` or ``none``.

    Returns:
        The check, and the sides in px of the square crops among those decoded.
    """
    check = ArchiveCheck()

    def report(rule: Rule, found: str) -> None:
        check.findings.append(rule.breach(artifact.place, found, LOOSE_FIX))

    crops = []
    for path in artifact.paths():
        key = parse_crop_name(path.name)
        assert key is not None
        crops.append((key[1], path))
    crops.sort()
    check.frames = [frame for frame, _ in crops]
    _check_frames(check.frames, num_frames, report)
    reads = ((frame, *_read_file(path)) for frame, path in _sampled(crops, decode))
    return check, _check_jpegs(reads, len(crops), None, report)


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


def _name_crops(members: Sequence[zipfile.ZipInfo], video_id: str, report: Report) -> list[tuple[int, zipfile.ZipInfo]]:
    """Frames and members that are crops of the video; the others are reported."""
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        report(rules.CROPS_STORED, f"{len(compressed):,} compressed members: {few_ids(compressed)}")
    crops, foreign = [], []
    for member in members:
        key = parse_crop_name(member.filename)
        if key is None or key[0] != video_id or not member.filename.endswith(".jpg"):
            foreign.append(member.filename)
        elif member.compress_type == zipfile.ZIP_STORED:
            crops.append((key[1], member))
    if foreign:
        report(rules.CROPS_NAME, f"{len(foreign):,} other members: {few_ids(foreign)}")
    return crops


def _check_frames(frames: Sequence[int], num_frames: int | None, report: Report) -> None:
    unordered = [later for frame, later in pairwise(frames) if later <= frame]
    if unordered:
        report(rules.CROPS_ORDER, f"{len(unordered):,} frames out of order or again: {few(unordered)}")
    if num_frames is not None and (beyond := [frame for frame in frames if frame >= num_frames]):
        report(rules.CROPS_INDEX, f"{len(beyond):,} frames of {num_frames:,} or more: {few(beyond)}")


def _sampled(crops: Sequence[Item], decode: str) -> Sequence[Item]:
    if decode == "none":
        return []
    if decode == "all" or len(crops) <= NUM_SAMPLED:
        return crops
    return [crops[place * len(crops) // NUM_SAMPLED] for place in range(NUM_SAMPLED)]


def _read_member(handle: int, member: zipfile.ZipInfo, num_bytes: int) -> tuple[str, bytes]:
    """What is wrong with a stored member (empty when nothing is), and its bytes."""
    if member.file_size > num_bytes:  # before memory is allocated for it
        return f"it claims {member.file_size:,} bytes of an archive of {num_bytes:,}", b""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    start = LOCAL_HEADER.size + len(name)
    data = os.pread(handle, start + member.file_size, member.header_offset)
    if len(data) < start:
        return "the archive ends before it", b""
    signature, name_size, extra_size = LOCAL_HEADER.unpack_from(data)
    if signature != LOCAL_SIGNATURE or name_size != len(name) or data[LOCAL_HEADER.size : start] != name:
        return "the archive's directory names another member", b""
    body = data[start:]
    if extra_size:
        body = os.pread(handle, member.file_size, member.header_offset + start + extra_size)
    if len(body) < member.file_size or zlib.crc32(body) != member.CRC:
        return "its checksum is not that of the archive's directory", b""
    return "", body


def _read_file(path: Path) -> tuple[str, bytes]:
    """Why a file cannot be read (empty when it can), and its bytes."""
    try:
        return "", path.read_bytes()
    except OSError as error:
        return f"it cannot be read: {error.strerror}", b""


def _check_jpegs(
    reads: Iterator[tuple[int, str, bytes]], num_crops: int, crop_px: int | None, report: Report
) -> set[int]:
    """Report damaged crops and those of another shape than a square of ``crop_px``; returns the sides of the others."""
    damaged, odd, sides = [], [], set()
    for frame, reason, data in reads:
        reason, size = (reason, (0, 0)) if reason else inspect_jpeg(data)
        if reason:
            damaged.append(f"frame {frame} ({reason})")
        elif size[0] != size[1] or (crop_px is not None and size[0] != crop_px):
            odd.append(f"frame {frame} ({size[1]} x {size[0]})")
        else:
            sides.add(size[0])
    if damaged:
        report(rules.CROPS_DECODE, f"{len(damaged):,} of {num_crops:,} crops are damaged: {few(damaged)}")
    if odd:
        wanted = f"{crop_px} x {crop_px} px" if crop_px else "a square"
        report(rules.CROPS_SIZE, f"{len(odd):,} of {num_crops:,} crops are not {wanted}: {few(odd)}")
    return sides


def inspect_jpeg(data: bytes) -> tuple[str, tuple[int, int]]:
    """Why a JPEG is damaged (empty when it is not), and its height and width in px."""
    if not data.startswith(JPEG_START):
        return "it is no JPEG", (0, 0)
    if not data.endswith(JPEG_END):  # OpenCV fills the rest with grey, without an error
        return "it is cut off", (0, 0)
    size = _jpeg_size(data)
    if size is None or 0 in size:
        return "it has no size", (0, 0)
    if max(size) > MAX_SIDE_PX:
        return f"it claims {size[1]} x {size[0]} px", (0, 0)
    try:  # an eighth of the size: all of the scan is read, little of it transformed
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    except cv2.error:
        image = None
    return ("it does not decode", (0, 0)) if image is None else ("", size)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in px by the frame header; None without one."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        if data[place + 1] in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
