"""The rules as Snakemake reads them: a wrong config is one line, a right one becomes commands."""

from __future__ import annotations

import json
import re
import shlex
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


def planned(snakemake: Snakemake, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = snakemake("--dry-run", "-p", *words, **environment)
    assert done.returncode == 0, done.stderr
    return done


def test_a_wrong_config_is_one_line_each_and_exit_code_2(snakemake: Snakemake, checkout: Path) -> None:
    (checkout / "wrong.yaml").write_text("corpus:\n  vidoes: x\nstream: [face]\n", encoding="utf-8")
    done = snakemake("--dry-run", "--configfile", "wrong.yaml")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        "error: unknown key 'corpus.vidoes' (workflow config); did you mean 'corpus.videos'?",
        "error: unknown key 'stream' (workflow config); did you mean 'streams'?",
    ]


def test_a_translation_that_is_left_out_is_said_first_and_what_failed_last(
    snakemake: Snakemake, checkout: Path
) -> None:
    """Of a corpus whose column of texts has another name; the split is the first job that reads meta.csv."""
    root = checkout / "no texts"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "a.mp4").write_bytes(b"x")
    (root / "meta.csv").write_text("id;video;txt\n1;a;hola\n2;b;chau\n", encoding="utf-8")
    words = ["--config", "corpus={root: no texts, videos: no texts/videos}", "work_dir=no texts/work"]
    note = "translation is left out: no texts/meta.csv: no column 'text' among id, video, txt; rename 'txt' to text"
    planned_only = snakemake("--dry-run", "all", *words)
    assert [line for line in planned_only.stderr.splitlines() if note in line], planned_only.stderr
    done = snakemake("all", "--until", "split_corpus", *words)
    said = done.stderr.splitlines()
    assert done.returncode == 1
    assert said[-1].startswith("error: meta.csv: 1 clip of 1 video that is not there: 'b' (row 3)")
    assert said[-2].startswith(f"note: {note}")
    (root / "meta.csv").write_text('id;video;text\n1;a;"hola\n', encoding="utf-8")
    unreadable = snakemake("--dry-run", "all", *words)
    assert (unreadable.returncode, "Traceback" in unreadable.stderr) == (2, False)
    assert unreadable.stderr.splitlines()[-1].startswith("error: no texts/meta.csv row 2: the double quote")


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
    body = rules["train"] + rules["train_stage"] if stage == "integrate" else rules[stage]
    words = set(re.findall(r"--[a-z][a-z-]*", body))
    if "{params.backbones}" in body:
        words |= {f"--{key.replace('_', '-')}" for key in BACKBONE_KEYS.values()}
    flags = {}
    for key, field in leaves(model):
        extra = [name for item in field.metadata if isinstance(item, Flag) for name in item.names]
        flags |= dict.fromkeys([f"--{flag_name(key)}", *extra], key)
    assert {flags[word] for word in words & set(flags)} == SET_BY_RULES[stage]


