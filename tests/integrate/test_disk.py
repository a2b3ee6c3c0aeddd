"""A full or read-only disk under embedding, training and evaluation: one line each, and nothing finished is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.errors import USER_ERROR_EXIT_CODE, exit_on_user_error
from signstreams.files import sha256_file
from signstreams.integrate.embed import embed
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EmbedConfig, EvaluateSltConfig, IntegrateConfig

Disk = Callable[[int], Path]
TheError = Callable[[Callable[[], object]], str]


@pytest.fixture
def the_error(capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], object]], str]:
    """The one line that a script shows for what it calls."""

    def call(work: Callable[[], object]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left, exit_on_user_error():
            work()
        assert left.value.code == USER_ERROR_EXIT_CODE
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return call


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_embedding(kind: str, the_error: TheError, processed_corpus: Path, small_disk: Disk) -> None:
    disk = small_disk(100)
    if kind == "read-only":
        remount(disk, "ro")
    config = EmbedConfig(root=processed_corpus, features_dir=disk / "features", stream="points")
    line = the_error(lambda: embed(config))
    assert str(disk) in line
    assert ("No space left on device" if kind == "full" else "Read-only file system") in line
    if kind == "full":  # finished arrays are complete: with enough room they are kept, and the rest is added
        before = {path: path.stat().st_mtime_ns for path in disk.rglob("*.npy")}
        assert before
        remount(disk, "size=20m")
        embed(config)
        assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [path for path in disk.rglob("*") if path.name.endswith(".part")]


@pytest.mark.parametrize("room_kib", [200, 1000, 1500])
def test_a_training_that_meets_a_full_disk_continues_when_there_is_room(
    room_kib: int, the_error: TheError, tiny_config: Callable[..., IntegrateConfig], small_disk: Disk
) -> None:
    """Wherever that is: before the first step, in the first checkpoint, or in a later one."""
    disk = small_disk(room_kib)
    config = tiny_config(output_dir=disk / "run", features_dir=disk.parent / "features", train={"epochs": 3})
    line = the_error(lambda: run(config))
    assert str(disk) in line and "No space left on device" in line
    assert not [path for path in disk.rglob("*") if path.name.endswith(".part")]
    remount(disk, "size=50m")
    run(config)
    assert (disk / "run" / "best.pt").is_file()


def test_a_training_into_a_read_only_folder(
    the_error: TheError, tiny_config: Callable[..., IntegrateConfig], small_disk: Disk
) -> None:
    disk = small_disk(100)
    remount(disk, "ro")
    config = tiny_config(output_dir=disk / "run", features_dir=disk.parent / "features")
    assert "Read-only file system" in the_error(lambda: run(config))


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_evaluation(
    kind: str, the_error: TheError, tiny_config: Callable[..., IntegrateConfig], small_disk: Disk, tmp_path: Path
) -> None:
    config = tiny_config(output_dir=tmp_path / "run", features_dir=tmp_path / "features", train={"epochs": 1})
    run(config)
    before = digests(tmp_path / "run")
    disk = small_disk(4)
    given = EvaluateSltConfig(checkpoint=tmp_path / "run" / "best.pt", output_dir=disk / "scores")
    if kind == "read-only":
        remount(disk, "ro")
    line = the_error(lambda: score(given))
    assert str(disk) in line
    assert ("No space left on device" if kind == "full" else "Read-only file system") in line
    assert digests(tmp_path / "run") == before
    remount(disk, "rw,size=20m")
    score(given)
    assert json.loads((disk / "scores" / "scores.json").read_text(encoding="utf-8"))["num_clips"] == 3
