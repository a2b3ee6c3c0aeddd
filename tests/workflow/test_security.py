"""Config values that a shell would run or split: they reach the scripts as they are, and nothing else happens."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from signstreams.demo.plan import plan

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

WILD_FOLDER = 'a\'b "c" $(touch pwned) `touch pwned`; touch pwned & | > pwned'
WILD = f"{WILD_FOLDER}\n#{{x}} ñ"


def test_hostile_values_are_single_words_of_every_command(snakemake: Snakemake, checkout: Path) -> None:
    values = {
        "corpus": {"root": "data/$(touch pwned) 'x'", "demo_size": "tiny"},
        "work_dir": "work; touch pwned #",
        "extract": {"set": {"detector": "precomputed", "precomputed.folder": WILD_FOLDER}},
        "pretrain": {"set": {"experiment.name": WILD}},
        "integrate": {"set": {"experiment.name": WILD}},
    }
    (checkout / "wild.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    (checkout / WILD_FOLDER).mkdir(exist_ok=True)
    for video in plan("tiny", 0).videos:
        (checkout / WILD_FOLDER / f"{video.video_id}.npz").touch()
    done = snakemake("--dry-run", "-p", "all", "--configfile", "wild.yaml")
    assert done.returncode == 0, done.stderr
    commands = [text.partition(" 2>&1")[0] for text in done.stdout.split("Shell command: ")[1:]]
    words = [shlex.split(command) for command in commands]
    for script, setting in (
        ("extract_rois_v2.py", f"precomputed.folder={WILD_FOLDER}"),
        ("pretrain_dino_hands.py", f"experiment.name={WILD}"),
        ("train_slt_multistream_v9.py", f"experiment.name={WILD}"),
    ):
        found = [line for line in words if any(word.endswith(script) for word in line)]
        assert found and all(setting in line for line in found), script
        assert all("data/$(touch pwned) 'x'" in line for line in found if "--root" in line)
    assert not list(checkout.rglob("pwned"))


def test_hostile_values_run_nothing(snakemake: Snakemake, checkout: Path) -> None:
    """The very commands, run: rendering, extraction and check of one video."""
    values = {
        "corpus": {"root": "data/$(touch pwned) 'y'", "demo_size": "tiny"},
        "extract": {"config": "$(touch pwned) ' \";touch pwned.toml", "set": {"crop_px": 32}},
    }
    pytest.importorskip("ai_edge_litert")
    (checkout / values["extract"]["config"]).write_text("jpeg_quality = 90\n")
    (checkout / "wild.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    target = "data/$(touch pwned) 'y'/processed/metadata/demo_000.json"
    done = snakemake(target, "--configfile", "wild.yaml")
    assert done.returncode == 0, done.stderr
    metadata = json.loads((checkout / target).read_text(encoding="utf-8"))
    assert (metadata["settings"]["crop_px"], metadata["settings"]["jpeg_quality"]) == (32, 90)
    assert not list(checkout.rglob("pwned"))
    assert not list(checkout.parent.glob("pwned"))
