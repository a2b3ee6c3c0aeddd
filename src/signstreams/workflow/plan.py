"""Plan of a workflow run: videos, settings of every stage, batches; checked before the first job.

The rules state files, commands and resources; what they have to know of config and corpus is worked out here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from signstreams.config.load import build, check, flatten, put, read_file
from signstreams.config.section import Section
from signstreams.contract.extraction_checks import check_planned, settings_of, write_planned
from signstreams.contract.settings import ContractConfig
from signstreams.contract.training_checks import TrainingRecord, read_record, refused_by_stages, refused_since
from signstreams.corpus.findings import lines
from signstreams.corpus.meta_csv import why_no_texts
from signstreams.engine.gpu_lease import allowed_gpus
from signstreams.errors import UserError, print_problems
from signstreams.extract.annotations import VideoAnnotations, read_annotations
from signstreams.extract.settings import ExtractConfig, missing_points, points_path
from signstreams.files import write_text
from signstreams.formats.layout import FIRST_STAGES, SPLITS, CorpusLayout, RunLayout
from signstreams.formats.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoSource, list_sources, search
from signstreams.ids import shown
from signstreams.integrate.model_files import absent_files
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.stage_settings import of_stage, other_parts, sees_crops
from signstreams.integrate.text_files import unreadable_files
from signstreams.pretrain.settings import PretrainConfig
from signstreams.sequence.settings import SequenceConfig, settings_of_training
from signstreams.streams import BACKBONE_KEYS, HAND_STREAMS, HANDS
from signstreams.workflow.settings import OWN_RECIPES, PATH_VARIABLE, SET_BY_RULES, WorkflowConfig

ConfigT = TypeVar("ConfigT", bound=Section)
Given = ParamSpec("Given")
ResultT = TypeVar("ResultT")

CLOCKS_DIFFER_S = 10.0  # A file changed so much later than now comes from a machine whose clock is ahead
_PERIODIC = re.compile(r"(.{1,10})\1{19}$")  # as Snakemake's `PeriodicityDetector`; an id has at most 200 bytes
Batches = dict[str, list[str]]  # name of a batch to the ids of its videos


@dataclass(frozen=True)
class Plan:
    """A checked config, and what follows from it and the corpus."""

    config: WorkflowConfig
    videos: dict[str, VideoSource]
    """Video id to file or folder of frames; of the user's own footage, those that will be extracted."""
    extract: ExtractConfig  # as extraction will read it
    integrate: IntegrateConfig
    """As the training of the translation model will read it; it says which backbones stay frozen."""
    stages: dict[str, IntegrateConfig]
    """Stage to the config of its training, of those that the training starts from."""
    annotations: dict[str, VideoAnnotations]
    """What extraction takes from meta.csv, per video. Empty for the demo corpus, whose size and seed fix it."""
    batches: Batches | None  # None: a job per video

    @property
    def is_demo(self) -> bool:
        return self.config.corpus.videos is None

    @property
    def corpus(self) -> CorpusLayout:
        return CorpusLayout(self.config.corpus.root)

    @property
    def runs(self) -> RunLayout:
        return RunLayout(self.config.work_dir)

    def why_no_translation(self) -> str | None:
        """Why there is nothing to translate, in one line; reads meta.csv, which may also hold boxes or spans alone."""
        why = why_no_texts_of(self.config)
        return None if why is None else f"translation is left out: {why}"

    def of_all_videos(self, pattern: str | Path) -> list[str]:
        """One artifact per video; where a job takes several, the manifests that cover it."""
        if self.batches is not None:
            return [str(self.corpus.batch(batch)) for batch in self.batches]
        return [str(pattern).replace("{video}", video_id) for video_id in self.videos]

    @property
    def pretrained(self) -> list[str]:
        """What a job of pretraining is of: a stream, or both hands."""
        return pretrained_names(self.config)

    def pretraining_crops(self, name: str, artifacts: Mapping[str, str | Path]) -> list[str]:
        """The crops of a pretraining, by the patterns of the streams' artifacts."""
        return list(dict.fromkeys(path for part in parts_of(name) for path in self.of_all_videos(artifacts[part])))

    def pretraining_folders(self, name: str) -> Path | list[Path]:
        """Folder of the crops of a stream; those of both hands."""
        folders = [self.corpus.processed / part for part in parts_of(name)]
        return folders if name == HANDS else folders[0]

    def pretraining_settings(self, name: str) -> str:
        """Settings of the config for the command line; that it is of both hands follows from no folder."""
        return setting_words(self.config.pretrain.set | ({"stream": HANDS} if name == HANDS else {}))

    def text_files(self, stage: str) -> list[Path]:
        """The plain text files that a stage reads."""
        if stage != "text":
            return []
        return list((self.stages.get(stage) or stage_training(self.config, stage)).train.text_files)

    def page_to_open(self, since_s: float) -> list[str]:
        """A line that names the page written since that time which shows most; none where none was."""
        pages = (self.runs.overview, self.runs.pretraining_page, self.corpus.report_page)
        made = [page for page in pages if page.is_file() and page.stat().st_mtime >= since_s]
        return [f"open {page} in a browser" for page in made[:1]]

    def frames_stamp(self, video_id: str) -> str:
        """Changes when an image of a folder of frames does; empty for a file, whose time of change is enough."""
        return self.videos[video_id].frames_stamp() or ""

    def points(self, video_id: str) -> Path | list[Path]:
        """The file of points that another tool found; an empty list for a detector of our own."""
        folder = self.extract.precomputed.folder
        if self.extract.detector != "precomputed" or folder is None:
            return []
        return points_path(folder, video_id) or []

    def annotation_settings(self, video_id: str) -> str:
        """Spans and box of a video: when they change it is extracted again, and not for other changes of meta.csv."""
        found = self.annotations.get(video_id)
        return "" if found is None else json.dumps(found.settings())


