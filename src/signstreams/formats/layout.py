"""Where each file of a corpus lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif")


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

    def ground_truth(self, video_id: str) -> Path:
        """Only the demo corpus has one."""
        return self.root / "ground_truth" / f"{video_id}.npz"


def find_videos(folder: Path) -> dict[str, Path]:
    """Video id (file name without its ending) to file, sorted by id; other files are passed over.

    Raises:
        ValueError: When two files give one id, naming both.
        FileNotFoundError: When the folder is absent.
    """
    videos: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in videos:
            raise ValueError(f"'{videos[path.stem].name}' and '{path.name}' both give the video id '{path.stem}'")
        videos[path.stem] = path
    return dict(sorted(videos.items()))
