"""Where each file of a corpus is, and each file of the runs below a work directory."""

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
    def import_record(self) -> Path:
        """What `signstreams import` took, from which corpus."""
        return self.root / "import.json"

    @property
    def processed(self) -> Path:
        return self.root / "processed"

    @property
    def report(self) -> Path:
        return self.root / "contract" / "report.json"

    @property
    def planned_training(self) -> Path:
        """What the training that is planned on the corpus asks of it; written by the workflow and the contract."""
        return self.root / "contract" / "training.json"

    @property
    def planned_extraction(self) -> Path:
        """The settings with which the workflow plans to extract the corpus."""
        return self.root / "contract" / "extraction.json"

    @property
    def report_page(self) -> Path:
        return self.root / "contract" / "report.html"

    @property
    def manifest(self) -> Path:
        return self.root / "contract" / "manifest.json"

    def check(self, video_id: str) -> Path:
        """Record of the contract's check of one video."""
        return self.root / "contract" / "videos" / f"{video_id}.json"

    @property
    def views(self) -> Path:
        """What the page of the contract lists and filters: a script, since browsers let no page of a disk read data."""
        return self.root / "contract" / "views.js"

    def view(self, video_id: str) -> Path:
        """What that page draws of one video; loaded when the video is opened."""
        return self.root / "contract" / "views" / f"{video_id}.js"

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


# -- Runs

STATE, PREVIOUS = "state", "previous"
"""Folders of a run: what it resumes from, which no rule declares; and the runs that it replaced."""
METRICS, CURVES, ARTIFACTS = "metrics.jsonl", "curves.png", "artifacts.json"  # written by both trainings

PRETRAINING_FILES = {
    "backbone": "backbone.pt",
    "safetensors": "backbone.safetensors",
    "card": "README.md",
    "last": "checkpoint_last.pt",
    "best": "checkpoint_best.pt",
    "history": METRICS,
    "params": "params.json",
    "artifacts": ARTIFACTS,
    "curves": CURVES,
    "attention": "attention.png",
    "patches": "patches_pca.png",
    "neighbours": "neighbours.png",
}
"""Output of the rule `pretrain` to file name."""
TRAINING_FILES = {
    "best": "best.pt",
    "last": "last.pt",
    "tokenizer": "tokenizer.json",
    "config": "config.json",
    "history": METRICS,
    "curves": CURVES,
    "artifacts": ARTIFACTS,
}
"""Output of the rule `train` to file name; `GLOSSES` is written where there are glosses."""
FIRST_STAGES = ("text", "s2g", "g2t", "vlp")
"""Stages of the training, and their folders, from which the whole one may start; each writes `TRAINING_FILES`."""
GLOSSES = "gloss_vocabulary.json"
EVALUATION_FILES = {"scores": "scores.json", "predictions": "predictions.csv", "page": "translations.html"}
"""Output of the rule `evaluate` to file name."""
EVALUATION_PARTS = "translations_parts"
"""Folder of the further parts and the pictures of a page of many clips, which no rule declares."""
BOUNDARY_FILES = {"model": "boundary.pt", "report": "boundaries.json"}
"""Output of the rule `boundaries` to file name."""
SEQUENCE_FILES = {
    "best": "best.pt",
    "last": "last.pt",
    "clusters": "clusters.npz",
    "config": "config.json",
    "history": METRICS,
    "curves": CURVES,
    "artifacts": ARTIFACTS,
}
"""Output of the rule `sequence` to file name."""
JUDGE_FILES = {"report": "judge.json", "table": "judge.csv", "judge": "judge.png"}
"""Output of the rule `judge` to file name."""


@dataclass(frozen=True)
class RunLayout:
    """Paths below the work directory of a workflow; nothing is checked or made."""

    work_dir: Path

    def pretraining(self, stream: str) -> Path:
        """Folder of the run that pretrains a stream."""
        return self.work_dir / f"dino_{stream}"

    def pretraining_file(self, stream: str, name: str) -> Path:
        """One of `PRETRAINING_FILES` of a stream."""
        return self.pretraining(stream) / PRETRAINING_FILES[name]

    def backbone(self, stream: str) -> Path:
        """The exported backbone of a stream."""
        return self.pretraining_file(stream, "backbone")

    def judge_file(self, stream: str, name: str) -> Path:
        """One of `JUDGE_FILES` of a stream, where labels are known."""
        return self.pretraining(stream) / JUDGE_FILES[name]

    @property
    def training(self) -> Path:
        """Folder of the translation model and its evaluation."""
        return self.work_dir / "multistream_v9"

    def training_file(self, name: str) -> Path:
        """One of `TRAINING_FILES`."""
        return self.training / TRAINING_FILES[name]

    def stage(self, stage: str) -> Path:
        """Folder of a stage that the translation model starts from, one of `FIRST_STAGES`."""
        return self.work_dir / stage

    def stage_file(self, stage: str, name: str) -> Path:
        """One of `TRAINING_FILES` of a stage."""
        return self.stage(stage) / TRAINING_FILES[name]

    def evaluation_file(self, name: str) -> Path:
        """One of `EVALUATION_FILES`."""
        return self.training / EVALUATION_FILES[name]

    @property
    def sequence(self) -> Path:
        """Folder of the run that pretrains the fusion encoder."""
        return self.work_dir / "sequence"

    def sequence_file(self, name: str) -> Path:
        """One of `SEQUENCE_FILES`."""
        return self.sequence / SEQUENCE_FILES[name]

    @property
    def boundaries(self) -> Path:
        """Folder of the model that finds sentences in continuous signing."""
        return self.work_dir / "boundaries"

    def boundary_file(self, name: str) -> Path:
        """One of `BOUNDARY_FILES`."""
        return self.boundaries / BOUNDARY_FILES[name]

    @property
    def features(self) -> Path:
        """Features of frozen backbones and points, with a manifest per source."""
        return self.work_dir / "features"

    @property
    def logs(self) -> Path:
        """Logs and benchmarks of the jobs."""
        return self.work_dir / "logs"

    @property
    def overview(self) -> Path:
        return self.work_dir / "overview.html"

    @property
    def pretraining_page(self) -> Path:
        """The overview as of the end of pretraining: all that a corpus without texts has."""
        return self.work_dir / "pretraining.html"

    @property
    def report(self) -> Path:
        return self.work_dir / "report.html"

    @property
    def release(self) -> Path:
        """Folder of the release bundle."""
        return self.work_dir / "release"
