"""What the workflow says to a config or a folder of videos that is not right: before any job runs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from signstreams.config.load import flag_name, leaves
from signstreams.config.section import Flag, Section
from signstreams.contract.settings import ContractConfig
from signstreams.extract.settings import ExtractConfig
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.pretrain.settings import PretrainConfig
from signstreams.streams import BACKBONE_KEYS
from signstreams.workflow.settings import SET_BY_RULES

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


def refused(snakemake: Snakemake, checkout: Path, text: str) -> list[str]:
    (checkout / "mine.yaml").write_text(text, encoding="utf-8")
    done = snakemake("--dry-run", "--configfile", "mine.yaml")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_an_unknown_key_is_named_with_its_neighbour(snakemake: Snakemake, checkout: Path) -> None:
    lines = refused(snakemake, checkout, "corpus:\n  vidoes: x\nstream: [face]\n")
    assert lines == [
        "error: unknown key 'corpus.vidoes' (workflow config); did you mean 'corpus.videos'?",
        "error: unknown key 'stream' (workflow config); did you mean 'streams'?",
    ]


def test_a_wrong_type_is_one_line(snakemake: Snakemake, checkout: Path) -> None:
    (line,) = refused(snakemake, checkout, "pretrain:\n  threads: many\n")
    assert line.startswith("error: pretrain.threads = 'many' (workflow config): ")


def test_leave_to_fetch_a_network_is_refused_since_the_workflow_trains_its_own(
    snakemake: Snakemake, checkout: Path
) -> None:
    (line,) = refused(snakemake, checkout, "integrate:\n  set:\n    model.download: true\n")
    assert "download has no effect: no backbone is a timm:: model" in line


def test_settings_of_every_stage_are_checked_before_the_first_job(snakemake: Snakemake, checkout: Path) -> None:
    text = "pretrain: {set: {epoch: 3, augmentation.flip_prob: .5}}\ncontract: {set: {decod: all}}\n"
    assert refused(snakemake, checkout, text + "evaluate: {set: {decoding.num_beams: 0}}\n") == [
        "error: unknown key 'epoch' (pretrain.set epoch); did you mean 'epochs'?",
        "error: unknown key 'decod' (contract.set decod); did you mean 'decode'?",
        "error: decoding.num_beams = '0' (evaluate.set decoding.num_beams): input should be greater than or equal to 1",
    ]
    (left, right) = refused(snakemake, checkout, "pretrain: {set: {augmentation.flip_prob: .5}}\n")
    assert "a flipped hand_l is the other hand" in left and "a flipped hand_r is the other hand" in right
    (line,) = refused(snakemake, checkout, "pretrain: {config: 'config/no/{stream}.toml'}\nstreams: [face]\n")
    assert line.startswith("error: config/no/face.toml: No such file or directory")


def test_what_the_rules_set_is_refused_below_set(snakemake: Snakemake, checkout: Path) -> None:
    (line,) = refused(snakemake, checkout, "integrate:\n  set: {model.face_backbone: 'timm::a', output_dir: x}\n")
    assert "integrate.set: model.face_backbone has no effect: the workflow sets it" in line


@pytest.mark.parametrize(
    ("stage", "model"),
    [
        ("extract", ExtractConfig),
        ("contract", ContractConfig),
        ("pretrain", PretrainConfig),
        ("integrate", IntegrateConfig),
        ("evaluate", EvaluateSltConfig),
    ],
)
def test_the_list_of_what_the_rules_set_is_that_of_their_flags(stage: str, model: type[Section], project: Path) -> None:
    file = {"evaluate": "integrate"}.get(stage, stage)
    text = (project / "workflow" / "rules" / f"{file}.smk").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", text, re.M | re.S))
    if stage == "extract":
        rules = {"extract": text}  # one rule in two versions
    body = rules[{"integrate": "train"}.get(stage, stage)]
    words = set(re.findall(r"--[a-z][a-z-]*", body))
    if "{params.backbones}" in body:
        words |= {f"--{key.replace('_', '-')}" for key in BACKBONE_KEYS.values()}
    flags = {}
    for key, field in leaves(model):
        extra = [name for item in field.metadata if isinstance(item, Flag) for name in item.names]
        flags |= dict.fromkeys([f"--{flag_name(key)}", *extra], key)
    assert {flags[word] for word in words & set(flags)} == SET_BY_RULES[stage]


def test_a_missing_or_empty_folder_of_videos_is_named(snakemake: Snakemake, checkout: Path) -> None:
    (line,) = refused(snakemake, checkout, "corpus:\n  root: data/mine\n  videos: absent\n")
    assert line.startswith("error: corpus.videos: there is no folder 'absent'")
    (checkout / "empty").mkdir()
    (line,) = refused(snakemake, checkout, "corpus:\n  root: data/mine\n  videos: empty\n")
    assert line.startswith("error: empty: holds no video (expected files ending in .mp4 ")


def test_unsafe_and_double_video_names_are_named(snakemake: Snakemake, checkout: Path) -> None:
    (checkout / "odd").mkdir()
    for name in ("a{b}.mp4", "c\nd.mp4"):
        (checkout / "odd" / name).touch()
    lines = refused(snakemake, checkout, "corpus:\n  root: data/mine\n  videos: odd\n")
    assert len(lines) == 2
    assert "holds a brace" in lines[0]
    assert "U+000A" in lines[1]
    (checkout / "twins").mkdir()
    for name in ("a.mp4", "a.mov"):
        (checkout / "twins" / name).touch()
    (line,) = refused(snakemake, checkout, "corpus:\n  root: data/mine\n  videos: twins\n")
    assert "'a.mov' and 'a.mp4' both give the video id 'a'" in line


def test_points_of_another_tool_are_input_of_extraction(snakemake: Snakemake, checkout: Path) -> None:
    """Absent ones are named before any job runs; a changed one makes its video stale."""
    for folder, names in {"clips": ("a.mp4", "b.mp4"), "points": ("a.npz",)}.items():
        (checkout / folder).mkdir()
        for name in names:
            (checkout / folder / name).touch()
    text = "corpus:\n  root: data/mine\n  videos: clips\nextract:\n  set:\n    detector: precomputed\n"
    text += "    precomputed.folder: points\n"
    (line,) = refused(snakemake, checkout, text)
    assert line.startswith("error: points/b: no points of this video, expected a file ending in .npz, .npy, .pose")
    (checkout / "points" / "b.pose").touch()
    done = snakemake("--dry-run", "extract_all", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert "input: clips/a.mp4, points/a.npz" in done.stdout and "input: clips/b.mp4, points/b.pose" in done.stdout


@pytest.mark.parametrize("name", ["meta.csv", "videos/mine.mp4"])
def test_the_demo_corpus_is_rendered_over_nobodys_videos_and_texts(
    snakemake: Snakemake, checkout: Path, name: str
) -> None:
    path = checkout / "data" / f"forgot_{Path(name).stem}" / name
    path.parent.mkdir(parents=True)
    path.write_text("id;video;text\na;mine;hola\n", encoding="utf-8")
    root = path.relative_to(checkout).parents[len(Path(name).parts) - 1]
    (line,) = refused(snakemake, checkout, f"corpus:\n  root: {root}\n")
    assert line.startswith(f"error: {root / name}: is not part of the demo corpus, which would be rendered into {root}")
    assert f"(corpus.videos: {root}/videos)" in line


def test_without_a_text_no_translation_is_planned(snakemake: Snakemake, checkout: Path) -> None:
    root = checkout / "data" / "boxed"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "a.mp4").write_bytes(b"x")
    (root / "meta.csv").write_text("video_id;box\na;0 0 50 50\n", encoding="utf-8")
    (checkout / "boxed.yaml").write_text("corpus: {root: data/boxed, videos: data/boxed/videos}\n", encoding="utf-8")
    shown = snakemake("-n", "all", "--configfile", "boxed.yaml").stdout
    assert "rule contract:" in shown and "rule pretrain:" in shown
    assert "rule train:" not in shown and "rule evaluate:" not in shown


def test_the_translation_takes_the_streams_that_are_named(snakemake: Snakemake) -> None:
    shown = snakemake("-n", "-p", "train_all", "--config", "streams=['hand_r']").stdout
    assert shown.count("rule pretrain:") == shown.count("rule embed:") == 1
    (command,) = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    assert "--hand-right-backbone file::" in command
    assert "--hand-left-backbone" not in command and "--face-backbone" not in command


def test_own_videos_do_not_mix_with_the_demo_corpus(snakemake: Snakemake, checkout: Path) -> None:
    (line,) = refused(snakemake, checkout, "corpus:\n  videos: somewhere\n")
    assert "name a root for your corpus" in line


def listing(snakemake: Snakemake, devices: str) -> str:
    done = snakemake("--dry-run", "--printshellcmds", "pretrain_all", CUDA_VISIBLE_DEVICES=devices)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_gpu_no_job_asks_for_one(snakemake: Snakemake) -> None:
    text = listing(snakemake, "")
    assert "gpu=" not in text
    assert "launch.py --gpus 0 --nodes 1 --cpus 2 --requeue --" in text


def test_with_gpus_each_has_a_process_of_its_own(snakemake: Snakemake) -> None:
    text = listing(snakemake, "0,1")
    assert "gpu=2" in text
    assert "launch.py --gpus 2 --nodes 1 --cpus 2 --requeue --" in text


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (["pretrain:gpu=4"], "--gpus 4 --nodes 1 --cpus 2"),
        (["pretrain:nodes=2", "pretrain:gres=gpu:4"], "--gpus 4 --nodes 2 --cpus 2"),
        (
            ["pretrain:nodes=2", "pretrain:gres=gpu:h100:8", "pretrain:cpus_per_task=32"],
            "--gpus 8 --nodes 2 --cpus 32",
        ),
    ],
)
def test_the_profile_decides_how_many_nodes_gpus_and_cores(
    snakemake: Snakemake, resources: list[str], expected: str
) -> None:
    done = snakemake("--dry-run", "-p", "pretrain_all", "--set-resources", *resources)
    assert done.returncode == 0, done.stderr
    assert f"launch.py {expected} --requeue --" in done.stdout


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_a_profile_fits_the_rules(snakemake: Snakemake, checkout: Path, name: str) -> None:
    """Every rule it names is there, and what it asks for reaches the jobs."""
    profile = yaml.safe_load((checkout / f"workflow/profiles/{name}/config.yaml").read_text(encoding="utf-8"))
    listed = snakemake("--list-rules").stdout.split()
    assert {*profile["set-resources"], *profile["set-threads"]} <= set(listed)
    words = ["--dry-run", "-p", "all", "--workflow-profile", f"workflow/profiles/{name}"]
    done = snakemake(*words, SIGNSTREAMS_GPUS="0,1,2,3")
    assert done.returncode == 0, done.stderr
    launched = re.findall(r"launch\.py --gpus 1 --nodes 1 --cpus \d --requeue --", done.stdout)
    assert len(launched) == 4  # three streams and the translation


def test_a_number_of_gpus_that_the_profile_overrides_is_one_warning(snakemake: Snakemake, checkout: Path) -> None:
    (checkout / "mine.yaml").write_text("pretrain: {gpus: 2}\nembed: {gpus: 1}\n", encoding="utf-8")
    words = ["--dry-run", "pretrain_all", "--configfile", "mine.yaml"]
    done = snakemake(*words, "--workflow-profile", "workflow/profiles/gpu")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("warning: ")] == [
        "warning: pretrain.gpus = 2 has no effect: the profile (set-resources) gives pretrain another number;"
        " change gpu there"
    ]


def test_a_path_with_a_brace_is_named(snakemake: Snakemake, checkout: Path) -> None:
    (line,) = refused(snakemake, checkout, "work_dir: 'work{1}'\n")
    assert "work_dir = 'work{1}' holds a brace" in line
