"""A disk that is full or read-only when the report is to be written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize("reason", ["Read-only file system", "No space left on device"])
def test_the_report_finds_no_room(
    reason: str, project: Path, built_corpus: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(20_000)
    root = shutil.copytree(built_corpus, disk / "corpus")
    full = f"size={shutil.disk_usage(disk).used // 1024 + 8}k"
    mode = "ro" if reason.startswith("Read-only") else full
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
    command = [sys.executable, project / "scripts" / "validate_data_contract.py", "--root", root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert reason in line and str(root / "contract") in line
    assert not [path for path in (root / "contract").rglob("*") if path.name.endswith(".part")]
    subprocess.run(["mount", "-o", "remount,rw,size=40m", str(disk)], check=True)
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    assert (root / "contract" / "report.json").is_file()
