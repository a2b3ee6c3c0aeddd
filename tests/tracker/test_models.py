"""The models' files: where they are looked for, how they are fetched, and one line for whatever is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.tracker import models as module
from signstreams.tracker.models import MODELS, fetch_models, missing_models, models_folder, read_model

CONTENTS = {name: f"content of {name}".encode() for name in MODELS}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of some bytes, under the true names."""
    files = {name: file._replace(sha256=hashlib.sha256(CONTENTS[name]).hexdigest()) for name, file in MODELS.items()}
    monkeypatch.setattr(module, "MODELS", files)
    monkeypatch.setattr(module, "_installed", lambda wanted: None)


def write_wheel(path: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(MODELS[name].path, content)
        archive.writestr("mediapipe/__init__.py", "raise SystemExit('never run')")
    return path


@pytest.fixture
def make_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a script in pip's place, which gets the folder as last word; its calls are listed in a file."""

    def make(script: str) -> Path:
        path, calls = tmp_path / "pip", tmp_path / "calls"
        path.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\nfor folder; do :; done\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(module, "_pip", lambda: [str(path)])
        return calls

    return make


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNSTREAMS_MODELS", "/mnt/models")
    assert models_folder() == Path("/mnt/models")
    monkeypatch.delenv("SIGNSTREAMS_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/cache")
    assert models_folder() == Path("/scratch/cache/signstreams/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert models_folder() == Path("/home/ada/.cache/signstreams/models")


@pytest.mark.usefixtures("small")
def test_a_wheel_gives_what_is_missing(tmp_path: Path) -> None:
    wheel, folder = write_wheel(tmp_path / "m.whl"), tmp_path / "deep" / "models"
    assert len(missing_models(folder)) == 7
    written = fetch_models(folder, wheel)
    assert [path.name for path in written] == [file.name for file in MODELS.values()]
    assert all(read_model(name, folder) == content for name, content in CONTENTS.items())
    assert fetch_models(folder, tmp_path / "absent.whl") == []
    (folder / MODELS["hand_recrop"].name).write_bytes(b"cut sho")  # replaced without being asked
    assert fetch_models(folder, wheel) == [folder / MODELS["hand_recrop"].name]
    assert missing_models(folder) == []
    assert {path.name for path in folder.iterdir()} == {".fetching", *(file.name for file in MODELS.values())}


@pytest.mark.usefixtures("small")
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hand_recrop\.tflite: no such file, expected a model .*; run `signstreams"):
        read_model("hand_recrop", tmp_path)
    path = tmp_path / "hand_recrop.tflite"
    path.write_bytes(b"another")
    short = hashlib.sha256(b"another").hexdigest()[:12]
    with pytest.raises(UserError, match=rf"hand_recrop\.tflite: its SHA-256 is {short}, expected"):
        read_model("hand_recrop", tmp_path)
    with pytest.raises(UserError, match="Not a directory, expected a model"):
        read_model("hand_recrop", path)
    with pytest.raises(UserError, match="a file, expected a folder for the models; name another"):
        fetch_models(path, write_wheel(tmp_path / "m.whl"))


@pytest.mark.usefixtures("small")
def test_other_wheels_are_refused_and_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    whole = write_wheel(tmp_path / "m.whl").read_bytes()
    other = write_wheel(tmp_path / "other.whl", CONTENTS | {"face_landmarks": b"newer"})
    without = write_wheel(tmp_path / "without.whl", {"hand_recrop": CONTENTS["hand_recrop"]})
    huge = write_wheel(tmp_path / "huge.whl", CONTENTS | {"pose_detection": bytes(2**24 + 1)})
    (tmp_path / "cut.whl").write_bytes(whole[:-30])
    at = whole.index(MODELS["pose_detection"].name.encode()) + len(MODELS["pose_detection"].name) + 3
    (tmp_path / "bad.whl").write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
    for wheel, named in (
        (other, r"face_landmark\.tflite: SHA-256 [0-9a-f]{12}, expected [0-9a-f]{12}; take the wheel of"),
        (without, r"There is no item named .*, expected the wheel of mediapipe==0\.10\.21"),
        (huge, r"pose_detection\.tflite: far larger than expected"),
        (tmp_path / "cut.whl", r"damaged \(.*\), expected the wheel of"),
        (tmp_path / "bad.whl", r"damaged \(.*\), expected the wheel of"),
        (tmp_path / "absent.whl", r"No such file or directory, expected the wheel of"),
        (tmp_path, r"Is a directory, expected the wheel of"),
    ):
        with pytest.raises(UserError, match=named) as error:
            fetch_models(folder, wheel)
        assert "\n" not in str(error.value)
        assert not list(folder.glob("*.tflite"))


@pytest.mark.usefixtures("small")
def test_pip_downloads_the_wheel(tmp_path: Path, make_pip: Callable[[str], Path]) -> None:
    wheel = write_wheel(tmp_path / "mediapipe-0.10.21-cp312-cp312-manylinux_2_28_x86_64.whl")
    calls = make_pip(f'cp "{wheel}" "$folder"')
    assert len(fetch_models(tmp_path / "models")) == 7
    (words,) = calls.read_text().splitlines()
    assert words.startswith("download mediapipe==0.10.21 --no-deps --only-binary=:all:")
    assert not Path(words.split()[-1]).exists()  # nothing else stays


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo WARNING: Retrying >&2; echo 'ERROR: No matching distribution' >&2; exit 1", "No matching distribution"),
        ("echo '/usr/bin/python3: No module named pip' >&2; exit 1", "/usr/bin/python3: No module named pip"),
        ("exit 3", "exit code 3"),
        ("exit 0", "exit code 0"),
    ],
)
def test_offline_is_one_line(script: str, reason: str, tmp_path: Path, make_pip: Callable[[str], Path]) -> None:
    make_pip(script)
    with pytest.raises(UserError) as error:
        fetch_models(tmp_path / "models")
    assert str(error.value) == (
        f"mediapipe==0.10.21: pip could not download it ({reason}), expected a package registry that has it; try again"
        " with a network, or name its wheel with --wheel"
    )


def test_without_pip_uv_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._pip() == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/opt/{name}")
    assert module._pip() == ["/opt/uv", "tool", "run", "--quiet", "pip"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert module._pip() == [sys.executable, "-m", "pip"]


def test_an_installed_mediapipe_gives_them(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_pip: Callable[[str], Path]
) -> None:
    """One that is never imported; with other models it does not count."""
    package = tmp_path / "site" / "mediapipe"
    for file in MODELS.values():
        (package.parent / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(models / file.name, package.parent / file.path)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    monkeypatch.syspath_prepend(package.parent)
    make_pip("exit 1")
    assert len(fetch_models(tmp_path / "models")) == 7
    assert missing_models(tmp_path / "models") == []
    (package.parent / MODELS["pose_detection"].path).write_bytes(b"newer")
    with pytest.raises(UserError, match="pip could not download"):
        fetch_models(tmp_path / "others")


def test_of_several_processes_one_fetches(tmp_path: Path) -> None:
    code = (
        "import hashlib, sys, time\n"
        "from pathlib import Path\n"
        "from signstreams.tracker import models\n"
        "folder, log = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "hashed = hashlib.sha256(b'model').hexdigest()\n"
        "models.MODELS = {name: file._replace(sha256=hashed) for name, file in models.MODELS.items()}\n"
        "def installed(wanted):\n"
        "    with log.open('a') as file: file.write('fetched\\n')\n"
        "    time.sleep(0.5)\n"
        "    return [b'model'] * len(wanted)\n"
        "models._installed = installed\n"
        "models.fetch_models(folder)\n"
        "assert not models.missing_models(folder)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "models"), str(tmp_path / "log")]
    processes = [subprocess.Popen(words, env=os.environ) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "fetched\n"
