"""Where each file of a corpus is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
