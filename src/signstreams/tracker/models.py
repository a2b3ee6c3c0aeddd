"""The models that find body, hands and face: their files by hash, their places, their download."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from signstreams.errors import UserError
from signstreams.files import write_bytes


class ModelFile(NamedTuple):
    """One of MediaPipe's models. All take square RGB images."""

    path: str  # within the wheel
    sha256: str
    outputs: tuple[str, ...]  # tensors that are used, in the order in which they are given; others are not computed
    low: float  # what black is to the model; white is 1

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.rpartition("/")[2]


_MODULES = "mediapipe/modules"
MODELS = {
    "pose_detection": ModelFile(
        f"{_MODULES}/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ("Identity", "Identity_1"),  # (2254, 12) boxes and points, (2254, 1) scores
        -1.0,
    ),
    "pose_landmarks": ModelFile(
        f"{_MODULES}/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        # (195,) 39 points x, y, z, visibility, presence; (1,) presence of a body; (64, 64, 39) where each point may be
        ("Identity", "Identity_1", "Identity_3"),
        0.0,
    ),
    "palm_detection": ModelFile(
        f"{_MODULES}/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        ("Identity", "Identity_1"),  # (2016, 18), (2016, 1)
        0.0,
    ),
    "hand_landmarks": ModelFile(
        f"{_MODULES}/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ("Identity", "Identity_1", "Identity_2"),  # (63,) 21 points x, y, z; (1,) presence; (1,) handedness
        0.0,
    ),
    "hand_recrop": ModelFile(
        f"{_MODULES}/holistic_landmark/hand_recrop.tflite",
        "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
        ("output_crop",),  # (1, 1, 4)
        0.0,
    ),
    "face_detection": ModelFile(
        f"{_MODULES}/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
        ("Identity", "Identity_1"),  # (2304, 16), (2304, 1)
        -1.0,
    ),
    "face_landmarks": ModelFile(
        f"{_MODULES}/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ("conv2d_21", "conv2d_31"),  # (1, 1, 1404) 468 points x, y, z; (1, 1, 1) presence
        0.0,
    ),
}


# -- Where they are

WHEEL = "mediapipe==0.10.21"  # the last release that carries the models; it is unpacked here, never installed
_PLATFORM = ("manylinux_2_28_x86_64", "3.12")  # of the wheel; the models are the same in all of them
_MOST_BYTES = 2**24  # of one of them; the largest has 6 MB
FOLDER_VARIABLE = "SIGNSTREAMS_MODELS"
GET_THEM = "run `signstreams models` where the package registry can be reached"


def models_folder() -> Path:
    """Where the models are kept: `FOLDER_VARIABLE` of the environment, or the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "signstreams" / "models"


def read_model(name: str, folder: Path | None = None) -> bytes:
    """Content of a model's file.

    Raises:
        UserError: It is absent, or another file than the one of this name.
    """
    file = MODELS[name]
    path = (folder or models_folder()) / file.name
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{path}: {reason}, expected a model of the tracker; {GET_THEM}, or name its folder") from None
    if not _is_content(file, content):
        found = f"its SHA-256 is {_short_hash(content)}, expected {file.sha256[:12]}"
        raise UserError(f"{path}: {found}; remove it and {GET_THEM}")
    return content


def missing_models(folder: Path | None = None) -> list[str]:
    """One line per model that cannot be used."""
    problems = []
    for name in MODELS:
        try:
            read_model(name, folder)
        except UserError as error:
            problems += error.problems
    return problems


# -- Getting them


def fetch_models(folder: Path | None = None, wheel: Path | None = None) -> list[Path]:
    """Put the models into a folder; the files that were written. Files that are there already stay.

    They come out of a ``wheel``, else of an installed MediaPipe that has the same ones, else of the wheel that pip
    downloads: it knows the user's registry, proxies and certificates. Of several processes one fetches, and the others
    wait for it.

    Raises:
        UserError: The registry cannot be reached, or what came is another wheel.
    """
    target = folder or models_folder()
    if not _missing(target):
        return []
    with _only_one(target):
        wanted = _missing(target)
        if not wanted:  # another process fetched them
            return []
        contents = _installed(wanted) if wheel is None else None
        if contents is None:
            with tempfile.TemporaryDirectory(prefix="signstreams_models_") as scratch:
                contents = _unpacked(wheel or _downloaded(Path(scratch)), wanted)
        for file, content in zip(wanted, contents, strict=True):
            write_bytes(target / file.name, content)
    return [target / file.name for file in wanted]


def _missing(folder: Path) -> list[ModelFile]:
    missing = []
    for name, file in MODELS.items():
        try:
            read_model(name, folder)
        except UserError:
            missing.append(file)
    return missing


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block; where the disk knows no locks, each fetches for itself."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{error.filename}: a file, expected a folder for the models; name another one") from None
    with (folder / ".fetching").open("wb") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _installed(wanted: list[ModelFile]) -> list[bytes] | None:
    """Content of the files within an installed MediaPipe, which is not imported; None if there is none like it."""
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        return None
    try:
        contents = [(Path(spec.origin).parents[1] / file.path).read_bytes() for file in wanted]
    except OSError:  # a release without models
        return None
    return contents if all(map(_is_content, wanted, contents)) else None


def _unpacked(wheel: Path, wanted: list[ModelFile]) -> list[bytes]:
    """Content of the files within a wheel."""
    contents = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in wanted:
                if archive.getinfo(file.path).file_size > _MOST_BYTES:
                    raise UserError(_other_model(wheel, file))
                contents.append(archive.read(file.path))
                if not _is_content(file, contents[-1]):
                    raise UserError(_other_model(wheel, file, contents[-1]))
    except OSError as error:
        raise UserError(f"{wheel}: {error.strerror or error}, expected the wheel of {WHEEL}; take that") from None
    except KeyError as error:
        raise UserError(f"{wheel}: {error.args[0]}, expected the wheel of {WHEEL}; take that") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{wheel}: damaged ({error}), expected the wheel of {WHEEL}; get it again") from None
    return contents


def _other_model(wheel: Path, file: ModelFile, content: bytes = b"") -> str:
    found = f"SHA-256 {_short_hash(content)}, expected {file.sha256[:12]}" if content else "far larger than expected"
    return f"{wheel}: {file.path}: {found}; take the wheel of {WHEEL}"


def _is_content(file: ModelFile, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == file.sha256


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _downloaded(folder: Path) -> Path:
    platform, python = _PLATFORM
    words = [*_pip(), "download", WHEEL, "--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    words += ["--platform", platform, "--python-version", python, "--dest", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("ERROR: ") or "No module named" in line] or lines
        reason = said[-1].removeprefix("ERROR: ").strip() if said else f"exit code {done.returncode}"
        raise UserError(
            f"{WHEEL}: pip could not download it ({reason}), expected a package registry that has it; try again with a"
            " network, or name its wheel with --wheel"
        )
    return wheels[0]


def _pip() -> list[str]:
    """The words that start pip. An environment that uv made has none, but uv can run it."""
    uv = shutil.which("uv") if importlib.util.find_spec("pip") is None else None
    return [uv, "tool", "run", "--quiet", "pip"] if uv else [sys.executable, "-m", "pip"]
