"""`make` finds a Python or refuses one, installs by uv or pip; `make clean-demo` removes what `make demo` made and
nothing else; SIGTERM ends `make test`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RUNS = {"dino_face": "params.json", "dino_hand_l": "params.json", "g2t": "config.json"}
RUNS["multistream_v9"] = "config.json"
BESIDE = ("features", "logs", "release")


@pytest.fixture(autouse=True)
def not_below_make(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` names itself in the environment; a make below it would print the folder it works in."""
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, project: Path) -> Path:
    """A checkout in which the demo ran."""
    shutil.copy(project / "Makefile", tmp_path)
    (tmp_path / "data" / "demo").mkdir(parents=True)
    for name, file in RUNS.items():
        run = tmp_path / "work_dirs" / name
        run.mkdir(parents=True)
        place = {"root": "data/demo"} if file == "config.json" else {"train_dir": ["data/demo/processed/face"]}
        (run / file).write_text(json.dumps(place))
    for name in BESIDE:
        (tmp_path / "work_dirs" / name).mkdir()
    return tmp_path


def clean(folder: Path) -> tuple[list[str], str]:
    done = subprocess.run(["make", "-s", "clean-demo"], cwd=folder, capture_output=True, text=True, check=True)
    assert not (folder / "data" / "demo").exists()
    return sorted(path.name for path in (folder / "work_dirs").iterdir()), done.stdout


def test_all_of_the_demo_goes(folder: Path) -> None:
    (folder / "work_dirs" / "mine").mkdir()
    left, _ = clean(folder)
    assert left == ["mine"]


@pytest.mark.parametrize("params", ['{"train_dir": ["data/demo2/processed/hand_l"]}', '{"train_dir": ["x"]}', None])
def test_a_run_on_other_videos_stays_with_all_that_may_be_of_it(folder: Path, params: str | None) -> None:
    file = folder / "work_dirs" / "dino_hand_l" / "params.json"
    if params is None:
        file.unlink()
    else:
        file.write_text(params)
    left, said = clean(folder)
    assert left == sorted(["dino_hand_l", *BESIDE])
    assert "kept work_dirs/dino_hand_l: not of the demo corpus" in said


UV = """#!/bin/sh
case "$2" in
    install) [ -z "$OFFLINE" ] && : > "$0.brought" ;;
    find) [ -e "$0.brought" ] && echo /managed/python3.13 ;;
esac
"""


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ({"python3": "3.11", "python3.13": "3.13"}, "python3"),  # what the user's shell means by Python comes first
        ({"python3": "3.10", "python3.12": "3.12", "python3.11": "3.11"}, "python3.12"),
        ({"python3": "3.12 without venv", "python3.11": "3.11"}, "python3.11"),
        ({"python3": "3.14", "python3.13": "3.13"}, "python3.13"),
        ({"python3": "3.14"}, "python3"),
        ({"python3": "3.14", "uv": "offline"}, "python3"),
        ({"python3": "3.14", "uv": ""}, "/managed/python3.13"),
        ({"python3": "3.10", "uv": ""}, "/managed/python3.13"),
        ({"python3": "3.13", "uv": ""}, "python3"),
        ({"python3": "3.15", "python3.13": "broken"}, ""),
        ({"python3": "3.12 without venv", "uv": ""}, "python3"),  # uv makes environments by itself
        ({"uv": "offline"}, ""),
        ({}, ""),
    ],
)
def test_the_python_of_the_environment(
    commands: dict[str, str], expected: str, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(project / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    for name, kind in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(UV if name == "uv" else pretend_python(kind))
        path.chmod(0o755)
    make = shutil.which("make")
    assert make is not None
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("OFFLINE", "1" if commands.get("uv") == "offline" else "")
    monkeypatch.delenv("PYTHON", raising=False)
    done = subprocess.run([make, "-n", ".venv/installed"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == f'python="{expected}"; \\'


def pretend_python(kind: str) -> str:
    """A script that answers as Python of this version does."""
    version, _, without = kind.partition(" without ")
    if version == "broken":
        return "#!/bin/sh\nexit 127\n"
    code = f"import sys; sys.version_info = {(*map(int, version.split('.')), 0)}; "
    code += "sys.modules['ensurepip'] = None; " if without else ""
    return f'#!/bin/sh\nexec {sys.executable} -c "{code}exec(sys.argv[1])" "$2"\n'


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, "no Python 3.11 to 3.14 with venv found, nor uv to bring one"),
        ("absent", "PYTHON={python}: no such program, expected Python 3.11 to 3.14"),
        ("broken", "PYTHON={python}: does not run as Python, expected Python 3.11 to 3.14"),
        ("3.10", "PYTHON={python}: is Python 3.10, expected 3.11 to 3.14"),
        ("3.15", "PYTHON={python}: is Python 3.15, expected 3.11 to 3.14"),
        ("3.12 without venv", "PYTHON={python}: cannot make an environment (it lacks venv or ensurepip"),
    ],
)
def test_a_python_that_will_not_do_is_refused_at_once(
    kind: str | None, expected: str, tmp_path: Path, project: Path
) -> None:
    shutil.copy(project / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    python = tmp_path / "a python"
    if kind not in (None, "absent"):
        python.write_text(pretend_python(str(kind)))
        python.chmod(0o755)
    command = ["make", "-s", ".venv/installed", "UV=", f"PYTHON={'' if kind is None else python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"error: {expected.format(python=python)}")
    assert first.endswith(
        "; or uv, which brings one: https://docs.astral.sh/uv), or name it: make PYTHON=/path/to/python3.13"
    )
    assert (done.returncode, done.stdout, (tmp_path / ".venv").exists()) == (2, "", False)


RECORDING = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
case "$1 $2" in
    "-c "*) echo 3.13 ;;
    "venv "*|"-m venv") mkdir -p .venv/bin && cp python3.13 .venv/bin/python ;;
    "pip install") [ -z "$UV_FAILS" ] || { echo "no route to the index" >&2; exit 1; } ;;
