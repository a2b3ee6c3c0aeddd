"""What a run ran on: versions of code and packages, commit, machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "mediapipe", "timm", "transformers", "sacrebleu", "snakemake")


def versions() -> dict[str, str]:
    """Package to version, signstreams and Python first; what is not installed is left out."""
    found = {"signstreams": _version("signstreams"), "python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def commit(file: Path = Path(__file__)) -> str | None:
    """Commit of the code, when it runs from a checkout; None where a package lies in somebody else's."""
    command = ["git", "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"]  # fails where git has no such
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.split()[0] if answer.returncode == 0 else None


def _version(name: str) -> str:
    if name == "signstreams":  # the code that runs, also where another copy is installed
        import signstreams

        return signstreams.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
