"""Config, paths and helpers of all rules. Nothing is computed here that a script could do."""

import copy
import json
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# Of this file, not of the workflow that runs: that may have imported ours as a module.
PROJECT = Path(str(workflow.current_basedir)).parents[1]
if not (PROJECT / "scripts").is_dir():
    raise WorkflowError(
        f"signstreams: found no scripts beside {workflow.current_basedir}, expected a checkout on this machine; clone it and"
        " name its Snakefile in your module"
    )
sys.path.insert(0, str(PROJECT / "src"))  # the workflow also runs where the package is not installed

from signstreams.contract.settings import ContractConfig
from signstreams.integrate.settings import EvaluateSltConfig
from signstreams.extract.settings import ExtractConfig
from signstreams.integrate.settings import IntegrateConfig
from signstreams.config.load import build, check
from signstreams.pretrain.settings import PretrainConfig
from signstreams.workflow.settings import WorkflowConfig
from signstreams.corpus.meta import has_texts
from signstreams.engine.gpu_lease import count_gpus
from signstreams.errors import UserError, exit_on_user_error, print_problems
from signstreams.workflow.batches import plan_batches, read_plan, write_plan
from signstreams.extract.settings import missing_points, points_path
from signstreams.extract.annotations import read_annotations
from signstreams.files import from_the_future
from signstreams.formats.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, source_stamp
from signstreams.formats.layout import SPLITS, CorpusLayout, find_videos
from signstreams.formats.run_layout import PRETRAINING_FILES, TRAINING_FILES, RunLayout
from signstreams.ids import check_id, shown
from signstreams.streams import BACKBONE_KEYS, BY_NAME, HAND_STREAMS, STREAMS

ENVIRONMENT = PROJECT / "environment.yml"
# With `--software-deployment-method conda` the rule's environment brings its python; else it is the one in use, also
# where it is not on PATH (.venv/bin/snakemake). In the prefix, not in params: a moved checkout makes nothing stale.
DEPLOYED = [str(method) for method in workflow.deployment_settings.deployment_method]
PREFIX = (
    "set -euo pipefail; "  # Snakemake's own prefix, which this one replaces, also for the rules of who imports ours
    # the package is found where it is not installed (a rule's conda environment), and the checkout wins where it is
    f"export PYTHONPATH={shlex.quote(str(PROJECT / 'src'))}${{PYTHONPATH:+:$PYTHONPATH}};"
    f" PYTHON={shlex.quote('python' if 'conda' in DEPLOYED else sys.executable)};"
    f" SCRIPTS={shlex.quote(str(PROJECT / 'scripts'))}; "
)
shell.prefix(PREFIX.replace("{", "{{").replace("}", "}}"))  # Snakemake formats it with each command


def source_videos(folder):
    """Video id to file of the user's own footage; every problem of the folder at once."""
    if not folder.is_dir():
        raise UserError(f"corpus.videos: there is no folder '{folder}'; name the folder that holds your videos")
    try:
        videos = find_videos(folder)
    except ValueError as error:
        raise UserError(f"{folder}: {error}; rename one of them") from None
    if not videos:
        raise UserError(
            f"{folder}: holds no video (expected files ending in {' '.join(VIDEO_SUFFIXES)}, or folders of images ending"
            f" in {' '.join(IMAGE_SUFFIXES)}); put your videos there"
        )
    problems = []
    for video_id, path in videos.items():
        try:
            check_id(video_id)
        except ValueError as error:
            problems.append(f"{folder}: the video id {shown(video_id)} {error}; rename {shown(path.name)}")
        if "{" in video_id or "}" in video_id:  # Snakemake would read them as wildcards
            problems.append(f"{folder}: the video id {shown(video_id)} holds a brace; rename {shown(path.name)}")
    if problems:
        raise UserError(problems)
    return videos


def setting_pairs(settings):
    """Key and text of a mapping's values, as ``--set`` takes them."""
    spelled = {True: "true", False: "false", None: "none"}
    return [(key, spelled[value] if isinstance(value, bool | None) else str(value)) for key, value in settings.items()]


def setting_words(settings):
    """``--set key=value`` words of a mapping, quoted for the shell: a function, or braces would count as wildcards."""
    words = " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in setting_pairs(settings))
    return lambda wildcards: words


