"""A Slurm that answers: the machine's own, or a throw-away one that ../shared/tools brings up (root, Debian)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOY = {"SLURM_TOY_NODES": "2", "SLURM_TOY_CPUS": "8", "SLURM_TOY_MEM": "64000", "SLURM_TOY_GPUS": "2"}


def answers() -> bool:
    return shutil.which("sinfo") is not None and subprocess.run(["sinfo", "-h"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def slurm(project: Path) -> Iterator[None]:
    """A cluster with a default partition; taken down again when it was brought up here."""
    if os.environ.get("SLURM_CONF") == os.devnull:  # of tests/conftest.py
        del os.environ["SLURM_CONF"]
    if answers():
        yield
        return
    tools = project.parent / "shared" / "tools"
    if os.geteuid() != 0 or not (tools / "slurm-up.sh").is_file():
        pytest.skip("no Slurm answers here, and none can be brought up (needs root and ../shared/tools/slurm-up.sh)")
    command = ["timeout", "300", "bash", str(tools / "slurm-up.sh")]  # it installs what is missing
    done = subprocess.run(command, env=os.environ | TOY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Slurm cannot be brought up here: {done.stderr.strip()[-300:]}")
    yield
    subprocess.run(["bash", str(tools / "slurm-down.sh")], check=False, timeout=120)