def test_points_of_another_tool_are_input_and_without_a_text_no_translation_is_planned(
    snakemake: Snakemake, checkout: Path
) -> None:
    root = checkout / "data" / "boxed"
    for path in ("videos/a.mp4", "videos/b.mp4", "points/a.npz", "points/b.pose"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (root / "meta.csv").write_text("video_id;box\na;0 0 50 50\nb;0 0 50 50\n", encoding="utf-8")
    text = "corpus: {root: data/boxed, videos: data/boxed/videos}\n"
    text += "extract: {set: {detector: precomputed, precomputed.folder: data/boxed/points}}\n"
    (checkout / "boxed.yaml").write_text(text, encoding="utf-8")
    shown = planned(snakemake, "all", "--configfile", "boxed.yaml").stdout
    folder = "data/boxed"
    assert f"input: {folder}/videos/a.mp4, {folder}/points/a.npz" in shown
    assert f"input: {folder}/videos/b.mp4, {folder}/points/b.pose" in shown
    assert "rule contract:" in shown and "rule pretrain:" in shown
    assert "rule train:" not in shown and "rule evaluate:" not in shown


def test_the_streams_that_are_named_are_trained_and_without_a_gpu_no_job_asks_for_one(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "train_all", "--config", "streams=['hand_r']", CUDA_VISIBLE_DEVICES="").stdout
    assert shown.count("rule pretrain:") == shown.count("rule embed:") == 1
    (command,) = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    assert "--hand-right-backbone file::" in command
    assert "--hand-left-backbone" not in command and "--face-backbone" not in command
    assert "gpu=" not in shown
    assert "launch.py --gpus 0 --nodes 1 --cpus 2 --requeue --" in shown


def test_both_hands_share_a_job_and_every_later_rule_has_its_own_paths(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "all", "--config", "pretrain={hands: shared}", CUDA_VISIBLE_DEVICES="").stdout
    commands = re.findall(r"pretrain_dino_\w+\.py.*", shown)
    assert len(commands) == shown.count("rule pretrain:") == 2
    (of_hands,) = [command for command in commands if "dino_hands.py" in command]
    assert "--config config/pretrain/demo_hands.toml" in of_hands and "--set stream=hands" in of_hands
    assert (
        "--train-dir data/demo/processed/hand_l data/demo/processed/hand_r --output-dir work_dirs/dino_hands"
        in of_hands
    )
    assert "data/demo/processed/hand_l/demo_000.zip" in shown and "data/demo/processed/hand_r/demo_000.zip" in shown
    assert shown.count("rule share_hands:") == 2
    for side in "lr":
        copied = f"output: work_dirs/dino_hand_{side}/backbone.pt, work_dirs/dino_hand_{side}/backbone.safetensors"
        assert copied in shown
        assert f"--stream hand_{side} --backbone file::work_dirs/dino_hand_{side}/backbone.pt" in shown  # embed
    assert shown.count("rule embed:") == 3 and shown.count("rule judge:") == 3


def test_the_boundary_model_is_a_target_of_its_own(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "boundaries").stdout
    (command,) = re.findall(r"train_boundaries\.py.*", shown)
    assert "--checkpoint work_dirs/multistream_v9/best.pt" in command and "--output-dir work_dirs/boundaries" in command
    assert "output: work_dirs/boundaries/boundary.pt, work_dirs/boundaries/boundaries.json" in shown
    assert "rule boundaries:" not in planned(snakemake, "all").stdout


def test_the_sequence_pretraining_comes_before_the_training_where_it_is_on(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "train_all", "--config", "sequence=true", CUDA_VISIBLE_DEVICES="").stdout
    (command,) = re.findall(r"pretrain_sequence\.py.*", shown)
    assert "--output-dir work_dirs/sequence --features work_dirs/features --face-backbone file::" in command
    assert "--set model.d_model=128" in command and "--set mska.channels=16,32,64" in command  # the training's encoder
    (training,) = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    assert "--set train.sequence_checkpoint=work_dirs/sequence/best.pt" in training
    (inputs,) = re.findall(r"rule train:\n    input: (.*)", shown)
    assert "work_dirs/sequence/best.pt" in inputs.split(", ")


def test_without_it_no_other_rule_knows_of_it_and_it_is_a_target_all_the_same(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "all", "sequence").stdout
    assert shown.count("rule sequence:") == 1
    (inputs,) = re.findall(r"rule train:\n    input: (.*)", shown)
    (training,) = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    assert "sequence" not in inputs and "sequence" not in training
    assert "rule sequence:" not in planned(snakemake, "all").stdout


def test_the_stages_come_before_the_training_where_they_are_named(snakemake: Snakemake) -> None:
    words = ("--configfile", "config/demo_stages.yaml")
    shown = planned(snakemake, "train_all", *words, CUDA_VISIBLE_DEVICES="").stdout
    commands = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    (training,) = [command for command in commands if "--config" in command]
    stages = ("vlp", "s2g", "g2t")
    (vlp,), (s2g,), (g2t,) = ([c for c in commands if f"--stage {stage} " in c] for stage in stages)
    assert "--output-dir work_dirs/vlp" in vlp and "--hand-right-backbone" in vlp
    assert "--output-dir work_dirs/s2g" in s2g and "-backbone" not in s2g and "mska.head_dim=128" in s2g
    assert "--output-dir work_dirs/g2t" in g2t and "mska." not in g2t and "decoder.vocab_size=600" in g2t
    assert "train.epochs=60" in g2t and "train.epochs=40" in s2g
    starts = json.dumps([f"work_dirs/{stage}/best.pt" for stage in stages])
    assert f"--set {shlex.quote(f'train.init_checkpoint={starts}')}" in training
    (of_text,) = re.findall(r"rule train_stage:\n    input: (.*)\n    output: work_dirs/g2t/", shown)
    assert not [path for path in of_text.split(", ") if "processed" in path or "dino" in path or "contract" in path]
    (alone,) = re.findall(r"rule train_stage:\n    input: (.*)", planned(snakemake, "work_dirs/s2g/best.pt").stdout)
    assert "work_dirs/features/points.json" in alone and "dino" not in alone
    assert "rule train_stage:" not in planned(snakemake, "all").stdout


def test_stage_text_comes_before_those_that_start_from_it_and_its_files_are_inputs(
    snakemake: Snakemake, tmp_path: Path
) -> None:
    texts, config = tmp_path / "more.txt", tmp_path / "text.yaml"
    texts.write_text("hola\n")
    config.write_text(f"integrate: {{stages: [text, g2t], stage_set: {{text: {{train.text_files: {texts}}}}}}}\n")
    words = ("work_dirs/g2t/best.pt", "--configfile", str(config))
    shown = planned(snakemake, *words, CUDA_VISIBLE_DEVICES="").stdout
    of_stage = r"rule train_stage:\n    input: (.*)\n    output: work_dirs/{}/"
    (text,), (g2t,) = (re.findall(of_stage.format(stage), shown) for stage in ("text", "g2t"))
    assert str(texts) in text and "processed" not in text
    assert "work_dirs/text/best.pt" in g2t and str(texts) not in g2t
    commands = re.findall(r"train_slt_multistream_v9\.py.*", shown)
    (first,), (second,) = ([c for c in commands if f"--stage {stage} " in c] for stage in ("text", "g2t"))
    assert f"train.text_files={texts}" in first and "init_checkpoint" not in first
    assert "train.init_checkpoint=" in second and "work_dirs/text/best.pt" in second


def test_with_gpus_each_has_a_process_of_its_own(snakemake: Snakemake) -> None:
    shown = planned(snakemake, "pretrain_all", CUDA_VISIBLE_DEVICES="0,1").stdout
    assert "gpu=2" in shown
    assert "launch.py --gpus 2 --nodes 1 --cpus 2 --requeue --" in shown


def test_resources_of_a_profile_reach_the_command(snakemake: Snakemake) -> None:
    resources = ["pretrain:nodes=2", "pretrain:gres=gpu:h100:8", "pretrain:cpus_per_task=32"]
    shown = planned(snakemake, "pretrain_all", "--set-resources", *resources).stdout
    assert "launch.py --gpus 8 --nodes 2 --cpus 32 --requeue --" in shown


@pytest.fixture(scope="module")
def rule_names(snakemake: Snakemake) -> set[str]:
    return set(snakemake("--list-rules").stdout.split())


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_a_profile_fits_the_rules(snakemake: Snakemake, checkout: Path, rule_names: set[str], name: str) -> None:
    """Every rule it names is there, and what it asks for reaches the jobs and decides over the config."""
    profile = yaml.safe_load((checkout / f"workflow/profiles/{name}/config.yaml").read_text(encoding="utf-8"))
    assert {*profile["set-resources"], *profile["set-threads"]} <= rule_names
    (checkout / "gpus.yaml").write_text("pretrain: {gpus: 2}\nembed: {gpus: 1}\n", encoding="utf-8")
    words = ["all", "--configfile", "gpus.yaml", "--workflow-profile", f"workflow/profiles/{name}"]
    done = planned(snakemake, *words, SIGNSTREAMS_GPUS="0,1,2,3")
    launched = re.findall(r"launch\.py --gpus 1 --nodes 1 --cpus \d --requeue --", done.stdout)
    assert len(launched) == 4  # three streams and the translation
    if name == "gpu":
        assert [line for line in done.stderr.splitlines() if line.startswith("warning: ")] == [
            "warning: pretrain.gpus = 2 has no effect: the profile (set-resources) gives pretrain another number;"
            " change gpu there"
        ]
