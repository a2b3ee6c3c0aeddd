"""`make clean-demo` removes what `make demo` made, and nothing that somebody else trained."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

RUNS = {"dino_face": "params.json", "dino_hand_l": "params.json", "multistream_v9": "config.json"}
BESIDE = ("features", "logs", "release")


@pytest.fixture
def folder(tmp_path: Path, project: Path) -> Path:
    """A checkout in which the demo ran."""
    shutil.copy(project / "Makefile", tmp_path)
    (tmp_path / "data" / "demo").mkdir(parents=True)
    for name, file in RUNS.items():
        run = tmp_path / "work_dirs" / name
        run.mkdir(parents=True)
        place = {"root": "data/demo"} if file == "config.json" else {"train_dir": ["data/demo/processed/face"]}
        (run / file).write_text(json.dumps(place))
    for name in BESIDE:
        (tmp_path / "work_dirs" / name).mkdir()
    return tmp_path


def clean(folder: Path) -> tuple[list[str], str]:
    done = subprocess.run(["make", "-s", "clean-demo"], cwd=folder, capture_output=True, text=True, check=True)
    assert not (folder / "data" / "demo").exists()
    return sorted(path.name for path in (folder / "work_dirs").iterdir()), done.stdout


def test_all_of_the_demo_goes(folder: Path) -> None:
    (folder / "work_dirs" / "mine").mkdir()
    left, _ = clean(folder)
    assert left == ["mine"]


@pytest.mark.parametrize("params", ['{"train_dir": ["data/demo2/processed/hand_l"]}', '{"train_dir": ["x"]}', None])
def test_a_run_on_other_videos_stays_with_all_that_may_be_of_it(folder: Path, params: str | None) -> None:
    file = folder / "work_dirs" / "dino_hand_l" / "params.json"
    if params is None:
        file.unlink()
    else:
        file.write_text(params)
    left, said = clean(folder)
    assert left == sorted(["dino_hand_l", *BESIDE])
    assert "kept work_dirs/dino_hand_l: not of the demo corpus" in said