esac
"""


@pytest.mark.parametrize("fails", ["", "1"])
def test_uv_installs_the_lock_where_it_is_there_and_pip_where_it_fails(
    fails: str, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(project / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    for name in ("uv", "python3.13"):
        (tmp_path / name).write_text(RECORDING)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("UV_FAILS", fails)
    command = ["make", "-s", ".venv/installed", f"UV={tmp_path / 'uv'}", "PYTHON=./python3.13"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if " -c " not in line]
    by_uv, by_pip = (
        [line for line in calls if line.startswith(program) and "requirements.lock" in line]
        for program in ("uv", "python ")
    )
    assert len(by_uv) == 1 and len(by_pip) == bool(fails)
    assert all("--no-deps --require-hashes -r requirements.lock" in line for line in by_uv + by_pip)
    assert calls[0] == "uv venv --quiet --clear --seed --python ./python3.13 .venv"
    assert ("uv did not manage (the lines above say why): pip is tried" in done.stderr) == bool(fails)
    assert calls[-1] == "python scripts/fetch_models.py" and (tmp_path / ".venv" / "installed").is_file()


def wait_for(happened: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_make_passes_sigterm_on_to_the_tests(tmp_path: Path, project: Path) -> None:
    shutil.copy(project / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("requirements.lock", "pyproject.toml", ".venv/installed"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\ntrap 'touch stopped; kill $!; exit 143' TERM\nsleep 60 &\ntouch began\nwait\n")
    python.chmod(0o755)
    with subprocess.Popen(["make", "test"], cwd=tmp_path, stderr=subprocess.DEVNULL) as make:
        wait_for((tmp_path / "began").exists)
        make.send_signal(signal.SIGTERM)
        assert make.wait(timeout=30) != 0
    assert (tmp_path / "stopped").exists()


STUBBORN = """
import subprocess, sys
from pathlib import Path

def test_that_starts_a_process_which_ignores_sigterm():
    code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid()); time.sleep(99)"
    with open(Path(__file__).with_suffix(".pid"), "w") as file:
        subprocess.run([sys.executable, "-u", "-c", code], stdout=file, start_new_session=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_tests_that_are_ended_leave_no_process_behind(tmp_path: Path, project: Path, number: signal.Signals) -> None:
    """SIGKILL reaches pytest alone: its workers notice."""
    shutil.copy(project / "tests" / "stopping.py", tmp_path)
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport stopping\n"
        "def pytest_configure(config):\n    stopping.install(config)\n"
    )
    for name in ("a", "b"):
        (tmp_path / f"test_{name}.py").write_text(STUBBORN)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2", "--dist=loadfile"]
    command += ["--import-mode=importlib", f"--basetemp={tmp_path / 'base'}", str(tmp_path)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as run:
        wait_for(lambda: sum(bool(path.read_text()) for path in tmp_path.glob("*.pid")) == 2)
        run.send_signal(number)
        assert run.wait(timeout=30) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(map(is_running, pids)))
