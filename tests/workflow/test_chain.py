"""The chain as a user runs it: everything from nothing, nothing twice, one target again, killed and taken up."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.commands import main

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """\
corpus:
  root: "data/ñandú d'oro"
  demo_size: tiny
work_dir: "work dirs"
streams: [hand_r] # all three: tests/docs/test_newcomer.py
extract:
  set: {crop_px: 48, fps: 12.5}
pretrain:
  set:
    epochs: 1
    dataset.batch_size: 16
    dataset.epoch_steps: 6
    model.depth: 1
    augmentation.num_local: 2
    monitor.log_every_steps: 2
    monitor.probe_every_steps: 3
integrate:
  set: {train.epochs: 1, train.eval_every_epochs: 1, data.frame_stride: 4}
"""


@pytest.fixture(scope="module")
def chain(snakemake: Snakemake, checkout: Path) -> list[str]:
    """`snakemake all` on the tiny demo corpus, once; gives the words that select its config."""
    (checkout / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    words = ["--configfile", "tiny.yaml"]
    done = snakemake("all", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("note: open work dirs/overview.html in a browser")
    return words


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_everything_is_made_in_a_folder_with_an_awkward_name(chain: list[str], checkout: Path) -> None:
    folder = checkout / "work dirs" / "dino_hand_r"
    for name in ("backbone.pt", "checkpoint_last.pt", "checkpoint_best.pt", "params.json", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0
    for name in ("curves", "attention", "patches_pca", "neighbours", "judge"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "backbone" in (folder / "artifacts.json").read_text()
    assert json.loads((folder / "judge.json").read_text())["rows"]
    model = checkout / "work dirs" / "multistream_v9"
    assert json.loads((model / "scores.json").read_text())
    with (model / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    test_clips = (checkout / "data" / "ñandú d'oro" / "index" / "test.csv").read_text().split()
    assert set(test_clips) <= {next(iter(row.values())) for row in rows}
    assert not list(checkout.rglob("pwned*"))
    assert not list(checkout.parent.glob("pwned*"))


def test_a_second_run_has_nothing_to_do(chain: list[str], snakemake: Snakemake) -> None:
    done = snakemake("all", *chain)
    assert "Nothing to be done" in done.stderr + done.stdout and "in a browser" not in done.stderr


def test_another_setting_of_the_training_is_checked_at_once_and_makes_no_backbone_stale(
    chain: list[str], snakemake: Snakemake, checkout: Path
) -> None:
    def planned(max_frames: int) -> subprocess.CompletedProcess[str]:
        text = CONFIG.replace("data.frame_stride: 4}", f"data.frame_stride: 4, data.max_frames: {max_frames}}}")
        (checkout / "other.yaml").write_text(text, encoding="utf-8")
        return snakemake("all", "--dry-run", "--configfile", "other.yaml")

    jobs = set(re.findall(r"^(?:local)?rule (\w+):", planned(300).stdout, re.MULTILINE))
    assert {"train", "evaluate"} <= jobs and not {"extract", "contract", "pretrain", "embed"} & jobs
    refused = planned(3)
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert refused.returncode == 2 and lines and "Traceback" not in refused.stderr
    assert all("expected at most 3; raise data.max_frames" in line for line in lines)


def test_overview_report_and_release(chain: list[str], snakemake: Snakemake, checkout: Path) -> None:
    overview = (checkout / "work dirs" / "overview.html").read_text(encoding="utf-8")
    assert "ñandú d&#39;oro" in overview and "1 of 3" in overview and "pretrain hand_r" in overview
    pretraining = (checkout / "work dirs" / "pretraining.html").read_text(encoding="utf-8")
    for expected in ("unseen\nsigners:\n20-NN", "first weights, class token, patches", "hand points", "grey pixels"):
        assert expected in overview and expected in pretraining, expected
    done = snakemake("report", "release", *chain)
    assert done.returncode == 0, done.stderr + (checkout / "work dirs" / "logs" / "report.log").read_text(
        encoding="utf-8"
    )
    report = (checkout / "work dirs" / "report.html").read_text(encoding="utf-8")
    for caption in ("The whole run on one page", "Where the class token of hand_r looks", "worst first: frames"):
        assert caption in report
    assert (checkout / "work dirs" / "release" / "SHA256SUMS").read_text().count("backbone.safetensors") == 1
    assert "Nothing to be done" in (again := snakemake("report", "release", "all", *chain)).stderr + again.stdout


def test_the_report_opens_on_a_desktop_and_a_phone(
    chain: list[str], snakemake: Snakemake, checkout: Path, browser: Any
) -> None:
    snakemake("report", *chain)
    covered = """const of = name => document.querySelector(`#app ${name}`).getBoundingClientRect();
        const nav = of('nav'), text = of('.document');
        if (nav.bottom > text.top && nav.right > text.left) console.error('covered')"""
    for size in ("desktop", "phone"):
        seen = browser.look(checkout / "work dirs" / "report.html", size, settle_s=1.5, script=covered)
        faults = [text for text in seen.complaints if "warning" not in text]  # Snakemake's own libraries warn
        assert (faults, seen.requests, seen.width_px <= seen.window_px) == ([], [], True), size


def test_one_target_again_is_one_job_and_touches_nothing_else(
    chain: list[str], snakemake: Snakemake, checkout: Path
) -> None:
    backbone = checkout / "work dirs" / "dino_hand_r" / "backbone.pt"
    weights = backbone.read_bytes()
    before = times(checkout / "work dirs") | times(checkout / "data")
    backbone.unlink()
    done = snakemake("work dirs/dino_hand_r/backbone.pt", *chain)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 steps (100%) done" in done.stderr + done.stdout
    after = times(checkout / "work dirs") | times(checkout / "data")
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    changed = {path for path in changed if not {"state", "logs"} & set(path.parts)}
    assert {path.parent.name for path in changed} == {"dino_hand_r"}
    assert backbone.read_bytes() == weights
    os.utime(backbone, ns=(before[backbone], before[backbone]))


def test_every_job_left_a_log_and_a_benchmark(chain: list[str], checkout: Path) -> None:
    logs = {path.relative_to(checkout / "work dirs" / "logs") for path in (checkout / "work dirs" / "logs").rglob("*")}
    for name in (
        "contract",
        "train",
        "evaluate",
        "embed/hand_r",
        "embed/points",
        "pretrain/hand_r",
        "judge/hand_r",
        "extract/demo_000",
        "demo/demo_000",
    ):
        assert Path(f"{name}.log") in logs
        assert Path(f"{name}.benchmark.tsv") in logs


# What libraries say of themselves: Python's warnings, glog (MediaPipe, TFLite: W0000 00:00:00 ...), torchrun, loggers.
CHATTER = re.compile(r"Warning\b|^[WEI]\d{4} \d\d:|absl|TensorFlow|libprotobuf|fontManager|torch/|site-packages", re.M)


def test_no_library_speaks_to_the_user_and_nothing_is_said_twice(chain: list[str], checkout: Path) -> None:
    logs = list((checkout / "work dirs" / "logs").rglob("*.log"))
    assert len(logs) > 10
    for path in logs:
        text = path.read_text(encoding="utf-8")
        assert not CHATTER.search(text), f"{path.name}: {text}"
        assert "\x1b" not in text, path.name  # neither colours nor bars
        lines = text.splitlines()
        assert len(lines) == len(set(lines)), f"{path.name}: {text}"


def run_command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    code = 0
    try:
        main(list(words))
    except SystemExit as left:
        code = int(left.code or 0)
    return code, *capsys.readouterr()


def test_the_summary_says_where_to_look(
    chain: list[str], checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    code, said, errors = run_command(capsys, "summary", "--root", "data/ñandú d'oro", "--work-dir", "work dirs")
    assert code == 0, errors
    assert said.count("not there yet") == 2  # the other streams
    assert "k-NN: backbone" in said and "judge.png" in said
    _, said, _ = run_command(capsys, "summary")
    assert said.count("not there yet") == 5


def test_a_clip_is_translated_from_its_video_as_it_was_scored(
    chain: list[str], checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same frames, boxes, features and decoding, from nothing but the video and the checkpoint."""
    monkeypatch.chdir(checkout)
    with (checkout / "work dirs" / "multistream_v9" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        scored = next(row for row in csv.DictReader(file) if row["split"] == "test")
    root = checkout / "data" / "ñandú d'oro"
    with (root / "meta.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, delimiter=";")}
    clip = rows[scored["clip_id"]]
    words = [str(root / "videos" / f"{clip['video']}.mp4"), "--checkpoint", "work dirs/multistream_v9/best.pt"]
    words += ["--start", clip["start"], "--end", clip["end"]]
    code, said, errors = run_command(capsys, "translate", *words, "--json")
    assert code == 0, errors
    (line,) = said.splitlines()
    found = json.loads(line)
    assert found["text"] == scored["hypothesis"]
    assert " ".join(found["glosses"]) == scored["gloss_hypothesis"]


@pytest.mark.parametrize(("name", "content"), [("absent.mp4", None), ("broken.mp4", b"no video")])
def test_a_video_that_cannot_be_read_is_one_line(
    chain: list[str],
    checkout: Path,
    name: str,
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkout)
    if content is not None:
        (checkout / name).write_bytes(content)
    code, _, said = run_command(capsys, "translate", name, "--checkpoint", "work dirs/multistream_v9/best.pt")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1), said
    assert name in errors[0]