def extract_config(section, root):
    """The config that extraction will use: wrong keys are named now, and ``spans_only`` decides which videos count."""
    given = [("videos", str(root / "videos")), ("root", str(root))]
    files = [section.config] if section.config else []
    return build(ExtractConfig, files, given + setting_pairs(section.set), place="extract.set")


def of_all_videos(pattern):
    """One artifact of every video; where a job takes several, the manifests that vouch for it."""
    if BATCHES is not None:
        return [str(CORPUS.batch(batch)) for batch in BATCHES]
    return [str(pattern).replace("{video}", video_id) for video_id in VIDEOS]


def video_of(wildcards):
    """The video of a rule's job, or the one named."""
    return wildcards if isinstance(wildcards, str) else wildcards.video


def video_input(wildcards):
    """A file; or a folder, whose own time of change says nothing about its images: a parameter tells those."""
    path = VIDEOS[video_of(wildcards)]
    return ancient(path) if path.is_dir() else path


def source_of_folder(wildcards):
    """Changes when an image does; nothing for a file."""
    return source_stamp(VIDEOS[video_of(wildcards)]) or ""


def points_of(wildcards):
    """The file of points that another tool found; nothing for a detector of our own."""
    return (EXTRACT.detector == "precomputed" and points_path(EXTRACT.precomputed.folder, video_of(wildcards))) or []


def heeded(wildcards):
    """The video's spans and box: when these change it is extracted again, and not for any other change of meta.csv."""
    found = HEEDED.get(video_of(wildcards))
    return "" if found is None else json.dumps(found.settings())


def all_artifacts(wildcards):
    """Every file of every video. A function: Snakemake looks into the inputs of a rule only where it is wanted."""
    return list(dict.fromkeys(path for pattern in ARTIFACTS.values() for path in of_all_videos(pattern)))


def made(wildcards):
    """Of this corpus and its texts, as they are: the targets below ask for no more than can be made.

    A function, as the jobs of other rules need not read meta.csv, which may hold boxes or spans alone.
    """
    translation = [*rules.train.output, *rules.evaluate.output] if IS_DEMO or has_texts(CORPUS.meta) else []
    return [*rules.contract.output, *rules.pretrain_all.input, *translation, *KNN_REPORTS]


def planned_batches():
    """Batches of videos. What a job is given to do was planned, and written, by the process that started it."""
    per_job = CONFIG.extract.videos_per_job
    if per_job == 1:
        return None
    return plan_batches(CORPUS, VIDEOS, per_job) if workflow.is_main_process else read_plan(CORPUS, VIDEOS)


def pretrain_output(name, path):
    """A file of pretraining; the pictures among them enter the workflow report, with what to look for."""
    if path.suffix != ".png":
        return path
    labels = {"stream": "{stream}", "picture": name}
    return report(path, caption=f"../report/{name}.rst", category="Pretraining", labels=labels)


def train_output(name, path):
    """A file of the translation training; its curves enter the workflow report."""
    if path.suffix != ".png":
        return path
    return report(path, caption="../report/training.rst", category="Translation", labels={"picture": name})


def wanted_gpus(gpus, most=None):
    """The number behind a config's ``gpus``; ``auto`` takes at most ``most``."""
    if gpus != "auto":
        return gpus
    return count_gpus() if most is None else min(most, count_gpus())


def granted_gpus(wildcards, resources):
    """GPUs of each node of a job: ``gpu`` of one node, or ``gres`` ("gpu:4", "gpu:h100:4") of several."""
    kind, _, count = str(resources.get("gres", "")).rpartition(":")
    return int(count) if kind.split(":")[0] == "gpu" else resources.get("gpu", 0)


def granted_cores(wildcards, threads, resources):
    """Cores of each task of a job, as Snakemake's Slurm executor asks for them."""
    return max(1, resources.get("cpus_per_task", threads))


def warn_of_gpus_without_effect(config):
    """A profile's ``gpu`` decides, whatever the config says."""
    for stage, name in {"pretrain": "pretrain", "embed": "embed", "integrate": "train"}.items():
        wanted = getattr(config, stage).gpus
        granted = workflow.resource_settings.overwrite_resources.get(name, {})
        if wanted != "auto" and "gpu" in granted and granted["gpu"] != wanted:
            found = f"{stage}.gpus = {wanted} has no effect: the profile (set-resources) gives {name} another number"
            print_problems([f"{found}; change gpu there"], kind="warning")


