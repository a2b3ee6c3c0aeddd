"""A full or read-only disk under embedding, training and evaluation: one line each, and nothing finished is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.files import sha256_file
from signstreams.integrate.embed import embed
from signstreams.integrate.run import run
from signstreams.integrate.settings import EmbedConfig, IntegrateConfig

Disk = Callable[[int], Path]


def script(project: Path, name: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, project / "scripts" / name, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def config_file(tiny_config: Callable[..., IntegrateConfig], tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: object) -> Path:
        path = tmp_path / "train.json"
        path.write_text(tiny_config(**changes).model_dump_json(exclude_unset=True), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_embedding(
    kind: str, project: Path, processed_corpus: Path, backbone_specs: dict[str, str], small_disk: Disk
) -> None:
    disk = small_disk(100)
    if kind == "read-only":
        remount(disk, "ro")
    words = ["--root", processed_corpus, "--features", disk / "features", "--stream", "points"]
    line = the_error(script(project, "embed_streams.py", *words))
    assert str(disk) in line
    assert ("No space left on device" if kind == "full" else "Read-only file system") in line
    if kind == "full":  # what is there is whole: with room enough it is kept, and the rest is added
        before = {path: path.stat().st_mtime_ns for path in disk.rglob("*.npy")}
        assert before
        remount(disk, "size=20m")
        embed(EmbedConfig(root=processed_corpus, features_dir=disk / "features", stream="points"))
        assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [path for path in disk.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("room_kib", [200, 1000, 1500])
def test_a_training_that_meets_a_full_disk_goes_on_when_there_is_room(
    room_kib: int, project: Path, config_file: Callable[..., Path], small_disk: Disk
) -> None:
    """Wherever it is met: while the texts are prepared, in the first checkpoint, or a later one."""
    disk = small_disk(room_kib)
    config = config_file(output_dir=disk / "run", features_dir=disk.parent / "features", train={"epochs": 3})
    line = the_error(script(project, "train_slt_multistream_v9.py", "--config", config))
    assert str(disk) in line and "No space left on device" in line
    assert not [path for path in disk.rglob("*") if path.name.endswith(".part")]
    remount(disk, "size=50m")
    done = script(project, "train_slt_multistream_v9.py", "--config", config)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (disk / "run" / "best.pt").is_file()


def test_a_training_into_a_read_only_folder(project: Path, config_file: Callable[..., Path], small_disk: Disk) -> None:
    disk = small_disk(100)
    remount(disk, "ro")
    config = config_file(output_dir=disk / "run", features_dir=disk.parent / "features")
    assert "Read-only file system" in the_error(script(project, "train_slt_multistream_v9.py", "--config", config))


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_evaluation(
    kind: str, project: Path, tiny_config: Callable[..., IntegrateConfig], small_disk: Disk, tmp_path: Path
) -> None:
    config = tiny_config(output_dir=tmp_path / "run", features_dir=tmp_path / "features", train={"epochs": 1})
    run(config)
    before = digests(tmp_path / "run")
    disk = small_disk(4)
    words = ["--checkpoint", tmp_path / "run" / "best.pt", "--output-dir", disk / "scores"]
    if kind == "read-only":
        remount(disk, "ro")
    line = the_error(script(project, "evaluate_slt.py", *words))
    assert str(disk) in line
    assert ("No space left on device" if kind == "full" else "Read-only file system") in line
    assert digests(tmp_path / "run") == before
    remount(disk, "rw,size=20m")
    assert script(project, "evaluate_slt.py", *words).returncode == 0
    assert json.loads((disk / "scores" / "scores.json").read_text(encoding="utf-8"))["num_clips"] == 3
