"""What counts as a video, a file or a folder of frames: id, size, digest, stamp; and which videos a folder holds."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signstreams.files import sha256_file
from signstreams.ids import by_composition, check_id, composed, shown

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FOREIGN_SUFFIXES = (".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp", ".flv", ".vob", ".mod", ".mxf")
"""Endings of video files that have to be converted first: camcorders, DVDs and broadcast, often interlaced."""


@dataclass(frozen=True)
class VideoSource:
    """A video. "File or folder of frames?" is asked once, by `VideoSource.at`; methods that read raise `OSError`."""

    path: Path  # the file or folder
    is_folder: bool = False  # whether it is a folder
    images_dir: Path | None = None
    """Where the images of a folder of frames are; None for a file, and for a folder that is no video."""

    @classmethod
    def at(cls, path: Path) -> VideoSource:
        """Inspect ``path``, which need not exist."""
        is_folder = path.is_dir()
        return cls(path, is_folder, _images_dir(path) if is_folder else None)

    @property
    def video_id(self) -> str:
        """Name of a file without its ending; whole name of a folder."""
        path = Path(os.path.abspath(self.path))
        return path.name if self.is_folder else path.stem

    @property
    def is_video(self) -> bool:
        """Whether it is an existing file, or a folder that holds the frames of a video."""
        return self.images_dir is not None if self.is_folder else self.path.is_file()

    def image_files(self) -> list[Path]:
        """Images of a folder of frames in natural order (2 before 10); else none."""
        if self.images_dir is None:
            return []
        names = [entry.name for entry in os.scandir(self.images_dir) if _is_image_file(entry)]
        return [self.images_dir / name for name in sorted(names, key=natural_key)]

    def num_bytes(self) -> int:
        """Size of the file, or of all images."""
        return sum(f.stat().st_size for f in self.image_files()) if self.is_folder else self.path.stat().st_size

    def sha256(self) -> str:
        """Hex digest of the file's bytes, or of names and digests of all images."""
        if not self.is_folder:
            return sha256_file(self.path)
        total = hashlib.sha256()
        for file in self.image_files():
            total.update(f"{sha256_file(file)}  {file.name}\n".encode(errors="surrogateescape"))
        return total.hexdigest()

    def frames_stamp(self) -> str | None:
        """Number, bytes and newest modification of a folder's images; None for a file.

        The folder's own modification time misses an image that was overwritten, and changes with foreign files.
        """
        if self.images_dir is None:
            return None
        stats = [entry.stat() for entry in os.scandir(self.images_dir) if _is_image_file(entry)]
        newest = max((s.st_mtime_ns for s in stats), default=0)
        return f"{len(stats)} images, {sum(s.st_size for s in stats)} bytes, {newest}"

    def stamp(self) -> str:
        """Changes when the video does: `frames_stamp` of a folder, size and modification time of a file."""
        if (stamp := self.frames_stamp()) is not None:
            return stamp
        found = self.path.stat()
        return f"{found.st_size}:{found.st_mtime_ns}"


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts runs of digits by their value; of equal values the longer text comes last."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)]


