"""SIGKILL in every stage of the chain, two workflows in one folder, clocks that disagree: what Snakemake leaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from signstreams.files import sha256_file
from signstreams.formats.crops import CropWriter

STAGES = ("demo_video", "extract", "contract", "pretrain", "embed", "train", "evaluate")
CONFIG = """\
corpus: {root: data/tiny, demo_size: tiny}
extract: {set: {crop_px: 48}}
pretrain:
  set:
    epochs: 4
    checkpointing.every_steps: 3
    dataset.batch_size: 16
    dataset.epoch_steps: 6
    model.depth: 1
    augmentation.num_local: 2
integrate:
  set: {train.epochs: 2, train.eval_every_epochs: 1, data.frame_stride: 4}
"""
WORDS = ["--cores", "2", "--configfile", "config/config.yaml", "tiny.yaml", "--rerun-incomplete"]
PRETRAIN = {
    "epochs": 60,
    "device": "cpu",
    "threads": 1,
    "dataset": {"batch_size": 8, "num_workers": 1},
    "model": {"arch": "vit_tiny", "patch_px": 8, "depth": 1},
    "augmentation": {"global_px": 16, "local_px": 8, "num_local": 2},
    "dino": {"num_prototypes": 16, "hidden_dim": 32, "bottleneck_dim": 16},
    "monitor": {"probe_every_steps": 100, "probe_crops": 8, "pictures": False},
    "checkpointing": {"every_steps": 20},
}
# times are in them, and the figures of one machine's clock
CLOCKED = {
    "metrics.jsonl",
    "params.json",
    "artifacts.json",
    "report.json",
    "report.html",
    "overview.html",
    "curves.png",
}


@pytest.fixture
def folder(copy_checkout: Callable[[Path], Path], tmp_path: Path) -> Path:
    checkout = copy_checkout(tmp_path / "killed")
    (checkout / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    return checkout


def start(folder: Path, target: str = "all") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", target, *WORDS],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, target: str = "all") -> str:
    run = start(folder, target)
    output, _ = run.communicate(timeout=900)
    assert run.returncode == 0, output[-5000:]
    return output


def processes_in(folder: Path) -> list[int]:
    """Ids of living processes that work in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_in(folder: Path, rule: str, wait_s: float) -> bool:
    """SIGKILL for Snakemake and all it started, so long after this rule's first job began; False: it ended before."""
    run = start(folder)
    assert run.stdout is not None
    for line in run.stdout:
        if line.strip().endswith(f"rule {rule}:"):
            break
    else:
        assert run.wait() == 0
        return False
    time.sleep(wait_s)
    is_alive = run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    until_s = time.monotonic() + 30
    while left := processes_in(folder):  # those in sessions of their own: their launcher's death ends them
        assert time.monotonic() < until_s, f"still alive: {left}"
        time.sleep(0.1)
    return is_alive


def unlock(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "snakemake", "all", *WORDS, "--unlock"], cwd=folder, check=True, capture_output=True
    )