def make_plan(
    tree: Mapping[str, Any],
    *,
    is_start: bool = True,
    is_module: bool = False,
    checkout: Path | None = None,
    storage_provider: str | None = None,
    set_resources: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """Check the workflow's config against itself, the corpus and what every stage would refuse hours later.

    A job reads the plan again: unless this process starts the workflow (``is_start``), what it is given to do was
    checked, and its batches were written, by the one that did. ``is_module``: another workflow imports our rules.
    ``checkout``: the folder of these rules, whose own recipes count where the workflow runs elsewhere.

    Raises:
        UserError: With every problem of the first check that fails.
    """
    if storage_provider:
        raise UserError(
            f"--default-storage-provider {storage_provider}: is not supported, since states and features are kept"
            " beside declared files; work in a folder that all machines share, and see 'Where the files are' in"
            " docs/cluster.md"
        )
    config = check(WorkflowConfig, dict(tree), "workflow config")
    if checkout is not None:
        config = _with_own_recipes(config, checkout)
    per_job = config.extract.videos_per_job
    if per_job > 1 and is_module:
        raise UserError(
            f"extract.videos_per_job = {per_job}: batches are planned when a workflow starts, which Snakemake lets no"
            " module do, expected 1 where another workflow imports these rules; run `snakemake extract_all` in the"
            " checkout first, or leave it out"
        )
    extract, integrate, stages = stage_configs(config, is_start=is_start)  # first: videos may not be there yet
    corpus = CorpusLayout(config.corpus.root)
    if config.corpus.videos is None:
        videos = demo_videos(config, is_start)
    else:
        videos = source_videos(config.corpus.video_folders, is_job_per_video=per_job == 1)
    annotations = {}
    if config.corpus.videos is not None:
        annotations = read_annotations(corpus, videos, extract)
        videos = {video_id: source for video_id, source in videos.items() if video_id in annotations}
        if is_start:
            refuse_the_future(
                [*(source.path for source in videos.values()), corpus.meta, corpus.gloss, *map(corpus.index, SPLITS)]
            )
    problems = missing_points(extract, videos)
    if is_start:
        refuse_the_future(_results_that_jobs_read(corpus, RunLayout(config.work_dir), videos, config.streams))
        warn_of_gpus_without_effect(config, set_resources or {})
        problems += refused_trainings(config, integrate, stages)
    if problems:
        raise UserError(problems)
    batches = None
    if per_job > 1:
        batches = plan_batches(corpus, videos, per_job) if is_start else read_batches(corpus, videos)
    return Plan(config, videos, extract, integrate, stages, annotations, batches)


def why_no_texts_of(config: WorkflowConfig) -> str | None:
    """Why the corpus has nothing to translate, in one line; None where it has texts, as the demo corpus does."""
    return None if config.corpus.videos is None else why_no_texts(CorpusLayout(config.corpus.root).meta)


def _with_own_recipes(config: WorkflowConfig, checkout: Path) -> WorkflowConfig:
    """Where the folder of the run lacks a recipe that a config names by default, that of the checkout."""
    updates = {}
    for stage, names in OWN_RECIPES.items():
        section = getattr(config, stage)
        name = str(section.config)
        own = str(checkout / name)
        files = [name.replace("{stream}", stream) for stream in pretrained_names(config)]
        if name in names and not any(Path(file).exists() for file in files) and not {"{", "}"} & set(str(checkout)):
            kind = type(section.config)
            updates[stage] = section.model_copy(update={"config": kind(own)})
    return config.model_copy(update=updates)


# -- Videos


def demo_videos(config: WorkflowConfig, is_start: bool) -> dict[str, VideoSource]:
    """Videos that are rendered; a folder that holds somebody's own is refused."""
    from signstreams.demo.plan import plan, refuse_foreign

    corpus = CorpusLayout(config.corpus.root)
    if is_start:
        refuse_foreign(corpus)
    videos = plan(config.corpus.demo_size, config.corpus.demo_seed).videos
    return {video.video_id: VideoSource(corpus.videos / f"{video.video_id}.mp4") for video in videos}


def source_videos(folders: Sequence[Path], *, is_job_per_video: bool = True) -> dict[str, VideoSource]:
    """Video id to file or folder of frames of the user's own footage, in the first of the folders that has it.

    With a job per video the id is a wildcard, which must not look periodic to Snakemake.

    Raises:
        UserError: With every problem of the folders.
    """
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(
            f"corpus.videos: there is no folder '{folder}'; name the folder that holds your videos" for folder in absent
        )
    listed = [list_sources(folder) for folder in folders]
    if empty := [found.path for found in listed if not found.sources]:
        raise UserError(
            f"{folder}: holds no video (expected files ending in {' '.join(VIDEO_SUFFIXES)}, or folders of images"
            f" ending in {' '.join(IMAGE_SUFFIXES)}); put your videos there"
            for folder in empty
        )
    problems = [problem for found in listed for problem in found.problems()]
    videos = {video_id: sources[0] for video_id, sources in search(listed)[0].items()}
    for video_id, source in videos.items():
        folder = source.path.parent
        why = ""
        if "{" in video_id or "}" in video_id:
            why = "holds a brace, which Snakemake reads as a wildcard"
        elif (variable := PATH_VARIABLE.search(source.path.name)) is not None:
            why = f"holds {variable[0]}, which Snakemake reads as a variable of paths"
        elif is_job_per_video and (repeated := _PERIODIC.search(video_id)) is not None:
            why = f"repeats {shown(repeated[1])} 20 times, which Snakemake takes for a rule that runs in circles"
        if why:
            problems.append(f"{folder}: the video id {shown(video_id)} {why}; rename {shown(source.path.name)}")
    if problems:
        raise UserError(problems)
    return videos


def refuse_the_future(paths: Iterable[Path]) -> None:
    """Snakemake fails a job, when it is done, whose output is older than its input."""
    latest_s = time.time() + CLOCKS_DIFFER_S
    ahead = []
    for path in paths:
        with contextlib.suppress(OSError):  # absent ones are no problem here
            if path.stat().st_mtime > latest_s:
                ahead.append(path)
    if ahead:
        raise UserError(
            f"{ahead[0]}: was changed in the future, as by a clock that is ahead ({len(ahead)} files), expected a time"
            " before now; `touch` it, and the others"
        )


def _results_that_jobs_read(
    corpus: CorpusLayout, runs: RunLayout, video_ids: Iterable[str], streams: Iterable[str]
) -> list[Path]:
    """Of earlier runs, the last file of each video and the files of each stage: the clock may have gone back since."""
    trained = [runs.backbone(stream) for stream in streams] + [runs.sequence_file("best"), runs.training_file("best")]
    trained += [runs.stage_file(stage, "best") for stage in FIRST_STAGES]
    features = [runs.features / f"{source}.json" for source in (*streams, "points")]
    return [*map(corpus.metadata, video_ids), corpus.manifest, *trained, *features]


# -- Settings of the stages


def pretrained_names(config: WorkflowConfig) -> list[str]:
    """What is pretrained: the streams; or both hands in place of each."""
    if config.pretrain.hands == "separate":
        return list(config.streams)
    return [*(stream for stream in config.streams if stream not in HAND_STREAMS), HANDS]


def parts_of(name: str) -> tuple[str, ...]:
    """The streams whose crops a pretraining reads."""
    return HAND_STREAMS if name == HANDS else (name,)


def setting_words(settings: Mapping[str, Any]) -> str:
    """``--set key=value`` for each key, quoted for the shell."""
    return " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in setting_pairs(settings))


def setting_pairs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key and text of each value, as ``--set`` takes them."""
    spelled = {True: "true", False: "false", None: "none"}
    return [(key, spelled[value] if isinstance(value, bool | None) else str(value)) for key, value in settings.items()]


def _stage_config(
    config: WorkflowConfig, model: type[ConfigT], stage: str, file: str | Path | None, places: list[tuple[str, str]]
) -> ConfigT:
    """The config that a job will read, from its file, what the rule passes by flag, and the keys below ``set``."""
    files = [] if file is None else [Path(file)]
    return build(model, files, places + setting_pairs(getattr(config, stage).set), place=f"{stage}.set")


def first_weights(config: WorkflowConfig) -> dict[str, str]:
    """What the training starts from, as settings of it: a sequence pretraining, or its stages."""
    runs = RunLayout(config.work_dir)
    if config.sequence:
        return {"train.sequence_checkpoint": str(runs.sequence_file("best"))}
    starts = [str(runs.stage_file(stage, "best")) for stage in config.integrate.stages]
    return {"train.init_checkpoint": json.dumps(starts, ensure_ascii=False)} if starts else {}


def _backbone_places(config: WorkflowConfig) -> list[tuple[str, str]]:
    runs = RunLayout(config.work_dir)
    return [(f"model.{BACKBONE_KEYS[stream]}", f"file::{runs.backbone(stream)}") for stream in config.streams]


def _integrate_config(config: WorkflowConfig) -> IntegrateConfig:
    places = [*_backbone_places(config), *first_weights(config).items()]
    return _stage_config(config, IntegrateConfig, "integrate", config.integrate.config, places)


def stage_settings(config: WorkflowConfig, stage: str) -> dict[str, Any]:
    """Key to value of what the job of a stage is given: of the whole training's settings, those that the stage reads,
    and its own on top. The job reads no config file itself: a setting of another stage does not make it stale.

    Raises:
        UserError: The file cannot be read.
    """
    file, tree = config.integrate.config, {}
    try:
        tree = read_file(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}; expected a readable TOML, YAML or JSON file") from None
    for key, value in config.integrate.set.items():
        put(tree, key, value)
    tree = {name: value for name, value in of_stage(tree, stage).items() if name not in SET_BY_RULES["integrate"]}
    for key, value in config.integrate.stage_set.get(stage, {}).items():
        put(tree, key, value)
    if starts := stage_starts(config, stage):
        put(tree, "train.init_checkpoint", [str(start) for start in starts])
    found = {key: value for key, value in flatten(tree, {}) if not isinstance(value, dict)}
    return {key: json.dumps(value) if isinstance(value, list) else value for key, value in found.items()}


def stage_starts(config: WorkflowConfig, stage: str) -> list[Path]:
    """The checkpoints that a stage starts from: those which learn texts from that of stage text, where it is one."""
    learns_texts = stage in ("g2t", "vlp") and "text" in config.integrate.stages
    return [RunLayout(config.work_dir).stage_file("text", "best")] if learns_texts else []


def stage_training(config: WorkflowConfig, stage: str) -> IntegrateConfig:
    """The config of a stage's training, as its job will read it.

    Raises:
        UserError: With everything that it would refuse of its settings.
    """
    given = setting_pairs({"stage": stage, **stage_settings(config, stage)})
    places = _backbone_places(config) if sees_crops(stage) else []
    return build(IntegrateConfig, [], places + given, place=f"integrate.stages: {stage}")


def stage_configs(
    config: WorkflowConfig, *, is_start: bool
) -> tuple[ExtractConfig, IntegrateConfig, dict[str, IntegrateConfig]]:
    """What extraction, the training and its first stages will read; at the start all settings of the jobs are checked.

    Raises:
        UserError: With everything that a job would refuse of its settings, hours later.
    """
    problems: list[str] = []
    root = CorpusLayout(config.corpus.root)
    places = [("videos", str(root.videos)), ("root", str(root.root))]
    extract = _noted(problems, _stage_config, config, ExtractConfig, "extract", config.extract.config, places)
    integrate = _noted(problems, _integrate_config, config)
    trainings = {stage: _noted(problems, stage_training, config, stage) for stage in config.integrate.stages}
    stages = {stage: training for stage, training in trainings.items() if training is not None}
    if is_start:
        problems += _refused_settings(config)
    if is_start and integrate is not None:
        for stage, training in stages.items():
            place = f"integrate.stages: {stage}"
            problems += [f"{place}: {problem}" for problem in unreadable_files(training.train.text_files)]
            problems += [
                f"{place}: {key} is {ours}, expected {theirs}, as the training that starts from it has; set both alike"
                for key, ours, theirs in other_parts(training, integrate)
            ]
        if config.sequence:
            _noted(problems, check_sequence, config.sequence, integrate)
    if problems or extract is None or integrate is None:
        raise UserError(dict.fromkeys(problems))
    return extract, integrate, stages


def _noted(
    problems: list[str], call: Callable[Given, ResultT], *given: Given.args, **named: Given.kwargs
) -> ResultT | None:
    """What a function returns; None after a `UserError`, whose problems are added."""
    try:
        return call(*given, **named)
    except UserError as error:
        problems += error.problems
        return None


def _refused_settings(config: WorkflowConfig) -> list[str]:
    """What pretraining, contract and evaluation would refuse of their settings."""
    corpus = CorpusLayout(config.corpus.root)
    problems: list[str] = []
    for name in pretrained_names(config):
        folders = json.dumps([str(corpus.processed / part) for part in parts_of(name)])
        places = [("train_dir", folders), ("output_dir", str(config.work_dir))]
        places += [("stream", HANDS)] if name == HANDS else []
        file = config.pretrain.config.replace("{stream}", name)
        found = _noted(problems, _stage_config, config, PretrainConfig, "pretrain", file, places)
        if found is not None:
            _noted(problems, found.named_stream, (name,))
    _noted(problems, _stage_config, config, ContractConfig, "contract", None, [("root", str(corpus.root))])
    _noted(problems, _stage_config, config, EvaluateSltConfig, "evaluate", None, [])
    return problems


def refused_trainings(
    config: WorkflowConfig, integrate: IntegrateConfig, stages: Mapping[str, IntegrateConfig]
) -> list[str]:
    """What the trainings would refuse after days of pretraining, as far as it is known before the contract runs: tables
    without what a stage learns, a language model that is not here, and clips and texts where the settings were changed
    since the contract ran."""
    if why_no_texts_of(config) is not None:
        return []
    corpus = CorpusLayout(config.corpus.root)
    problems = [] if config.corpus.videos is None else refused_by_stages(corpus, stages.values())
    absent = absent_files(integrate.decoder)
    is_refused = config.contract.set.get("training.breaches") != "warn"
    record = TrainingRecord.of(integrate, stages.values())
    breaches = refused_since(corpus, record) if is_refused and not absent and not problems else []
    return [*problems, *absent, *lines(breaches)]


def write_planned_training(plan: Plan) -> None:
    """Tell the contract which training is planned; without texts there is none."""
    with contextlib.suppress(PermissionError):  # then the contract, where it has to run, cannot write either
        if why_no_texts_of(plan.config) is not None:
            plan.corpus.planned_training.unlink(missing_ok=True)
            return
        before = read_record(plan.corpus)
        num_frames = None if before is None else before.num_frames
        record = TrainingRecord.of(plan.integrate, plan.stages.values())
        replace(record, num_frames=num_frames).write(plan.corpus)


def write_planned_extraction(plan: Plan) -> None:
    """Tell the contract with which settings the videos are to be extracted."""
    with contextlib.suppress(PermissionError):
        write_planned(plan.corpus, plan.extract)


def refuse_other_extraction(plan: Plan, made: Collection[str]) -> None:
    """Stop before anything is trained on videos that were extracted with other settings, as those of a copied corpus.

    The contract says so itself where it runs: among the files that are ``made`` is its manifest, or what it reads.

    Raises:
        UserError: With the videos and their settings.
    """
    corpus = plan.corpus
    is_trained = any(Path(file).is_relative_to(plan.config.work_dir) for file in made)
    if not is_trained or not {str(corpus.manifest), *plan.of_all_videos(corpus.metadata("{video}"))}.isdisjoint(made):
        return
    folders = plan.config.corpus.video_folders or [corpus.videos]
    if problems := lines(check_planned(corpus, settings_of(plan.extract), plan.videos, folders)):
        raise UserError(problems)


def check_sequence(file: bool | Path, integrate: IntegrateConfig) -> None:
    """The config of sequence pretraining, whose encoder must be that of the training.

    Raises:
        UserError: A key is wrong, or the file asks for another encoder.
    """
    wanted = settings_of_training(integrate)
    files = [] if isinstance(file, bool) else [file]
    found = settings_of_training(
        build(SequenceConfig, files, setting_pairs(wanted), place="of the training").as_training()
    )
    if other := [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]:
        raise UserError(
            f"{file}: {other[0]} is {found.get(other[0], 'the default')}, expected what the training has"
            f" ({wanted.get(other[0], 'the default')}); leave it out, it is taken from there"
        )


# -- GPUs and cores


def wanted_gpus(gpus: int | Literal["auto"], most: int | None = None) -> int:
    """The number behind a config's ``gpus``; ``auto`` takes at most ``most``."""
    if gpus != "auto":
        return gpus
    found = len(allowed_gpus())
    return found if most is None else min(most, found)


def granted_gpus(wildcards: Any, resources: Mapping[str, Any]) -> int:
    """GPUs of each node of a job: ``gpu`` of one node, or ``gres`` ("gpu:4", "gpu:h100:4") of several."""
    kind, _, count = str(resources.get("gres", "")).rpartition(":")
    return int(count if kind.split(":")[0] == "gpu" else resources.get("gpu", 0))


def granted_cores(wildcards: Any, threads: int, resources: Mapping[str, Any]) -> int:
    """Cores of each task of a job, as Snakemake's Slurm executor asks for them."""
    return max(1, int(resources.get("cpus_per_task", threads)))


def warn_of_gpus_without_effect(config: WorkflowConfig, set_resources: Mapping[str, Mapping[str, Any]]) -> None:
    """The ``gpu`` of a profile overrides the config."""
    for stage, rule in {"pretrain": "pretrain", "embed": "embed", "integrate": "train"}.items():
        wanted, granted = getattr(config, stage).gpus, set_resources.get(rule, {})
        if wanted != "auto" and "gpu" in granted and granted["gpu"] != wanted:
            found = f"{stage}.gpus = {wanted} has no effect: the profile (set-resources) gives {rule} another number"
            print_problems([f"{found}; change gpu there"], kind="warning")


# -- One workflow at a time


def hold_folders(folders: Iterable[Path]) -> list[int]:
    """Lock the folders that a workflow writes to; returns the handles, which the kernel releases with the process.

    Snakemake's own lock is of the folder that it was started in: another one, started elsewhere, would remove declared
    outputs below running jobs.

    Raises:
        UserError: Another workflow holds one of them.
    """
    held = []
    for folder in folders:
        with contextlib.suppress(PermissionError):  # the jobs say so, of the files they write
            folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            held.append(handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another Snakemake, started in another folder, works on it; wait until it has ended"
            ) from None
        except OSError:
            pass  # some network file systems lock no folders
    return held


# -- Batches: which videos one job extracts together, where a corpus has too many for a job each

_BATCH_NAME = re.compile(r"b\d{5,}")


def plan_batches(layout: CorpusLayout, video_ids: Collection[str], videos_per_job: int) -> Batches:
    """Finished batches as they are, so that new videos disturb none; the other videos by id, so many per batch.

    Videos that are gone drop out of their batches. Nothing is written.
    """
    kept = {name: ids for name, ids in read_batches(layout, video_ids).items() if layout.batch(name).is_file()}
    taken = {video_id for ids in kept.values() for video_id in ids}
    rest = sorted(video_id for video_id in video_ids if video_id not in taken)
    number = 0
    for start in range(0, len(rest), videos_per_job):
        while (name := f"b{number:05d}") in kept:
            number += 1
        kept[name] = rest[start : start + videos_per_job]
    return dict(sorted(kept.items()))


def read_batches(layout: CorpusLayout, video_ids: Collection[str]) -> Batches:
    """The batches as `write_batches` left them, which a job must use even if others have finished meanwhile."""
    known = set(video_ids)
    batches = {}
    for path in _listings(layout):
        ids = [line for line in path.read_text(encoding="utf-8").splitlines() if line in known]
        known -= set(ids)  # a video in two batches belongs to the first
        if ids:
            batches[path.stem] = ids
    return batches


def write_batches(layout: CorpusLayout, batches: Batches) -> None:
    """Write a listing per batch; right ones are left alone, those of no batch are removed."""
    for path in _listings(layout):
        if path.stem not in batches:
            path.unlink()
    for name, ids in batches.items():
        path, text = layout.batch_ids(name), "".join(f"{video_id}\n" for video_id in ids)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text, sync=False)


def _listings(layout: CorpusLayout) -> list[Path]:
    folder = layout.batch_ids("b").parent
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix == ".txt" and _BATCH_NAME.fullmatch(path.stem))


# -- The end of a run

_NAMED_LOG = re.compile(r"^    log: (.+) \(check log file\(s\) for error details\)$", re.MULTILINE)


def errors_of_failed_jobs(snakemake_logs: Iterable[str | Path]) -> list[str]:
    """What the failed jobs told their user, from the logs that Snakemake's own logs name: lines ``error: ...``."""
    told: dict[str, None] = {}
    for name in _NAMED_LOG.findall("\n".join(map(_text_of, snakemake_logs))):
        lines = _text_of(name).splitlines()
        told |= dict.fromkeys(line.removeprefix("error: ") for line in lines if line.startswith("error: "))
    return list(told)


def _text_of(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
