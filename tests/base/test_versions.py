"""What a run says it ran on."""

from __future__ import annotations

import subprocess
from pathlib import Path

from signstreams.engine.experiment import commit, versions


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_and_of_no_repository_around_it(tmp_path: Path) -> None:
    code, installed = tmp_path / "src" / "code.py", tmp_path / ".venv" / "code.py"
    for path in (code, installed):
        path.parent.mkdir()
        path.write_text("x = 1")
    assert commit(code) is None  # no repository
    git(tmp_path, "init", "-q")
    assert commit(code) is None  # none of its commits
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-qm", "code")
    assert commit(code) == git(tmp_path, "rev-parse", "HEAD")
    assert commit(installed) is None


def test_versions_start_with_the_code_and_leave_out_what_is_not_installed() -> None:
    found = versions()
    assert list(found)[:2] == ["signstreams", "python"]
    assert all(found.values())
