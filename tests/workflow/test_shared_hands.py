"""The chain with one backbone for both hands: one job trains it; all else finds it under the name of each hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.engine import checkpoint
from signstreams.formats.layout import PRETRAINING_FILES

from .test_chain import CONFIG

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def made(snakemake: Snakemake, checkout: Path) -> tuple[list[str], Path]:
    """`snakemake all release` with shared hands, once; the words that select its config, and its work folder."""
    text = CONFIG.replace("work dirs", "work of hands").replace("streams: [hand_r]", "streams: [hand_l, hand_r]")
    text = text.replace("pretrain:\n", "pretrain:\n  hands: shared\n")
    text += 'release: {consent_note: "It\'s signed by {all}, año 2026", languages: [aed, es]}\n'
    (checkout / "hands.yaml").write_text(text, encoding="utf-8")
    words = ["--configfile", "hands.yaml"]
    done = snakemake("all", "release", *words)
    assert done.returncode == 0, done.stderr
    return words, checkout / "work of hands"


def test_each_hand_has_the_files_of_the_one_run(made: tuple[list[str], Path]) -> None:
    folder = made[1]
    for file in PRETRAINING_FILES.values():
        original = folder / "dino_hands" / file
        assert original.stat().st_size > 0
        for stream in ("hand_l", "hand_r"):
            copy = folder / f"dino_{stream}" / file
            assert copy.read_bytes() == original.read_bytes()
            # a link shares its time with the rule's input, which Snakemake calls "older than input" every few runs
            assert not copy.samefile(original)
    metadata = checkpoint.load(folder / "dino_hand_r" / "backbone.pt")["metadata"]
    assert (metadata["stream"], metadata["mirrored_streams"]) == ("hands", ["hand_l"])
    assert "left hands mirrored" in (folder / "dino_hand_l" / "README.md").read_text(encoding="utf-8")
    params = json.loads((folder / "dino_hands" / "params.json").read_text())
    assert [Path(place).name for place in params["config"]["train_dir"]] == ["hand_l", "hand_r"]


def test_the_later_stages_mirror_left_hands(made: tuple[list[str], Path]) -> None:
    folder = made[1]
    manifests = {side: json.loads((folder / "features" / f"hand_{side}.json").read_text()) for side in "lr"}
    assert manifests["l"]["is_mirrored"] and "is_mirrored" not in manifests["r"]
    assert manifests["l"]["backbone"] == manifests["r"]["backbone"]
    assert checkpoint.load(folder / "multistream_v9" / "best.pt")["mirrored_streams"] == ["hand_l"]
    for side in "lr":
        rows = json.loads((folder / f"dino_hand_{side}" / "judge.json").read_text())["rows"]
        (about,) = {row["about"] for row in rows if row["kind"] == "first weights"}
        assert about.endswith(", left hands mirrored")
    card = (folder / "release" / "backbones" / "hand_l" / "README.md").read_text(encoding="utf-8")
    assert "language:\n- aed\n- es\n" in card and "agreed to: It's signed by {all}, año 2026.\n" in card
    assert "hand_l" in (folder / "pretraining.html").read_text(encoding="utf-8")


def test_a_second_run_has_nothing_to_do_and_separate_hands_train_each(
    made: tuple[list[str], Path], snakemake: Snakemake, checkout: Path
) -> None:
    words = made[0]
    done = snakemake("all", *words)
    assert "Nothing to be done" in done.stderr + done.stdout
    text = (checkout / "hands.yaml").read_text(encoding="utf-8").replace("hands: shared", "hands: separate")
    (checkout / "apart.yaml").write_text(text, encoding="utf-8")
    shown = snakemake("--dry-run", "pretrain_all", "--configfile", "apart.yaml").stdout
    assert shown.count("rule pretrain:") == 2 and "rule share_hands:" not in shown
