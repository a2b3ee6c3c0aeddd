"""Write environment.yml for conda users: the requirements of pyproject.toml at the versions of requirements.lock.

Run it (or `make lock`) after a change of either; `--check` only says whether the file is in step, as the test does.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from signstreams.generated import write_or_check

PROJECT = Path(__file__).parents[1]
EXTRAS = ("extract", "workflow", "dev")

HEAD = """\
# For conda users: conda env create -f environment.yml && conda activate signstreams && pip install --no-deps -e .
# Written by scripts/export_environment.py from pyproject.toml and requirements.lock; a test keeps it in step.
name: signstreams
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
  - pip:
"""


def environment() -> str:
    """Text of environment.yml as it should be."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(item for extra in EXTRAS for item in project["optional-dependencies"][extra])]
    names = sorted(re.split(r"[<>=!~\[ ;]", requirement, maxsplit=1)[0].lower() for requirement in wanted)
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (PROJECT / "requirements.lock").read_text(), re.MULTILINE))
    return HEAD + "".join(f"      - {name}=={locked[name]}\n" for name in names)


def main() -> None:
    """Write the file, or with ``--check`` leave with code 2 when it is stale."""
    write_or_check(
        {PROJECT / "environment.yml": environment()},
        sys.argv[1:],
        source="requirements.lock",
        script="export_environment.py",
        doc=__doc__ or "",
    )


if __name__ == "__main__":
    main()
