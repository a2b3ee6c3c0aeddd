"""docs/extending.md: its files and edits fit the library as it is, and the tests in extending/ of its code pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```(python|diff|toml) (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def edited(text: str, edit: str) -> str:
    """The text after an edit: in each part after a `@@`, the lines of - and blank give way to those of + and blank."""
    for part in edit.split("@@\n")[1:]:
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in "- ")
        after = "".join(line[1:] for line in lines if line[0] in "+ ")
        assert text.count(before) == 1, f"expected once, found {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def extended(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library and of what its tests share, with everything on the page done and the tests of that."""
    folder = tmp_path_factory.mktemp("extended") / "checkout"
    folder.mkdir()
    shutil.copy(project / "pyproject.toml", folder)
    shutil.copytree(project / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for path in (project / "tests").rglob("*.py"):
        if path.name.startswith("test_"):
            continue
        target = folder / path.relative_to(project)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copytree(project / "tests/project/extending", folder / "tests", dirs_exist_ok=True)
    if (shared := project.parent / "shared").is_dir():
        (folder.parent / "shared").symlink_to(shared.resolve())
    for kind, name, content in BLOCK.findall((project / "docs" / "extending.md").read_text(encoding="utf-8")):
        path = folder / name
        assert path.exists() == (kind == "diff"), name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edited(path.read_text(encoding="utf-8"), content) if kind == "diff" else content, "utf-8")
    return folder


def test_every_block_of_code_is_tried(project: Path) -> None:
    text = (project / "docs" / "extending.md").read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == len(re.findall(r"^```\w", text, re.MULTILINE)) > 10


def test_the_tests_of_its_code_pass(extended: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = os.environ | {"PYTHONPATH": str(extended / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=extended, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    told = sum(int(number) for number in re.findall(r"(\d+) (?:passed|skipped)", done.stdout))
    assert (
        told == sum(path.read_text(encoding="utf-8").count("\ndef test_") for path in extended.rglob("test_*.py")) > 10
    )


def test_the_code_on_the_page_is_as_tidy_as_ours(extended: Path, project: Path) -> None:
    names = [name for _, name, _ in BLOCK.findall((project / "docs" / "extending.md").read_text(encoding="utf-8"))]
    files = [str(extended / name) for name in names if name.endswith(".py")]
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, *files]
        done = subprocess.run(command, cwd=extended, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
