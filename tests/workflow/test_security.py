"""Config values that a shell would run or split: they reach the scripts as they are, and nothing else happens."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

WILD = 'a\'b "c" $(touch pwned) `touch pwned`; touch pwned & | > pwned\n#{x} ñ'


def test_hostile_values_are_single_words_of_every_command(snakemake: Snakemake, checkout: Path) -> None:
    values = {
        "corpus": {"root": "data/$(touch pwned) 'x'"},
        "work_dir": "work; touch pwned #",
        "extract": {"set": {"precomputed.folder": WILD}},
        "pretrain": {"set": {"experiment.name": WILD}},
        "integrate": {"set": {"experiment.name": WILD}},
    }
    (checkout / "wild.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    done = snakemake("--dry-run", "-p", "all", "--configfile", "wild.yaml")
    assert done.returncode == 0, done.stderr
    commands = [text.partition(" 2>&1")[0] for text in done.stdout.split("Shell command: ")[1:]]
    words = [shlex.split(command) for command in commands]
    for script, key in (
        ("extract_rois_v2.py", "precomputed.folder"),
        ("pretrain_dino_hands.py", "experiment.name"),
        ("train_slt_multistream_v9.py", "experiment.name"),
    ):
        found = [line for line in words if any(word.endswith(script) for word in line)]
        assert found and all(f"{key}={WILD}" in line for line in found), script
        assert all("data/$(touch pwned) 'x'" in line for line in found if "--root" in line)
    assert not list(checkout.rglob("pwned"))


def test_hostile_values_run_nothing(snakemake: Snakemake, checkout: Path) -> None:
    """The very commands, run: rendering, extraction and check of one video."""
    values = {
        "corpus": {"root": "data/$(touch pwned) 'y'", "demo_size": "tiny"},
        "extract": {"set": {"precomputed.folder": WILD, "crop_px": 32}},
    }
    pytest.importorskip("mediapipe")
    (checkout / "wild.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    target = "data/$(touch pwned) 'y'/processed/metadata/demo_000.json"
    done = snakemake(target, "--configfile", "wild.yaml")
    assert done.returncode == 0, done.stderr
    metadata = json.loads((checkout / target).read_text(encoding="utf-8"))
    assert metadata["settings"]["crop_px"] == 32
    assert not list(checkout.rglob("pwned"))
    assert not list(checkout.parent.glob("pwned"))
