"""Settings of the evaluation of a trained translation model. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from signstreams.config.base import Flag, Section
from signstreams.config.decoder import DecodingConfig
from signstreams.config.kinds import Count

Split = Literal["train", "val", "test"]


class TrainedModelSection(Section):
    """Which model, and where its backbones lie now."""

    checkpoint: Path = Path("work_dirs/multistream_v9/best.pt")
    """Trained model; its tokenizer and gloss vocabulary lie beside it."""
    face_backbone: Annotated[str | None, Flag("--face-backbone")] = None
    """Where the face backbone lies now, as file::PATH; None: where it lay in training. Its content must be the same."""
    hand_left_backbone: Annotated[str | None, Flag("--hand-left-backbone")] = None
    """As face_backbone."""
    hand_right_backbone: Annotated[str | None, Flag("--hand-right-backbone")] = None
    """As face_backbone."""
    download: Annotated[bool, Flag("--model-download")] = False
    """Let `timm::` backbones of the model fetch weights that are not in the local cache."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    decoding: DecodingConfig = DecodingConfig()


class EvaluateSltConfig(TrainedModelSection):
    """Score a trained model: predictions.csv and scores.json."""

    root: Path | None = None
    """Corpus. None: the one it was trained on."""
    features_dir: Annotated[Path | None, Flag("--features")] = None
    """Folder of features, made there when absent. None: as in training."""
    output_dir: Path | None = None
    """Folder of predictions.csv and scores.json. None: that of the checkpoint."""
    splits: list[Split] = Field(["val", "test"], min_length=1)
    """Splits to score; the last one stands at the top of scores.json."""
    batch_size: Annotated[Count | None, Flag("--batch-size")] = None
    """Clips at once. None: as in training."""
    blank_video: bool = True
    """Score the last split once more with every stream hidden: what the text model alone would get."""

    @model_validator(mode="after")
    def _splits_are_named_once(self) -> Self:
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"splits names one twice: {' '.join(self.splits)}; name each once")
        return self
