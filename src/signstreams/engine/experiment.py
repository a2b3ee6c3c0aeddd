"""The folder of one run: whose it is, whether to resume it, what it ran on, and what it holds at the end."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from signstreams.errors import UserError
from signstreams.files import digest, read_json, remove_leftovers, sha256_file, write_json

# What a run ran on: versions of code and packages, commit, machine.

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


# The folder of one run: whose it is, whether to go on with it, and what it holds at the end.
#
# Snakemake deletes a job's declared outputs before it runs and when it fails. What a run needs to go on therefore lives
# in ``<folder>/state/``, which no rule declares; each artifact there is also a hard link in the folder itself.

OnConflict = Literal["refuse", "archive"]

STATE, PREVIOUS = "state", "previous"
FINGERPRINT = "fingerprint.json"
MAX_DIFFERENCES_SHOWN = 6


@dataclass(frozen=True)
class Fingerprint:
    """What makes two runs the same experiment.

    Attributes:
        config: The settings that alter the result, nested plain values (no paths, no number of workers).
        data: Digest of the training data.
    """

    config: dict[str, Any]
    data: str

    @property
    def digest(self) -> str:
        return digest({"config": self.config, "data": self.data})

    def differences(self, other: Fingerprint) -> list[str]:
        """``"optim.lr is 0.001 there, 0.0005 here"`` for each setting in which ``other`` (there) differs."""
        here, there = _flat(self.config), _flat(other.config)
        found = [
            f"{key} is {_shown(there, key)} there, {_shown(here, key)} here"
            for key in sorted({*here, *there})
            if here.get(key, ...) != there.get(key, ...)
        ]
        if self.data != other.data:
            found.append(f"the data differ (digest {other.data[:12]} there, {self.data[:12]} here)")
        return found


class Experiment:
    """A claimed folder; made by `claim`. Close it (or leave its ``with`` block) to let the next run in."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, files: list[str], lock: IO[bytes]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.files = files
        self._lock = lock

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> Path:
        """Folder of what a later run needs to go on; no rule declares anything in it."""
        return self.folder / STATE

    @classmethod
    def claim(
        cls,
        folder: str | Path,
        fingerprint: Fingerprint,
        *,
        files: list[str],
        on_conflict: OnConflict = "refuse",
        restart: bool = False,
    ) -> Experiment:
        """Take a folder for this experiment; what an equal earlier run left in ``state`` stays there to go on with.

        Args:
            folder: Output folder, made when absent.
            fingerprint: Of the run that starts now.
            files: Names of all artifacts the run may write into the folder.
            on_conflict: When the folder holds another experiment: ``refuse``, or ``archive`` it, whole, into
                ``previous/<short digest>/``.
            restart: Do not go on with an equal experiment: treat it as another one.

        Raises:
            UserError: Folder in use, or another experiment in it and ``on_conflict`` is ``refuse``.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file, expected a folder for the run; give another --output-dir")
        lock = _lock(folder)
        try:
            experiment = cls(folder, fingerprint, files, lock)
            remove_leftovers(folder)
            experiment._settle(on_conflict, restart)
        except BaseException:
            lock.close()
            raise
        return experiment

    def publish(self, name: str) -> Path:
        """Show ``state/<name>`` as ``<folder>/<name>`` too: a hard link, or a copy where the disk has no links."""
        source, target = self.state / name, self.folder / name
        if target.exists() and os.path.samefile(source, target):
            return target
        with tempfile.TemporaryDirectory(prefix=".publish.", dir=self.folder) as aside:
            part = Path(aside) / name
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)
            part.replace(target)
        return target

    def write_params(self, params: dict[str, Any], name: str = "params.json") -> None:
        """Write what the run was started with; do it before anything that can fail."""
        write_json(self.folder / name, params)

    def write_artifacts(self, artifacts: dict[str, Path], name: str = "artifacts.json") -> None:
        """Write the list of what the run made (kind to file, sha256, bytes); do it last."""
        listed = {}
        for kind, path in artifacts.items():
            inside = path.is_relative_to(self.folder)
            listed[kind] = {
                "file": str(path.relative_to(self.folder) if inside else path.resolve()),
                "sha256": sha256_file(path),
                "bytes": path.stat().st_size,
            }
        write_json(self.folder / name, listed)

    def close(self) -> None:
        """Let another process claim the folder."""
        self._lock.close()

    def _settle(self, on_conflict: OnConflict, restart: bool) -> None:
        found = _read_fingerprint(self.state / FINGERPRINT)
        if found is not None and found[0].digest == self.fingerprint.digest and not restart:
            return
        strangers = [name for name in self.files if (self.folder / name).exists()]
        if found is None and self.state.exists():
            strangers.append(STATE)
        if found is not None or strangers:
            if on_conflict == "refuse":
                raise UserError(self._conflict(None if found is None else found[0], strangers))
            short = "unknown" if found is None else found[0].digest[:12]
            self._archive(short, [STATE, *self.files, *([] if found is None else found[1])])
        self.state.mkdir(parents=True, exist_ok=True)
        write_json(
            self.state / FINGERPRINT,
            {"config": self.fingerprint.config, "data": self.fingerprint.data, "files": self.files},
        )

    def _conflict(self, found: Fingerprint | None, strangers: list[str]) -> str:
        if found is None:
            what = f"found files of an unknown run ({', '.join(strangers)}), expected an empty folder"
        elif differences := self.fingerprint.differences(found):
            shown = "; ".join(differences[:MAX_DIFFERENCES_SHOWN])
            more = len(differences) - MAX_DIFFERENCES_SHOWN
            what = f"holds another experiment: {shown}" + (f"; and {more} more" if more > 0 else "")
        else:
            what = "holds this very experiment, and it was not to be resumed"
        return f"{self.folder}: {what}; next: give another --output-dir, or --on-conflict archive to move it aside"

    def _archive(self, short: str, names: list[str]) -> None:
        target = self.folder / PREVIOUS / short
        number = 1
        while target.exists():
            number += 1
            target = self.folder / PREVIOUS / f"{short}-{number}"
        target.mkdir(parents=True)
        for name in dict.fromkeys(names):
            if (self.folder / name).exists():
                (self.folder / name).replace(target / name)


_HELD: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked loader process shares the lock, and would keep it for seconds after this process was killed."""
    for lock in list(_HELD):
        if not lock.closed:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, lock.fileno())  # the parent's lock stays, and the number is not given to another file
            os.close(null)


os.register_at_fork(after_in_child=_let_go_in_child)


def _lock(folder: Path) -> IO[bytes]:
    """Hold ``<folder>/.lock``; the kernel lets go of it however the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("ab")
    _HELD.add(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(
            f"{folder}: another process is writing into this folder; wait for it, or give another --output-dir"
        ) from None
    except OSError:
        pass  # a file system without locks: two runs in one folder are the user's to avoid
    return lock


def _read_fingerprint(path: Path) -> tuple[Fingerprint, list[str]] | None:
    try:
        content = read_json(path)
        return Fingerprint(dict(content["config"]), str(content["data"])), [str(name) for name in content["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _shown(flat: dict[str, Any], key: str) -> str:
    if key not in flat:
        return "absent"
    text = repr(flat[key])
    return text if len(text) <= 60 else f"{text[:57]}..."
