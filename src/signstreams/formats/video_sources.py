"""What counts as a video, a file or a folder of frames: its id, size, digest and change stamp."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from signstreams.files import sha256_file

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def images_folder(folder: Path) -> Path | None:
    """The folder that holds the images of a video; None when ``folder`` is no video.

    That is ``folder`` when images and no videos lie in it, or its only sub-folder when that has a number for its name
    (PHOENIX-2014T: ``<video>/1/*.png``) and holds images. A folder that may not be listed is no video.
    """
    try:
        if _holds_images(folder):
            return folder
        numbered = [entry.name for entry in os.scandir(folder) if entry.name.isdecimal() and entry.is_dir()]
        if len(numbered) == 1 and _holds_images(folder / numbered[0]):
            return folder / numbered[0]
    except PermissionError:
        pass
    return None


def is_source(path: Path) -> bool:
    """Whether it is a file, or a folder that is a video."""
    return images_folder(path) is not None if path.is_dir() else path.is_file()


def image_files(folder: Path) -> list[Path]:
    """Images of the video ``folder`` in natural order (2 before 10); none when it is no video."""
    place = images_folder(folder)
    if place is None:
        return []
    return [place / name for name in sorted(filter(_is_image, os.listdir(place)), key=natural_key)]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts runs of digits by their value; of equal ones the longer text goes last."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]


def source_id(path: Path) -> str:
    """Id of the video at ``path``: the name of a file without its ending, the whole name of a folder."""
    path = Path(os.path.abspath(path))
    return path.name if path.is_dir() else path.stem


def source_bytes(path: Path) -> int:
    """Size of a video: of the file, or of all images of a folder.

    Raises:
        OSError: When it is absent or cannot be read.
    """
    return sum(file.stat().st_size for file in image_files(path)) if path.is_dir() else path.stat().st_size


def source_sha256(path: Path) -> str:
    """Hex digest of a video: of the file's bytes, or of names and digests of all images of a folder.

    Raises:
        OSError: When it is absent or cannot be read.
    """
    if not path.is_dir():
        return sha256_file(path)
    total = hashlib.sha256()
    for file in image_files(path):
        total.update(f"{sha256_file(file)}  {file.name}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def source_stamp(path: Path) -> str | None:
    """What changes when an image of a folder does: their number, bytes and newest modification; None for a file.

    The folder's own modification time tells nothing of an image that was overwritten, and changes for foreign files.
    """
    place = images_folder(path) if path.is_dir() else None
    if place is None:
        return None
    stats = [entry.stat() for entry in os.scandir(place) if _is_image(entry.name)]
    return f"{len(stats)} images, {sum(s.st_size for s in stats)} bytes, {max(s.st_mtime_ns for s in stats)}"


def change_stamp(path: Path) -> str:
    """What changes when a video does: `source_stamp` of a folder, size and time of change of a file.

    Raises:
        OSError: When it is gone.
    """
    if (stamp := source_stamp(path)) is not None:
        return stamp
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}"


def _holds_images(folder: Path) -> bool:
    names = [name.lower() for name in os.listdir(folder)]
    return any(map(_is_image, names)) and not any(n.endswith(VIDEO_SUFFIXES) and n[0] != "." for n in names)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
