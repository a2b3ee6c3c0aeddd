"""A copy of the checkout whose path is as awkward as paths get, and a call of Snakemake in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Snakemake = Callable[..., subprocess.CompletedProcess[str]]

AWKWARD = 'señas d\'ayer "hoy" $(touch pwned)'


@pytest.fixture(scope="session")
def checkout(copy_checkout: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow's files in a folder of their own, with spaces, quotes, accents and a command in its name."""
    return copy_checkout(tmp_path_factory.mktemp("workflow") / AWKWARD)


@pytest.fixture(scope="session")
def snakemake(checkout: Path) -> Snakemake:
    """Call Snakemake in the checkout; extra environment variables as keywords."""

    def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *words]
        return subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, env={**os.environ, **environment}, timeout=900
        )

    return call
