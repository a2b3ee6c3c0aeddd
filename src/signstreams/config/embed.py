"""Settings of embedding: what a training reads is made once a video. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.kinds import Count


class EmbedConfig(Section):
    """Run a frozen backbone over all crops of a stream, or gather the points of all videos."""

    root: Path
    """Corpus."""
    features_dir: Annotated[Path, Flag("--features")]
    """Folder of features: <stream>/<digest of the backbone>/<video>.npy and <stream>.json go there."""
    stream: Literal["face", "hand_l", "hand_r", "points"]
    """Crops of a stream; or points: times, pose and the nodes of MSKA, which need no backbone."""
    backbone: Annotated[str | None, Flag("--backbone")] = None
    """file::PATH, file::PATH:ARCHITECTURE or timm::NAME."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` fetch weights that are not in the local cache."""
    backbone_layers: Literal["last", "weighted"] = "last"
    """As model.backbone_layers of the training: weighted keeps the class token of every block."""
    crop_px: Count | None = None
    """As data.crop_px of the training. None: the side the backbone was trained on."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    prune: bool = False
    """Remove features of this stream that other backbones made."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream == "points":
            for name in ("backbone", "download", "crop_px", "prune"):
                if name in self.model_fields_set and getattr(self, name):
                    raise ValueError(f"{name} has no effect: points need no backbone; leave it out")
        elif self.backbone is None:
            example = f"file::work_dirs/dino_{self.stream}/backbone.pt"
            raise ValueError(f"stream {self.stream} needs a backbone; name it, such as {example}")
        elif self.download and not self.backbone.startswith("timm::"):
            raise ValueError("download has no effect: the backbone is no timm:: model; leave it out")
        return self
