"""Check of one crop archive: it opens, its names are right, every JPEG is whole and of the declared size."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from signstreams.contract import rules
from signstreams.corpus.findings import Finding, few
from signstreams.formats.crops import Crop, CropReader, parse_crop_name
from signstreams.ids import shown

NUM_SAMPLED = 100
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


@dataclass
class ArchiveCheck:
    """Frames that have a crop, and what is wrong."""

    frames: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_readable: bool = True


def check_archive(
    path: Path, video_id: str, *, num_frames: int | None, crop_px: int | None, decode: str, name: str, fix: str
) -> ArchiveCheck:
    """Check the archive of one stream and video.

    Args:
        path: The archive.
        video_id: Whose crops it holds.
        num_frames: Frames of the video; None when unknown.
        crop_px: Declared side of the crops; None when unknown, then they need only be square.
        decode: ``all``, ``sample`` or ``none``.
        name: What findings call the file.
        fix: What findings advise.
    """
    check = ArchiveCheck()

    def report(rule: rules.Rule, found: str) -> None:
        check.findings.append(rule.breach(name, found, fix))

    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        check.is_readable = False
        report(rules.CROPS_READABLE, str(error) or type(error).__name__)
        return check
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        report(rules.CROPS_STORED, f"{len(compressed):,} compressed members: {few(list(map(shown, compressed)))}")
    crops, foreign = [], []
    for member in members:
        key = parse_crop_name(member.filename)
        if key is None or key[0] != video_id or not member.filename.endswith(".jpg"):
            foreign.append(member.filename)
        elif member.compress_type == zipfile.ZIP_STORED:
            crops.append(Crop(*key, path, member.header_offset, member.file_size, member.CRC))
    if foreign:
        report(rules.CROPS_NAME, f"{len(foreign):,} other members: {few(list(map(shown, foreign)))}")
    check.frames = [crop.frame for crop in crops]
    unordered = [later for frame, later in pairwise(check.frames) if later <= frame]
    if unordered:
        report(rules.CROPS_ORDER, f"{len(unordered):,} frames out of order or again: {few(unordered)}")
    if num_frames is not None and (beyond := [frame for frame in check.frames if frame >= num_frames]):
        report(rules.CROPS_INDEX, f"{len(beyond):,} frames of {num_frames:,} or more: {few(beyond)}")
    damaged, odd = _decode(_chosen(crops, decode), crop_px)
    if damaged:
        report(rules.CROPS_DECODE, f"{len(damaged):,} of {len(crops):,} crops are damaged: {few(damaged)}")
    if odd:
        wanted = f"{crop_px} x {crop_px} px" if crop_px else "a square"
        report(rules.CROPS_SIZE, f"{len(odd):,} of {len(crops):,} crops are not {wanted}: {few(odd)}")
    return check


def _chosen(crops: Sequence[Crop], decode: str) -> Sequence[Crop]:
    if decode == "none":
        return []
    if decode == "all" or len(crops) <= NUM_SAMPLED:
        return crops
    return [crops[place * len(crops) // NUM_SAMPLED] for place in range(NUM_SAMPLED)]


def _decode(crops: Sequence[Crop], crop_px: int | None) -> tuple[list[str], list[str]]:
    """Frames whose JPEG is damaged, and frames of another size, each with the reason."""
    damaged, odd = [], []
    reader = CropReader()
    try:
        for crop in crops:
            reason, size = _look(reader, crop)
            if reason:
                damaged.append(f"frame {crop.frame} ({reason})")
            elif size[0] != size[1] or (crop_px is not None and size[0] != crop_px):
                odd.append(f"frame {crop.frame} ({size[1]} x {size[0]})")
    finally:
        reader.close()
    return damaged, odd


def _look(reader: CropReader, crop: Crop) -> tuple[str, tuple[int, int]]:
    """Why the JPEG is damaged (empty when it is not), and its height and width."""
    try:
        data = reader.read(crop)
    except ValueError as error:
        return str(error), (0, 0)
    if len(data) < crop.size or zlib.crc32(data) != crop.crc:
        return "its checksum is not that of the archive's directory", (0, 0)
    if not data.startswith(JPEG_START):
        return "it is no JPEG", (0, 0)
    if not data.endswith(JPEG_END):  # OpenCV fills what is missing with grey and says nothing
        return "it is cut off", (0, 0)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)  # reads all of the scan at half the time
    if image is None:
        return "it does not decode", (0, 0)
    return "", (image.shape[0], image.shape[1])