def refuse_the_future(paths):
    """Snakemake would fail each job that makes something older than its input, when it is done."""
    if ahead := from_the_future(paths):
        raise UserError(
            f"{ahead[0]}: was changed in the future, as by a clock that is ahead ({len(ahead)} files), expected a time"
            " before now; `touch` it, and the others"
        )


def integrate_config(section, work_dir, streams):
    """The config that the training will use: wrong keys are named now, and it says which backbones stay frozen."""
    backbones = [
        (f"model.{BACKBONE_KEYS[stream]}", f"file::{RunLayout(work_dir).backbone(stream)}") for stream in streams
    ]
    return build(IntegrateConfig, [section.config], backbones + setting_pairs(section.set), place="integrate.set")


def check_later_stages(config, corpus):
    """What the other jobs would refuse, hours later, of their own settings."""
    stages = []
    for stream in config.streams:
        file = Path(config.pretrain.config.replace("{stream}", stream))
        places = [("train_dir", str(corpus.processed / stream)), ("output_dir", str(config.work_dir))]
        stages.append(("pretrain", stream, PretrainConfig, [file], places))
    stages.append(("contract", None, ContractConfig, [], [("root", str(corpus.root))]))
    stages.append(("evaluate", None, EvaluateSltConfig, [], []))
    problems = []
    for stage, stream, model, files, places in stages:
        try:
            pairs = places + setting_pairs(getattr(config, stage).set)
            built = build(model, files, pairs, place=f"{stage}.set")
            if stream is not None:
                built.named_stream((stream,))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


with exit_on_user_error():
    if provider := workflow.storage_settings.default_storage_provider:
        raise UserError(
            f"--default-storage-provider {provider}: is not supported, since states and features are kept beside declared"
            " files; work in a folder that all machines share, and see 'Where the files lie' in docs/cluster.md"
        )
    CONFIG = check(WorkflowConfig, copy.deepcopy(config), "workflow config")
    if CONFIG.extract.videos_per_job > 1 and getattr(workflow.modifier, "base_snakefile", None) is not None:
        raise UserError(
            f"extract.videos_per_job = {CONFIG.extract.videos_per_job}: batches are planned when a workflow starts, which"
            " Snakemake lets no module do, expected 1 where another workflow imports these rules; run `snakemake"
            " extract_all` in the checkout first, or leave it out"
        )
    IS_DEMO = CONFIG.corpus.videos is None
    if IS_DEMO:
        from signstreams.demo.plan import refuse_foreign, video_ids

        if workflow.is_main_process:
            refuse_foreign(CorpusLayout(CONFIG.corpus.root))
        VIDEOS = {
            video_id: CorpusLayout(CONFIG.corpus.root).videos / f"{video_id}.mp4"
            for video_id in video_ids(CONFIG.corpus.demo_size, CONFIG.corpus.demo_seed)
        }
    else:
        VIDEOS = source_videos(CONFIG.corpus.videos)
    CORPUS = CorpusLayout(CONFIG.corpus.root)
    EXTRACT = extract_config(CONFIG.extract, CONFIG.corpus.root)
    # Of each video what extraction heeds of meta.csv. The demo corpus gets its meta.csv later; size and seed fix it.
    HEEDED = {} if IS_DEMO else read_annotations(CORPUS, VIDEOS, EXTRACT)
    if not IS_DEMO:
        VIDEOS = {video_id: path for video_id, path in VIDEOS.items() if video_id in HEEDED}
    if not IS_DEMO and workflow.is_main_process:
        refuse_the_future([*VIDEOS.values(), CORPUS.meta, CORPUS.gloss, *(CORPUS.index(split) for split in SPLITS)])
    INTEGRATE = integrate_config(CONFIG.integrate, CONFIG.work_dir, CONFIG.streams)
    if workflow.is_main_process:  # what a job is given to do was checked by the process that started it
        check_later_stages(CONFIG, CORPUS)
        warn_of_gpus_without_effect(CONFIG)
    if problems := missing_points(EXTRACT, VIDEOS):
        raise UserError(problems)

BATCHES = planned_batches()
WORK_DIR = CONFIG.work_dir
RUNS = RunLayout(WORK_DIR)
LOGS = RUNS.logs  # of this run alone: another corpus in the same checkout has a folder of its own
BACKBONE_FLAGS = {stream: f"--{key.replace('_', '-')}" for stream, key in BACKBONE_KEYS.items()}


wildcard_constraints:
    video="[^/]+",
    batch=r"b\d+",
    stream="|".join(STREAMS),
