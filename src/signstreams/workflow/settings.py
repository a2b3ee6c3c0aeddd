"""What the Snakemake workflow runs: corpus, streams, resources, and the config file of each stage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from signstreams.config.section import Section
from signstreams.corpus.settings import refuse_no_train
from signstreams.engine.settings import CardConfig
from signstreams.integrate.presets import FirstStage
from signstreams.streams import BACKBONE_KEYS, HAND_STREAMS, STREAMS, StreamName

DEMO_ROOT = Path("data/demo")
DEMO_RECIPE, DEMO_CROP_PX = "config/pretrain/demo_{stream}.toml", 112  # its hands are about 70 px wide
OWN_RECIPES = {
    "pretrain": (
        "config/pretrain/{stream}.toml",
        DEMO_RECIPE,
        "config/pretrain/small.toml",
        "config/pretrain/from_dinov2.toml",
    ),
    "integrate": ("config/integrate/demo.yml", "config/integrate/corpus.yml"),
}
"""Config files that a stage reads by default; the checkout has them."""

PATH_VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>")  # what Snakemake (9.10 on) replaces in every path

# Keys of each stage's own config that the rules set by flags: under `set` they would have no effect, or a wrong one.
# tests/workflow/test_rules.py compares this with the rules.
SET_BY_RULES = {
    "extract": {"videos", "root", "only", "manifest", "num_jobs", "force", "max_failed_fraction"},
    "contract": {"root", "videos_dir", "num_jobs"},
    "pretrain": {"train_dir", "output_dir", "export_backbone", "distributed", "on_conflict", "monitor.pictures"}
    | {f"checkpointing.{name}" for name in ("last_name", "best_name", "history_file")},
    "integrate": {"stage", "root", "output_dir", "features_dir", "distributed", "on_conflict"}
    | {f"model.{key}" for key in BACKBONE_KEYS.values()},
    "evaluate": {"checkpoint", "root", "features_dir", "output_dir", "videos_dir"},
}


def _is_flat(settings: object) -> object:
    """One text per key: it goes to the script as ``--set KEY=TEXT``."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if isinstance(value, dict):
            inner = next(iter(value), "key")
            raise ValueError(f"{key} is a section, expected single keys; write {key}.{inner}: ...")
        if isinstance(value, list | tuple):
            raise ValueError(f"{key} is a list, expected one text; write {key}: '{','.join(map(str, value))}'")
    return settings


Settings = Annotated[dict[str, str | int | float | bool | None], BeforeValidator(_is_flat)]
Gpus = Annotated[int, Field(ge=0)] | Literal["auto"]


class CorpusSection(Section):
    """The footage."""

    root: Path = DEMO_ROOT
    """Folder of the corpus: meta.csv, annotations/, index/ are read there, processed/ and contract/ written there."""
    videos: Path | Annotated[list[Path], Field(min_length=1)] | None = None
    """Folder of your videos, or a list of folders, searched in order: the first that has an id counts. None: the demo
    corpus is rendered into ``root``."""
    allow_absent_videos: bool = False
    """Leave out clips whose video is absent, as in a partly downloaded corpus; otherwise they are errors."""
    demo_size: Literal["tiny", "demo", "bench"] = "demo"
    """Size of the rendered demo corpus."""
    demo_seed: int = Field(0, ge=0)
    """Seed of the rendered demo corpus."""
    split_seed: int = Field(0, ge=0)
    """Seed of the split that is drawn where index/*.csv are absent."""
    val_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the clips in the drawn validation split, which chooses the model."""
    test_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the clips in the drawn test split."""

    @property
    def video_folders(self) -> list[Path]:
        """The folders of ``videos``; none for the demo corpus."""
        if self.videos is None:
            return []
        return [self.videos] if isinstance(self.videos, Path) else self.videos

    @model_validator(mode="after")
    def _own_videos_have_their_own_root(self) -> CorpusSection:
        if self.videos is not None and self.root == DEMO_ROOT:
            raise ValueError(
                f"videos is set, but root is still '{DEMO_ROOT}'; name a root for your corpus: data/<name>"
            )
        return self

    @model_validator(mode="after")
    def _train_is_left(self) -> CorpusSection:
        refuse_no_train(self.val_fraction, self.test_fraction)
        return self


class ExtractSection(Section):
    """Crops, pose and keypoints from video: one job per video, or per batch of videos."""

    config: Path | None = None
    """Config file of scripts/extract_rois_v2.py. None: its defaults."""
    set: Settings = {}
    """Single keys of that config, such as ``fps: 25``; they take precedence over the file."""
    videos_per_job: int = Field(1, ge=1)
    """Videos per job: several for thousands of short ones, whose jobs would take a cluster longer to start than to run.
    Finished batches keep their videos when others are added."""
    threads: int = Field(1, ge=1)
    """Cores that Snakemake reserves per job; a job of several videos processes as many at once."""
    mem_mb: int = Field(1500, ge=1)
    """Memory that Snakemake reserves for a job."""