def artifacts(folder: Path) -> dict[str, str]:
    """Name to digest of all that the chain made, but for what tells times."""
    files = (path for name in ("data", "work_dirs") for path in (folder / name).rglob("*") if path.is_file())
    kept = (
        path
        for path in files
        if path.name not in CLOCKED
        and not {"metadata", "state", "contract", "logs"} & set(path.relative_to(folder).parts)
        and path.name[0] != "."
    )
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in kept}


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_a_kill_in_every_stage_ends_in_the_bytes_of_a_calm_run(
    folder: Path, copy_checkout: Callable[[Path], Path], tmp_path: Path
) -> None:
    calm = copy_checkout(tmp_path / "calm")
    (calm / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    finish(calm)
    choose = random.Random()
    killed = []
    for rule in STAGES:
        if kill_in(folder, rule, choose.uniform(0, 3)):
            killed.append(rule)
        locked = start(folder)
        output, _ = locked.communicate(timeout=300)
        if "--unlock" in output:  # what a killed Snakemake leaves; it says how to go on
            unlock(folder)
    finish(folder)
    assert len(killed) >= 5, killed
    expected, found = artifacts(calm), artifacts(folder)
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == set()
    assert len(expected) > 60
    assert not [path for path in folder.rglob("*.part") if ".snakemake" not in path.parts]


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_kills_all_through_embedding_and_evaluation_end_in_the_bytes_of_a_calm_run(folder: Path) -> None:
    """Their jobs take seconds, which a kill at a random moment seldom meets; features and scores must not be torn."""
    finish(folder)
    expected = artifacts(folder)
    killed = dict.fromkeys(("embed", "evaluate"), 0)
    for rule, made in (
        ("embed", ("features", "multistream_v9/best.pt")),
        ("evaluate", ("multistream_v9/scores.json",)),
    ):
        for name in made:  # Snakemake makes features again only for a training that is to run
            path = folder / "work_dirs" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for wait_s in (0.3, 1.5, 2.5, 3.5, 4.5, 6.0):
            if not kill_in(folder, rule, wait_s):
                break
            killed[rule] += 1
            unlock(folder)
    finish(folder)
    assert min(killed.values()) >= 2, killed
    found = artifacts(folder)
    assert found.keys() == expected.keys()
    assert {name for name in expected if found[name] != expected[name]} == set()


@pytest.mark.faults
def test_one_of_two_processes_that_is_killed_ends_the_run_and_loses_nothing(
    tmp_path: Path, project: Path, picture_archives: Path
) -> None:
    """As by the kernel that is out of memory: the others end in seconds, and the same command goes on."""

    def train(output: Path) -> subprocess.Popen[str]:
        words = ["--train-dir", picture_archives, "--output-dir", output, "--config", tmp_path / "pretrain.json"]
        script = project / "scripts" / "pretrain_dino_hands.py"
        command = [sys.executable, project / "scripts/launch.py", "--cpu-processes", "2", "--", script, *words]
        return subprocess.Popen(
            [*map(str, command), "--distributed"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    (tmp_path / "pretrain.json").write_text(json.dumps(PRETRAIN), encoding="utf-8")
    calm = train(tmp_path / "calm")
    calm.communicate(timeout=300)
    assert calm.returncode == 0
    for rank in (0, 1):
        run = train(tmp_path / "killed")
        state = tmp_path / "killed/state/checkpoint_last.pt"
        before = state.stat().st_mtime_ns if state.exists() else None
        until_s = time.monotonic() + 120
        while (state.stat().st_mtime_ns if state.exists() else None) == before:
            assert run.poll() is None and time.monotonic() < until_s
            time.sleep(0.05)
        workers = [pid for pid in processes_in(tmp_path) if environment_of(pid).get("RANK") == str(rank)]
        os.kill(min(workers), signal.SIGKILL)  # its loader and fork server have the same environment
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 1
        assert (
            said.splitlines()[-1]
            == f"error: process {rank} was ended by SIGKILL (the system may have run out of memory)"
        )
        until_s = time.monotonic() + 30
        while left := processes_in(tmp_path):
            assert time.monotonic() < until_s, f"still alive: {left}"
            time.sleep(0.1)
    rest = train(tmp_path / "killed")
    said, _ = rest.communicate(timeout=300)
    assert rest.returncode == 0, said[-3000:]
    assert sha256_file(tmp_path / "killed/backbone.pt") == sha256_file(tmp_path / "calm/backbone.pt")


def environment_of(pid: int) -> dict[str, str]:
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.fixture
def picture_archives(tmp_path: Path) -> Path:
    """Crops of three videos: noise of its own in each."""
    rng = np.random.default_rng(0)
    for video in range(3):
        with CropWriter(tmp_path / f"hand_r/v{video}.zip", f"v{video}") as writer:
            for frame in range(16):
                image = rng.integers(0, 255, (40, 40, 3), np.uint8)
                writer.add(frame, cv2.imencode(".jpg", image)[1].tobytes())
    return tmp_path / "hand_r"


def write_videos(folder: Path, count: int) -> list[Path]:
    """Short videos in which nobody is found."""
    folder.mkdir()
    paths = [folder / f"video_{index}.mp4" for index in range(count)]
    for path in paths:
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 120))
        for level in range(4):
            video.write(np.full((120, 160, 3), 90 + level, np.uint8))
        video.release()
    return paths


def use_own(checkout: Path, videos: Path) -> None:
    (checkout / "tiny.yaml").write_text(
        f"corpus: {{root: data/own, videos: '{videos}'}}\nextract: {{set: {{crop_px: 32}}}}\n", encoding="utf-8"
    )


def test_a_second_workflow_in_the_folder_is_refused_and_the_first_continues(folder: Path, tmp_path: Path) -> None:
    write_videos(tmp_path / "own", 6)
    use_own(folder, tmp_path / "own")
    first = start(folder, "extract_all")
    assert first.stdout is not None
    for line in first.stdout:
        if line.strip().endswith("rule extract:"):
            break
    second = start(folder, "extract_all")
    output, _ = second.communicate(timeout=120)
    assert second.returncode != 0
    assert "cannot be locked" in output and "Traceback" not in output
    rest, _ = first.communicate(timeout=300)
    assert first.returncode == 0, rest[-3000:]
    written = [json.loads(path.read_text()) for path in (folder / "data/own/processed/metadata").glob("*.json")]
    assert [record["status"] for record in written] == ["ok"] * 6


def test_a_second_workflow_that_was_started_elsewhere_is_refused_and_the_first_continues(
    folder: Path, copy_checkout: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Snakemake's lock is of the folder it is started in; the corpus is the same."""
    write_videos(tmp_path / "own", 6)
    other = copy_checkout(tmp_path / "other")
    for checkout in (folder, other):
        use_own(checkout, tmp_path / "own")
        text = (checkout / "tiny.yaml").read_text(encoding="utf-8")
        (checkout / "tiny.yaml").write_text(text.replace("data/own", str(tmp_path / "corpus")), encoding="utf-8")
    first = start(folder, "extract_all")
    assert first.stdout is not None
    for line in first.stdout:
        if line.strip().endswith("rule extract:"):
            break
    second = start(other, "extract_all")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"error: {tmp_path / 'corpus'}: another Snakemake, started in another folder, works on it" in output
    assert "Traceback" not in output
    rest, _ = first.communicate(timeout=300)
    assert first.returncode == 0, rest[-3000:]
    assert "Nothing to be done" in finish(other, "extract_all"), "nothing holds the folder any more"


def test_videos_of_a_clock_that_is_ahead_are_named(folder: Path, tmp_path: Path) -> None:
    """Snakemake would fail their jobs, once these are done."""
    videos = write_videos(tmp_path / "own", 2)
    use_own(folder, tmp_path / "own")
    ahead_s = time.time() + 3600
    for video in videos:
        os.utime(video, (ahead_s, ahead_s))
    refused = start(folder, "extract_all")
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "video_0.mp4: was changed in the future" in line and "(2 files)" in line and "`touch` it" in line
    for video in videos:
        os.utime(video)
    finish(folder, "extract_all")
    assert "Nothing to be done" in finish(folder, "extract_all")
