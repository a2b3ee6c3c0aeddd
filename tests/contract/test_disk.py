"""A disk that is full or read-only when the report is to be written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.commands import main


@pytest.mark.parametrize("reason", ["Read-only file system", "No space left on device"])
def test_the_report_finds_no_room(
    reason: str, built_corpus: Path, small_disk: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(20_000)
    root = shutil.copytree(built_corpus, disk / "corpus")
    full = f"size={shutil.disk_usage(disk).used // 1024 + 8}k"
    mode = "ro" if reason.startswith("Read-only") else full
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "--root", str(root)])
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert reason in line and str(root / "contract") in line
    assert not [path for path in (root / "contract").rglob("*") if path.name.endswith(".part")]
    subprocess.run(["mount", "-o", "remount,rw,size=40m", str(disk)], check=True)
    main(["validate", "--root", str(root)])
    assert (root / "contract" / "report.json").is_file()