class ContractSection(Section):
    """The check of everything that extraction wrote."""

    set: Settings = {}
    """Keys of scripts/validate_data_contract.py, such as ``max_failed_fraction: 0.05``."""
    threads: int = Field(2, ge=1)
    """Processes that check videos in parallel."""
    mem_mb: int = Field(2000, ge=1)
    """Memory that Snakemake reserves."""


class PretrainSection(Section):
    """Self-supervised pretraining: one job per stream, or one for both hands."""

    config: str = OWN_RECIPES["pretrain"][0]
    """Config file of a stream; ``{stream}`` is replaced by its name. The demo corpus has demo_{stream}.toml."""
    hands: Literal["separate", "shared"] = "separate"
    """A backbone per hand, or one for both: ``{stream}`` is then ``hands``, left hands are mirrored, and dino_hand_l
    and dino_hand_r hold the files of dino_hands."""
    set: Settings = {}
    """Keys for every stream, such as ``epochs: 100``; they take precedence over the file."""
    gpus: Gpus = "auto"
    """GPUs per job, with one process each. ``auto``: all of this machine; 0: the CPU. A profile's ``gpu`` takes
    precedence."""
    threads: int = Field(2, ge=1)
    """Cores that Snakemake reserves for a job."""
    mem_mb: int = Field(8000, ge=1)
    """Memory that Snakemake reserves for a job."""


class EmbedSection(Section):
    """Features of frozen backbones: one job per stream."""

    gpus: Literal[0, 1, "auto"] = "auto"
    """1 to embed on a GPU, 0 on the CPU. ``auto``: 1 if this machine has one. A profile's ``gpu`` takes precedence."""
    threads: int = Field(2, ge=1)
    """Cores that Snakemake reserves for a job."""
    mem_mb: int = Field(6000, ge=1)
    """Memory that Snakemake reserves for a job."""


class IntegrateSection(Section):
    """Training of the translation model, multistream v9."""

    config: Path = Path(OWN_RECIPES["integrate"][0])
    """Config file of scripts/train_slt_multistream_v9.py."""
    set: Settings = {}
    """Single keys of that config; they take precedence over the file."""
    stages: list[FirstStage] = []
    """Stages that are trained first, and that the training starts from, in this order: s2g and g2t where the corpus has
    glosses. Each has what the config and ``set`` say and it reads. text comes first: g2t and vlp start from it."""
    stage_set: dict[FirstStage, Settings] = {}
    """Stage to single keys of its own, such as ``s2g: {train.epochs: 100}``; they win over the others."""
    gpus: Gpus = "auto"
    """GPUs, with one process each; 0: the CPU. ``auto``: 1 if there is one. A profile's ``gpu`` takes precedence."""
    threads: int = Field(2, ge=1)
    """Cores that Snakemake reserves."""
    mem_mb: int = Field(8000, ge=1)
    """Memory that Snakemake reserves."""

    @model_validator(mode="after")
    def _stages_are_named_once(self) -> IntegrateSection:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"stages names one twice: {', '.join(self.stages)}; name each once")
        if "text" in self.stages[1:]:
            raise ValueError("stages: text is not the first, and the others would replace what it learned; move it")
        for name in ("g2t", "vlp") if "text" in self.stages else ():
            if "train.init_checkpoint" in self.stage_set.get(name, {}):
                raise ValueError(
                    f"stage_set.{name}: train.init_checkpoint has no effect: it starts from stage text; leave it out"
                )
        if self.stages and "train.init_checkpoint" in self.set:
            raise ValueError("set: train.init_checkpoint has no effect: stages give the first weights; leave it out")
        return self


class EvaluateSection(Section):
    """Scores of the translation model; cores, memory and GPU as for its training."""

    set: Settings = {}
    """Keys of scripts/evaluate_slt.py, such as ``decoding.num_beams: 1``."""


