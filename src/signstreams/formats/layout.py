"""Where each file of a corpus lies, and which videos a folder holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signstreams.formats.video_sources import VIDEO_SUFFIXES, images_folder, source_id
from signstreams.ids import shown

SPLITS = ("train", "val", "test")
FOREIGN_SUFFIXES = (".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".wmv", ".3gp", ".flv", ".vob", ".mod", ".mxf")
"""Endings of video files that are not read as they are: of camcorders, DVDs and broadcast, often interlaced."""


@dataclass(frozen=True)
class CorpusLayout:
    """Paths below the root of one corpus; nothing is checked or made."""

    root: Path

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def meta(self) -> Path:
        return self.root / "meta.csv"

    @property
    def gloss(self) -> Path:
        return self.root / "annotations" / "gloss.csv"

    @property
    def processed(self) -> Path:
        return self.root / "processed"

    @property
    def report(self) -> Path:
        return self.root / "contract" / "report.json"

    @property
    def report_page(self) -> Path:
        return self.root / "contract" / "report.html"

    @property
    def manifest(self) -> Path:
        return self.root / "contract" / "manifest.json"

    def check(self, video_id: str) -> Path:
        """Record of the contract's check of one video."""
        return self.root / "contract" / "videos" / f"{video_id}.json"

    def index(self, split: str) -> Path:
        return self.root / "index" / f"{split}.csv"

    def crops(self, stream: str, video_id: str) -> Path:
        return self.processed / stream / f"{video_id}.zip"

    def pose(self, video_id: str) -> Path:
        return self.processed / "pose" / f"{video_id}.npz"

    def keypoints(self, video_id: str) -> Path:
        return self.processed / "keypoints" / f"{video_id}.npz"

    def tracks(self, video_id: str) -> Path:
        return self.processed / "tracks" / f"{video_id}.npz"

    def metadata(self, video_id: str) -> Path:
        return self.processed / "metadata" / f"{video_id}.json"

    def preview(self, video_id: str) -> Path:
        """Picture of what was found in a video, for people."""
        return self.processed / "preview" / f"{video_id}.jpg"

    def batch(self, batch: str) -> Path:
        """Manifest of a batch of videos that one job extracted, where a job takes several."""
        return self.processed / "batches" / f"{batch}.json"

    def batch_ids(self, batch: str) -> Path:
        """Ids of the videos of a batch, one a line."""
        return self.processed / "batches" / f"{batch}.txt"

    def ground_truth(self, video_id: str) -> Path:
        """Only the demo corpus has one."""
        return self.root / "ground_truth" / f"{video_id}.npz"


def find_videos(folder: Path) -> dict[str, Path]:
    """Video id to file or folder of frames, sorted by id; everything else is passed over.

    A file's id is its name without its ending, a folder's its name.

    Raises:
        ValueError: When several give one id, naming all of them.
        FileNotFoundError: When the folder is absent.
    """
    found = sources_by_id(folder)
    if twins := [twins_text(video_id, paths) for video_id, paths in found.items() if len(paths) > 1]:
        raise ValueError("; ".join(twins))
    return {video_id: paths[0] for video_id, paths in found.items()}


def sources_by_id(folder: Path) -> dict[str, list[Path]]:
    """As `find_videos`, with all files and folders that give an id: more than one is a fault of the folder.

    Raises:
        FileNotFoundError: When the folder is absent.
    """
    found: dict[str, list[Path]] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if not (path.suffix.lower() in VIDEO_SUFFIXES or (entry.is_dir() and images_folder(path) is not None)):
            continue
        found.setdefault(source_id(path), []).append(path)
    return dict(sorted(found.items()))


def twins_text(video_id: str, paths: Sequence[Path]) -> str:
    """Says that these give one id."""
    names = " and ".join(shown(path.name) for path in paths)
    return f"{names} {'both' if len(paths) == 2 else 'all'} give the video id {shown(video_id)}"


def passed_over_videos(folder: Path) -> list[Path]:
    """What looks like a video and is none of `find_videos`, sorted: files with a foreign ending, sub-folders of videos.

    A file does not count when its converted twin lies beside it (a.mts and a.mp4); a sub-folder counts when a video
    file lies anywhere below it.

    Raises:
        FileNotFoundError: When the folder is absent.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    known = {source_id(path) for path in paths if path.suffix.lower() in VIDEO_SUFFIXES}
    return [path for path in paths if path.suffix.lower() not in VIDEO_SUFFIXES and _is_passed_over(path, known)]


def _is_passed_over(path: Path, known: set[str]) -> bool:
    if path.is_dir():
        return images_folder(path) is None and _holds_video(path)
    return path.suffix.lower() in FOREIGN_SUFFIXES and path.stem not in known


def _holds_video(folder: Path) -> bool:
    """Whether a video file lies in it or below; links to folders are not followed, they may lead in a circle."""
    for _, folders, names in os.walk(folder):
        if any(name.lower().endswith(VIDEO_SUFFIXES + FOREIGN_SUFFIXES) and name[0] != "." for name in names):
            return True
        folders[:] = [name for name in folders if name[0] != "."]
    return False