def _images_dir(folder: Path) -> Path | None:
    """Folder that holds the images of the video ``folder``; None when it is no video.

    That is ``folder`` when it holds images and no videos, or its only sub-folder with a number for a name
    (PHOENIX-2014T: ``<video>/1/*.png``) when that does. A folder that may not be listed is no video.
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


def _holds_images(folder: Path) -> bool:
    names = [name.lower() for name in os.listdir(folder)]
    return any(map(_is_image, names)) and not any(n.endswith(VIDEO_SUFFIXES) and n[0] != "." for n in names)


def _is_image_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is an image as a file: to read from a pipe or a device might never end. A dead link is an image that
    is missed when it is read."""
    return _is_image(entry.name) and (entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def special_file(path: Path) -> str:
    """States that something is neither file nor folder, or leads to such a thing, as a pipe or a device: reading it
    might never end. Empty for all else, also if it is absent."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    kind = next((name for is_kind, name in kinds if is_kind(mode)), "no file")
    return f"{shown(path.name)} is {f'a link to {kind}' if path.is_symlink() else kind}"


# -- Folders of videos


@dataclass(frozen=True)
class SourceFolder:
    """What `list_sources` found in a folder, hidden entries aside."""

    path: Path  # the folder
    sources: dict[str, list[VideoSource]]
    """Sources by video id, sorted; several of one id are a fault of the folder. Entries with the ending of a video
    are among them even when they are a folder or a dangling link (see `VideoSource.is_video`)."""
    others: list[tuple[Path, bool]]  # all other entries, sorted by name, with whether each is a folder

    def problems(self) -> list[str]:
        """One line per doubled or unsafe id, pipe or device."""
        lines = []
        for video_id, sources in self.sources.items():
            if text := doubled_id(video_id, [source.path.name for source in sources]):
                lines.append(f"{self.path}: {text}; rename one of them")
            if text := unsafe_id(video_id):
                lines.append(f"{self.path}: {text}; rename {shown(sources[0].path.name)}")
            specials = [text for source in sources if not source.is_folder and (text := special_file(source.path))]
            lines += [f"{self.path}: {text}, expected a file; put the video there, or remove it" for text in specials]
        return lines

    def passed_over(self) -> list[Path]:
        """Entries that look like videos but are none: files with a foreign ending, sub-folders that hold videos.

        A file does not count when it was converted (a.mts beside a.mp4). Sub-folders are walked to any depth.
        """
        converted = {source.video_id for found in self.sources.values() for source in found if _has_ending(source.path)}

        def is_foreign(path: Path) -> bool:
            return path.suffix.lower() in FOREIGN_SUFFIXES and path.stem not in converted

        return [p for p, is_folder in self.others if (_has_video_below(p) if is_folder else is_foreign(p))]


def list_sources(folder: Path) -> SourceFolder:
    """List the videos of a folder: files by their ending, and sub-folders of frames.

    Raises:
        FileNotFoundError: The folder is absent.
        NotADirectoryError: It is a file.
    """
    sources: dict[str, list[VideoSource]] = {}
    names: dict[str, str] = {}  # composed form to the id: two that differ in it alone are one, and a fault
    others: list[tuple[Path, bool]] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path, is_folder = Path(entry.path), entry.is_dir()
        source = VideoSource(path, is_folder, _images_dir(path) if is_folder else None)
        if source.images_dir is not None or _has_ending(path):
            video_id = names.setdefault(composed(source.video_id), source.video_id)
            sources.setdefault(video_id, []).append(source)
        else:
            others.append((path, is_folder))
    return SourceFolder(folder, dict(sorted(sources.items())), others)


def search(folders: Sequence[SourceFolder]) -> tuple[dict[str, list[VideoSource]], dict[str, list[Path]]]:
    """Sources by video id over several folders, searched in their order: an id belongs to the first that has it.

    Also returns, by id, the sources of later folders, which count for nothing.
    """
    found: dict[str, list[VideoSource]] = {}
    passed: dict[str, list[Path]] = {}
    for folder in folders:
        known = by_composition(found)
        for video_id, sources in folder.sources.items():
            if (first := known.get(composed(video_id))) is not None:
                passed.setdefault(first, []).extend(source.path for source in sources)
            else:
                found[video_id] = sources
    return dict(sorted(found.items())), passed


def doubled_id(video_id: str, names: Sequence[str]) -> str:
    """States that several names give one id; empty for a single name."""
    if len(names) < 2:
        return ""
    both = "both" if len(names) == 2 else "all"
    look_alike = len(set(map(composed, names))) < len(names)
    how = ", with accents in one character or in two" if look_alike else ""
    return f"{' and '.join(map(shown, names))} {both} give the video id {shown(video_id)}{how}"


def unsafe_id(video_id: str) -> str:
    """States why an id cannot name files; empty when it can."""
    try:
        check_id(video_id)
    except ValueError as error:
        return f"the video id {shown(video_id)} {error}"
    return ""


def _has_ending(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _has_video_below(folder: Path) -> bool:
    """Whether any video file is in the folder or below; links to folders are not followed, they may form a circle."""
    for _, folders, names in os.walk(folder):
        if any(name.lower().endswith(VIDEO_SUFFIXES + FOREIGN_SUFFIXES) and name[0] != "." for name in names):
            return True
        folders[:] = [name for name in folders if name[0] != "."]
    return False
