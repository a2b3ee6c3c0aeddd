"""The wheel that is built from the checkout brings the library, its pages and types, and the commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from signstreams.commands import COMMANDS


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(project / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Its content, as an installation has it, far from any checkout."""
    target = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(installed: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=installed.parent, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_holds_every_file_of_the_library_and_nothing_else(wheel: Path, project: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = project / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "signstreams").rglob("*") if path.is_file()}
    assert names == {name for name in files if "__pycache__" not in name}
    assert {"signstreams/py.typed", "signstreams/pages/base.html", "signstreams/pages/style.css"} <= names


def test_it_names_the_command_and_the_licence(wheel: Path, project: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name
        }
    assert "signstreams = signstreams.commands:main" in texts["entry_points.txt"].splitlines()
    assert texts["licenses/LICENSE"] == (project / "LICENSE").read_text(encoding="utf-8")
    extras = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {f"Provides-Extra: {name}" for name in extras} <= set(texts["METADATA"].splitlines())


def test_its_commands_answer_without_the_checkout(installed: Path) -> None:
    listed = python(installed, "-c", "import signstreams.commands as c; print(c.__file__); c.main(['--help'])")
    assert listed.startswith(str(installed))
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    code = (
        "import contextlib, io\nfrom signstreams.commands import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        try: main([name, '--help'])\n"
        "        except SystemExit as left: assert left.code == 0, name\n"
        "    assert f'signstreams {name}' in text.getvalue(), name\n"
        "print('all')"
    )
    assert python(installed, "-c", code).strip() == "all"


def test_its_pages_and_its_python_api_are_found_without_the_checkout(installed: Path) -> None:
    code = (
        "import signstreams as ss\nfrom pathlib import Path\n"
        "from signstreams.pages.render import _environment\n"
        "pages = [p.name for p in Path(ss.__file__).parent.glob('pages/*.html')]\n"
        "for name in pages: _environment().get_template(name)\n"
        "assert ss.embed.__module__ == 'signstreams.api'\n"
        "print(len(pages), ss.__file__)"
    )
    number, _, place = python(installed, "-c", code).strip().partition(" ")
    assert int(number) >= 5 and place.startswith(str(installed))