class WorkflowConfig(Section):
    """Config of the signstreams workflow (config/config.yaml and any --configfile)."""

    corpus: CorpusSection = CorpusSection()
    work_dir: Path = Path("work_dirs")
    """Folder of the trained models."""
    streams: list[StreamName] = Field(list(STREAMS), min_length=1)
    """Streams whose backbones are pretrained and used in the translation, beside the keypoints."""
    extract: ExtractSection = ExtractSection()
    contract: ContractSection = ContractSection()
    pretrain: PretrainSection = PretrainSection()
    embed: EmbedSection = EmbedSection()
    integrate: IntegrateSection = IntegrateSection()
    evaluate: EvaluateSection = EvaluateSection()
    sequence: bool | Path = False
    """Pretrain the encoder of the translation model on all videos, without texts, before it is trained: true, or a
    config file of scripts/pretrain_sequence.py. Cores, memory and GPU as for the training."""
    release: CardConfig = CardConfig()

    @model_validator(mode="before")
    @classmethod
    def _demo_has_its_recipes(cls, tree: Any) -> Any:
        """Unless the config names others; the user's own corpus never gets them."""
        if not isinstance(tree, dict):
            return tree
        corpus, extract, pretrain = (tree.get(name) for name in ("corpus", "extract", "pretrain"))
        if isinstance(corpus, dict) and corpus.get("videos") is not None:
            return tree
        tree = dict(tree)
        if pretrain is None or isinstance(pretrain, dict):
            tree["pretrain"] = {"config": DEMO_RECIPE} | (pretrain or {})
        extract = {} if extract is None else extract
        if isinstance(extract, dict) and extract.get("config") is None and isinstance(extract.get("set", {}), dict):
            tree["extract"] = extract | {"set": {"crop_px": DEMO_CROP_PX} | extract.get("set", {})}
        return tree

    @model_validator(mode="after")
    def _no_path_is_a_pattern(self) -> WorkflowConfig:
        paths = [
            ("corpus.root", self.corpus.root),
            *(("corpus.videos", path) for path in self.corpus.video_folders),
            ("work_dir", self.work_dir),
            ("extract.config", self.extract.config),
            ("integrate.config", self.integrate.config),
            ("sequence", None if isinstance(self.sequence, bool) else self.sequence),
        ]
        for key, path in paths:
            if path is not None and {"{", "}"} & set(str(path)):
                raise ValueError(
                    f"{key} = '{path}' holds a brace, which Snakemake reads as a wildcard; rename the folder"
                )
            if path is not None and (variable := PATH_VARIABLE.search(str(path))) is not None:
                raise ValueError(
                    f"{key} = '{path}' holds {variable[0]}, which Snakemake reads as a variable of paths; rename it"
                )
        return self

    @model_validator(mode="after")
    def _rules_keep_what_they_set(self) -> WorkflowConfig:
        for stage, keys in SET_BY_RULES.items():
            if found := sorted(keys & set(getattr(self, stage).set)):
                raise ValueError(
                    f"{stage}.set: {found[0]} has no effect: the workflow sets it (see corpus, work_dir and threads in"
                    " docs/configuration.md); leave it out"
                )
        for name, given in self.integrate.stage_set.items():
            if found := sorted(SET_BY_RULES["integrate"] & set(given)):
                raise ValueError(
                    f"integrate.stage_set.{name}: {found[0]} has no effect: the workflow sets it; leave it out"
                )
        if self.sequence and self.integrate.stages:
            raise ValueError(
                "sequence and integrate.stages both give the first weights of the training; leave one of them out"
            )
        if self.sequence and (
            found := sorted({"train.sequence_checkpoint", "train.init_checkpoint"} & set(self.integrate.set))
        ):
            raise ValueError(
                f"integrate.set: {found[0]} has no effect: sequence is on, and gives the first weights; leave one of"
                " them out"
            )
        for stage in ("pretrain", "integrate"):
            sets = [getattr(self, stage).set, *(self.integrate.stage_set.values() if stage == "integrate" else ())]
            if any(keys.get("resume") == "never" for keys in sets):
                raise ValueError(
                    f"{stage}.set: resume = 'never' would begin from scratch each time a job is stopped; leave it out,"
                    " and remove state/ in the job's folder of work_dir to train again"
                )
        return self

    @model_validator(mode="after")
    def _shared_hands_are_two(self) -> WorkflowConfig:
        if self.pretrain.hands == "shared" and (absent := [name for name in HAND_STREAMS if name not in self.streams]):
            raise ValueError(
                f"pretrain.hands = 'shared': streams lacks {absent[0]}, expected both hands there; name both, or leave"
                " it out"
            )
        return self

    @model_validator(mode="after")
    def _streams_are_named_once(self) -> WorkflowConfig:
        if len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams names one twice: {', '.join(self.streams)}; name each once")
        return self

    def shown(self) -> dict[str, Any]:
        """Plain values, for the pages and the release; without what is newer than finished pages, where it says
        nothing: it would make them outdated.
        """
        tree = self.model_dump(mode="json")
        if self.pretrain.hands == "separate":
            del tree["pretrain"]["hands"]
        if self.sequence is False:
            del tree["sequence"]
        if self.release == CardConfig():
            del tree["release"]
        for name in ("stages", "stage_set"):
            if not tree["integrate"][name]:
                del tree["integrate"][name]
        return tree

    def card_settings(self) -> dict[str, str]:
        """What the release is told of licences, consent and data, as its command takes each key; only what is given."""
        given = self.release.model_dump(exclude_defaults=True)
        return {key: json.dumps(value) if isinstance(value, list) else value for key, value in given.items()}
