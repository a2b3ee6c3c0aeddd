"""The folder of one run: what identifies the experiment in it, whether to resume it, and what the run leaves there.

Snakemake deletes a job's declared outputs before it runs and when it fails. What a run needs to resume is therefore in
``<folder>/state/``, which no rule declares; each artifact there is also a hard link in the folder itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import platform
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from signstreams.config.load import flatten
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.files import digest, link_or_copy, read_json, remove_leftovers, sha256_file, write_json
from signstreams.formats.layout import ARTIFACTS, PREVIOUS, STATE

log = logging.getLogger(__name__)

# -- What a run ran on

PACKAGES = ("torch", "torchvision", "numpy", "mediapipe", "timm", "transformers", "sacrebleu", "snakemake")


def versions() -> dict[str, str]:
    """Package to version, signstreams and Python first; packages that are not installed are left out."""
    import signstreams

    # our own version is that of the code that runs, also where another copy is installed
    found = {"signstreams": signstreams.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def commit(file: Path = Path(__file__)) -> str | None:
    """Commit of the code if it runs from a checkout; None if it is installed in another repository's folder."""
    # fails where git does not track the file
    command = ["git", "-C", str(file.parent), "rev-parse", "HEAD", f"HEAD:./{file.name}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.split()[0] if answer.returncode == 0 else None


# -- The folder

OnConflict = Literal["refuse", "archive"]

FINGERPRINT = "fingerprint.json"
MAX_DIFFERENCES_SHOWN = 6


@dataclass(frozen=True)
class Fingerprint:
    """What makes two runs the same experiment."""

    config: dict[str, Any]  # the settings that alter the result, nested plain values (no paths, no number of workers)
    data: str  # digest of the training data

    @property
    def digest(self) -> str:
        return digest(vars(self))

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


Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""The config of a fingerprint that an earlier version recorded, as this one would have."""


def as_recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The `Upgrade` of a stage whose fingerprints have not changed."""
    return config


class Experiment:
    """A folder claimed for one run; the ``state`` of an equal earlier run stays in it to be resumed.

    ``files`` names all artifacts the run may write. If the folder holds another experiment (or, with ``restart``, an
    equal one), ``archive`` moves that as a whole to ``previous/<short digest>/``, and the log says what differed, where
    it went and which step it had reached. Close this, or leave its ``with`` block, to release the folder for the next
    run.

    Raises:
        UserError: Folder in use or not writable, or another experiment in it and ``on_conflict`` is ``refuse``.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: Fingerprint,
        *,
        files: list[str],
        on_conflict: OnConflict = "refuse",
        restart: bool = False,
        upgrade: Upgrade = as_recorded,
    ) -> None:
        self.folder, self.fingerprint, self.files = Path(folder), fingerprint, files
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder}: is a file, expected a folder for the run; give another --output-dir")
        check_writable(self.folder)
        self._lock = _lock(self.folder)
        try:
            remove_leftovers(self.folder)
            self._settle(on_conflict, restart, upgrade)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> Path:
        """Folder of what a later run needs to resume; no rule declares anything in it."""
        return self.folder / STATE

    def publish(self, name: str) -> Path:
        """Show ``state/<name>`` as ``<folder>/<name>`` too: a hard link, or a copy where the disk has no links."""
        source, target = self.state / name, self.folder / name
        if target.exists() and os.path.samefile(source, target):
            return target
        with tempfile.TemporaryDirectory(prefix=".publish.", dir=self.folder) as aside:
            part = Path(aside) / name
            link_or_copy(source, part)
            part.replace(target)
        return target

    def write_artifacts(self, artifacts: dict[str, Path]) -> None:
        """Write the list of what the run made (kind to file, sha256, bytes); do it last."""
        listed = {}
        for kind, path in artifacts.items():
            shown = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path.resolve()
            listed[kind] = {"file": str(shown), "sha256": sha256_file(path), "bytes": path.stat().st_size}
        write_json(self.folder / ARTIFACTS, listed)

    def close(self) -> None:
        """Let another process claim the folder."""
        self._lock.close()

    def _settle(self, on_conflict: OnConflict, restart: bool, upgrade: Upgrade) -> None:
        recorded = _read_fingerprint(self.state / FINGERPRINT)
        found = None if recorded is None else replace(recorded[0], config=upgrade(recorded[0].config))
        if found is not None and found.digest == self.fingerprint.digest and not restart:
            return
        unknown = [name for name in self.files if (self.folder / name).exists()]
        if found is None and self.state.exists():
            unknown.append(STATE)
        if found is not None or unknown:
            if on_conflict == "refuse":
                raise UserError(self._conflict(found, unknown))
            short = "unknown" if recorded is None else recorded[0].digest[:12]
            said, step = self._difference(found, unknown), self._last_step()
            names = [STATE, *self.files, *([] if recorded is None else recorded[1])]
            target = self._archive(short, names)
            reached = "no step of it was logged" if step is None else f"it was logged up to step {step}"
            log.warning("%s: %s; moved to %s (%s), starting at step 0", self.folder, said, target, reached)
        write_json(self.state / FINGERPRINT, {**vars(self.fingerprint), "files": self.files})

    def _difference(self, found: Fingerprint | None, unknown: list[str], most: int | None = None) -> str:
        """What the folder holds instead of an equal run; at most so many differences, None for all."""
        if found is None:
            return f"found files of an unknown run ({', '.join(unknown)})"
        if differences := self.fingerprint.differences(found):
            more = 0 if most is None else max(0, len(differences) - most)
            shown = "; ".join(differences[:most])
            return f"holds another experiment: {shown}" + (f"; and {more} more" if more else "")
        return "holds the same experiment, which was not to be resumed"

    def _conflict(self, found: Fingerprint | None, unknown: list[str]) -> str:
        what = self._difference(found, unknown, MAX_DIFFERENCES_SHOWN)
        wanted = ", expected an empty folder" if found is None else ""
        return (
            f"{self.folder}: {what}{wanted}; next: give another --output-dir, or --on-conflict archive to move it aside"
        )

    def _last_step(self) -> int | None:
        """The last step in any log of metrics of the run that the folder holds."""
        records = [record for path in self.state.glob("*.jsonl") for record in read_metrics(path)]
        return max((step for record in records if isinstance(step := record.get("step"), int)), default=None)

    def _archive(self, short: str, names: list[str]) -> Path:
        target, number = self.folder / PREVIOUS / short, 1
        while target.exists():
            number += 1
            target = target.with_name(f"{short}-{number}")
        target.mkdir(parents=True)
        for name in dict.fromkeys(names):
            if (self.folder / name).exists():
                (self.folder / name).replace(target / name)
        return target


_HELD: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def _release_in_child() -> None:
    """A forked loader process shares the lock, and would keep it for seconds after this process was killed."""
    for lock in list(_HELD):
        if not lock.closed:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, lock.fileno())  # the parent's lock stays, and the number is not given to another file
            os.close(null)


os.register_at_fork(after_in_child=_release_in_child)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to with a `UserError`, before any work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); give another --output-dir") from None


def _lock(folder: Path) -> IO[bytes]:
    """Hold ``<folder>/.lock``; the kernel releases it however the process ends."""
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
        pass  # a file system without locks: the user must not start two runs in one folder
    return lock


def recorded_fingerprint(folder: str | Path) -> Fingerprint | None:
    """That of the run whose state the folder holds, as it was recorded; None without one.

    Raises:
        UserError: It cannot be opened.
    """
    found = _read_fingerprint(Path(folder) / STATE / FINGERPRINT)
    return None if found is None else found[0]


def _read_fingerprint(path: Path) -> tuple[Fingerprint, list[str]] | None:
    """What was recorded of a run; None where nothing readable was, which is not to be confused with no access to it.

    Raises:
        UserError: It cannot be opened: another user's, or a disk that fails. As an unknown run it would be archived.
    """
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}, expected the record of the run in this folder; make it readable, or give"
            " another --output-dir"
        ) from None
    try:
        return Fingerprint(dict(content["config"]), str(content["data"])), [str(name) for name in content["files"]]
    except (KeyError, TypeError):
        return None


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flatten(tree, {})}


def _shown(flat: dict[str, Any], key: str) -> str:
    if key not in flat:
        return "absent"
    text = repr(flat[key])
    return text if len(text) <= 60 else f"{text[:57]}..."
