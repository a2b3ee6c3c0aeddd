"""Where each file of a corpus lies, and which videos a folder holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from signstreams.formats.frame_folders import VIDEO_SUFFIXES, images_folder, source_id

SPLITS = ("train", "val", "test")


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
        ValueError: When two give one id, naming both.
        FileNotFoundError: When the folder is absent.
    """
    videos: dict[str, Path] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if not (path.suffix.lower() in VIDEO_SUFFIXES or (entry.is_dir() and images_folder(path) is not None)):
            continue
        video_id = source_id(path)
        if video_id in videos:
            raise ValueError(f"'{videos[video_id].name}' and '{path.name}' both give the video id '{video_id}'")
        videos[video_id] = path
    return dict(sorted(videos.items()))
