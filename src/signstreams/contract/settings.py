"""Config of the data contract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from signstreams.config.section import Flag, NotNegative, Prob, Section
from signstreams.corpus.clips import BEYOND_VIDEO_S
from signstreams.corpus.settings import Folders
from signstreams.streams import StreamName


class CoverageConfig(Section):
    """Least share of a video's frames in which something is found; a video below it gets a warning."""

    min_pose_ratio: Prob = 0.9
    """Frames with body points."""
    min_face_ratio: Prob = 0.9
    """Frames with a face crop."""
    min_hand_ratio: Prob = 0.3
    """Frames with a crop of the hand; hands rest, leave the frame and hide each other."""


class PlannedTrainingSection(Section):
    """The training of the translation model that is planned on the corpus: what it would refuse is an error here,
    before any pretraining. Without config and set, the one that the workflow planned (contract/training.json)."""

    config: Path | None = None
    """Config file of scripts/train_slt_multistream_v9.py."""
    set: list[str] = []
    """Single keys of that config, such as data.max_frames=300; they win over the file."""
    breaches: Literal["refuse", "warn"] = "refuse"
    """warn: what the training would refuse is only a warning, to train the backbones first."""


class ContractConfig(Section):
    """Check everything that extraction wrote, meta.csv, glosses and splits; write contract/report.json, report.html and
    manifest.json below the root.

    Exit code 2 when there is an error, 0 when there are warnings at most. After an error the report is also in
    contract/failed_report.json and .html, where Snakemake does not remove it.
    """

    root: Path
    """Root of the corpus."""
    videos_dir: Folders | None = None
    """Folder of the videos, or several, searched in order; each video must have been extracted. None: ROOT/videos."""
    num_jobs: Annotated[int, Field(ge=1, le=256), Flag("--jobs")] = 1
    """Videos checked at once, each in a process of its own."""
    decode: Literal["all", "sample", "none"] = "all"
    """Crops that are decoded: all, 100 evenly spread ones of each archive, or none."""
    max_failed_fraction: Prob = 0.1
    """Share of the videos that may be quarantined."""
    max_damaged_fraction: Prob = 0.1
    """Share of all frames that may be damaged in their video; they have no crops and no points."""
    max_untimed_fraction: Prob = 0.05
    """Share of the rows of meta.csv that may have no usable times (their clips are left out)."""
    max_unknown_gloss_fraction: Prob = 0.1
    """Share of the glosses of val and test that train may lack."""
    recheck: bool = False
    """Read and check every file again, also where contract/videos/ has a record of it."""
    allow_absent_videos: bool = False
    """Leave out clips whose video is absent, as in a partly downloaded corpus; otherwise they are errors."""
    required_streams: list[StreamName] = ["face"]
    """Streams for which a corpus without any crop is an error; for the others it is a warning."""
    clip_tolerance_s: NotNegative = BEYOND_VIDEO_S
    """How far a clip may reach past the end of its video."""
    fps_tolerance: Prob = 0.01
    """Relative difference allowed between the declared fps and the video's own."""
    coverage: CoverageConfig = CoverageConfig()
    training: PlannedTrainingSection = PlannedTrainingSection()
