"""Settings of one multistream training. No torch here: ``--help`` and typos answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from signstreams.config.base import Flag, Section, refuse_without_effect
from signstreams.config.decoder import DecoderConfig, with_preset
from signstreams.config.experiment import ExperimentConfig
from signstreams.config.integrate_data import AugmentationConfig, DataConfig
from signstreams.config.integrate_model import BACKBONE_KEYS, ModelConfig, MskaConfig
from signstreams.config.integrate_train import OptimConfig, TrainConfig
from signstreams.config.tracking import TrackingConfig


class IntegrateConfig(Section):
    """Train multistream v9: backbones, pose and keypoints into text; the best model is chosen by val."""

    root: Path = Path("data/single_signer")
    """Corpus: meta.csv, annotations/gloss.csv, index/ and processed/ below it."""
    output_dir: Path = Path("work_dirs/multistream_v9")
    """Folder of the run."""
    features_dir: Annotated[Path | None, Flag("--features")] = None
    """Folder of what is made once a video: features of frozen backbones, points. None: output_dir/features."""
    seed: int = 0
    """Of every random draw."""
    resume: Literal["auto", "never", "must"] = "auto"
    """auto: go on where an equal run stopped; never: start anew; must: only go on."""
    on_conflict: Literal["refuse", "archive"] = "refuse"
    """When the output folder holds another experiment: stop, or move that to previous/ and start."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    distributed: Annotated[bool, Flag("--distributed")] = False
    """Several processes, started by torchrun."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    mska: MskaConfig = MskaConfig()
    decoder: DecoderConfig = DecoderConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    experiment: ExperimentConfig = ExperimentConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _above_the_preset(cls, tree: Any) -> Any:
        return with_preset(tree)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decoder.model is None and self.model.d_model % self.decoder.num_heads:
            raise ValueError(
                f"model.d_model ({self.model.d_model}) is no multiple of decoder.num_heads ({self.decoder.num_heads});"
                " change one of them"
            )
        if not self.model.use_mska:
            needing = ("ctc_weight", "distillation_weight", "distillation_warmup_ratio", "gloss_fusion")
            refuse_without_effect(self.mska, needing, "model.use_mska is false", prefix="mska.")
            if not self.mska.translation_weight:
                raise ValueError(
                    "mska.translation_weight is 0 and model.use_mska is false: no loss is left; set one of them"
                )
            if "optim" in self.model_fields_set and self.optim.lr_mska is not None:
                raise ValueError("optim.lr_mska has no effect: model.use_mska is false; leave one of them out")
        is_all_frozen = all(map(self.model.is_frozen, self.model.backbones))
        if self.optim.checkpoint_activations and is_all_frozen and not self.model.use_mska:
            raise ValueError(
                "optim.checkpoint_activations has no effect: every backbone is frozen and model.use_mska is false;"
                " leave it out"
            )
        if self.optim.lr_backbone is not None and is_all_frozen:
            raise ValueError("optim.lr_backbone has no effect: every backbone is frozen; set model.freeze_..._backbone")
        return self

    @property
    def features(self) -> Path:
        """Folder of features and points."""
        return self.features_dir or self.output_dir / "features"

    def identity(self, backbone_digests: dict[str, str], *, init_digest: str | None = None) -> dict[str, Any]:
        """The settings that alter the result, as plain values; a file counts by its content, not by its path."""
        tree = self.model_dump(
            mode="json",
            exclude={
                "root": True,
                "output_dir": True,
                "features_dir": True,
                "resume": True,
                "on_conflict": True,
                "device": True,
                "distributed": True,
                "experiment": True,
                "tracking": True,
                "model": {*BACKBONE_KEYS.values(), "download"},
                "optim": {"checkpoint_activations"},
                "train": {"checkpoint_steps", "log_every_steps", "init_checkpoint"},
            },
        )
        tree["model"]["backbones"] = dict(backbone_digests)
        tree["train"]["init"] = init_digest
        return tree
