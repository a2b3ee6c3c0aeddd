"""The wheel that is built from the checkout, installed into an environment: library, pages, types, working commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
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
    """An environment with the wheel, far from any checkout; other packages are those of this environment."""
    folder = wheel.parent / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *options, wheel)
    place = run(folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    # after the installation: pip would take an editable one among them for it
    Path(place, "shared.pth").write_text("".join(f"{path}\n" for path in shared), encoding="utf-8")
    return folder


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; nothing is found through PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def python(installed: Path, *words: str) -> str:
    return run(installed / "bin" / "python", *words, cwd=installed.parent)


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
    listed = run(installed / "bin" / "signstreams", "--help", cwd=installed.parent)
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
        "import os; os.environ['LC_ALL'] = 'es_AR.UTF-8'\n"
        "from signstreams.language import tr\n"
        "assert tr('right hand') == 'mano derecha'\n"
        "assert ss.embed.__module__ == 'signstreams.api'\n"
        "print(len(pages), ss.__file__)"
    )
    number, _, place = python(installed, "-c", code).strip().partition(" ")
    assert int(number) >= 5 and place.startswith(str(installed))


def test_its_commands_extract_a_video_check_it_and_show_what_there_is(
    installed: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """What the extra `extract` promises, in a folder that has nothing but a video."""
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "videos").mkdir()
    shutil.copy(tiny_corpus / "videos" / "demo_000.mp4", tmp_path / "videos")
    program, own = installed / "bin" / "signstreams", ("--root", "mine")
    sizes = ("--fps", "5", "--crop-px", "64", "--tracker-stride", "3")
    assert run(program, "extract", "--videos", "videos", *own, *sizes, cwd=tmp_path).startswith("1 extracted")
    assert "contract: pass" in run(program, "validate", *own, "--videos-dir", "videos", cwd=tmp_path)
    run(program, "overview", *own, "--work-dir", "runs", cwd=tmp_path)
    for made in ("mine/processed/hand_r/demo_000.zip", "mine/contract/report.html", "runs/overview.html"):
        assert (tmp_path / made).stat().st_size > 0
    code = "import signstreams as ss; print(ss.__file__, *ss.read_crops('mine', 'face', 'demo_000').images.shape)"
    place, *shape = run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert place.startswith(str(installed)) and shape[1:] == ["64", "64", "3"]
