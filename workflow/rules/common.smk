"""The plan of this start and the helpers of all rules. Nothing is computed here that the library could do."""

import atexit
import shlex
import sys
import time
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

from signstreams.errors import exit_on_user_error, print_problems
from signstreams.formats.layout import (
    BOUNDARY_FILES,
    FIRST_STAGES,
    JUDGE_FILES,
    PRETRAINING_FILES,
    SEQUENCE_FILES,
    SPLITS,
    TRAINING_FILES,
)
from signstreams.integrate.stage_settings import sees_crops, sees_video
from signstreams.sequence.settings import settings_of_training
from signstreams.streams import BY_NAME, HAND_STREAMS, HANDS, STREAMS, pretrain_script
from signstreams.workflow.plan import (
    errors_of_failed_jobs,
    first_weights,
    granted_cores,
    granted_gpus,
    hold_folders,
    make_plan,
    refuse_other_extraction,
    setting_words,
    stage_settings,
    stage_starts,
    wanted_gpus,
    write_batches,
    write_planned_extraction,
    write_planned_training,
)

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


with exit_on_user_error():
    PLAN = make_plan(
        config,
        is_start=workflow.is_main_process,
        is_module=getattr(workflow.modifier, "base_snakefile", None) is not None,
        checkout=PROJECT,
        storage_provider=workflow.storage_settings.default_storage_provider,
        set_resources=workflow.resource_settings.overwrite_resources,
    )
CONFIG, EXTRACT, INTEGRATE = PLAN.config, PLAN.extract, PLAN.integrate
IS_DEMO, VIDEOS, BATCHES = PLAN.is_demo, PLAN.videos, PLAN.batches
CORPUS, RUNS, WORK_DIR = PLAN.corpus, PLAN.runs, CONFIG.work_dir
STARTED_S = time.time()
NOTES = []  # what the user is told at the start and, below all lines of the jobs, again at the end
BACKBONES = " ".join(  # as the scripts take them
    f"{BY_NAME[stream].backbone_flag} file::{shlex.quote(str(RUNS.backbone(stream)))}"
    for stream in STREAMS
    if stream in CONFIG.streams
)
LOGS = RUNS.logs  # of this run alone: another corpus in the same checkout has a folder of its own


onstart:
    with exit_on_user_error():
        HELD = hold_folders([CORPUS.root, WORK_DIR])  # until this process ends, however it does
    if BATCHES is not None:
        write_batches(CORPUS, BATCHES)
    with exit_on_user_error():
        write_planned_training(PLAN)
        write_planned_extraction(PLAN)
        refuse_other_extraction(PLAN, {str(file) for job in workflow.dag.needrun_jobs() for file in job.output})


# At exit: below Snakemake's own last lines, where a user looks first.
onsuccess:
    atexit.register(print_problems, NOTES + PLAN.page_to_open(STARTED_S), kind="note")


onerror:
    atexit.register(print_problems, errors_of_failed_jobs([log] if isinstance(log, str) else log))
    atexit.register(print_problems, NOTES, kind="note")


wildcard_constraints:
    video="[^/]+",
    batch=r"b\d+",
    stream="|".join(STREAMS),
    stage="|".join(FIRST_STAGES),


def video_input(video_id):
    """A file; or a folder, whose own time of change says nothing about its images: a parameter tells those."""
    source = VIDEOS[video_id]
    return ancient(source.path) if source.is_folder else source.path


def all_artifacts(wildcards):
    """Every file of every video. A function: Snakemake looks into the inputs of a rule only where it is wanted."""
    return list(dict.fromkeys(path for pattern in ARTIFACTS.values() for path in PLAN.of_all_videos(pattern)))


def crops_of_trained(wildcards=None):
    """Crops of the streams whose backbone is trained with the translation model."""
    return [path for stream in CONFIG.streams if stream not in FROZEN for path in PLAN.of_all_videos(ARTIFACTS[stream])]


def final_targets(wildcards):
    """All that can be made of this corpus: without texts, no translation, which is said at the start and at the end.

    A function, as the jobs of other rules need not read meta.csv.
    """
    with exit_on_user_error():
        why = PLAN.why_no_translation()
    if why and not NOTES and workflow.is_main_process:
        NOTES.append(why)
        print_problems(NOTES, kind="note")
    translation = [] if why else [*rules.train.output, *rules.evaluate.output]
    sequence = rules.sequence.output if CONFIG.sequence else []
    return [*rules.contract.output, *rules.pretrain_all.input, *sequence, *translation]


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


def stage_output(name, path):
    """A file of a stage of the translation training, as `train_output`."""
    if path.suffix != ".png":
        return path
    labels = {"picture": name, "stage": "{stage}"}
    return report(path, caption="../report/training.rst", category="Translation", labels=labels)
