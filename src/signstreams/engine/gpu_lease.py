"""GPUs of one machine, leased to jobs: two jobs never get the same one. No torch here.

Each GPU has a lock file that its job holds; the kernel releases it however the job ends, so nothing is left behind to
clean up. All jobs of a machine that use this module share the GPUs, whoever started them: several Snakemake runs, a
command by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from signstreams.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
GPU_LIST = "SIGNSTREAMS_GPUS"
"""Environment: comma-separated devices of this machine, instead of what nvidia-smi lists (tests, other vendors)."""
LEASE_FOLDER = "SIGNSTREAMS_LEASE_FOLDER"
"""Environment: folder of the lock files, on this machine's own disk and the same for all its jobs."""

_POLL_S = 1.0
_REPORT_AGAIN_S = 600.0
_LISTED = re.compile(r"^GPU (\d+): .*\(UUID: (\S+)\)$")


def machine_gpus() -> dict[str, str]:
    """Index of each GPU of this machine to its UUID, which no renumbering changes."""
    listed = os.environ.get(GPU_LIST)
    if listed is not None:
        return {name: name for name in _names(listed)}
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):  # no driver here, or one that hangs
        return {}
    matches = [_LISTED.match(line.rstrip()) for line in found.stdout.splitlines()]
    return {match[1]: match[2] for match in matches if match}


def allowed_gpus() -> dict[str, str]:
    """Devices this process may use, named as in `CUDA_VISIBLE_DEVICES` (all where that is not set), to their UUIDs."""
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return machine_gpus()
    names = _names(visible)
    machine = machine_gpus() if names else {}
    allowed: dict[str, str] = {}
    for name in names:
        uuid = _uuid(name, machine)
        # CUDA stops reading at the first unknown device, which by custom is -1
        if uuid is None or uuid in allowed.values():
            break
        allowed[name] = uuid
    return allowed


def _uuid(name: str, machine: dict[str, str]) -> str | None:
    """UUID of a device named by index, UUID or an unambiguous prefix of one; None: there is no such device."""
    if name in machine:
        return machine[name]
    if name.startswith("GPU-"):
        matches = [uuid for uuid in machine.values() if uuid.startswith(name)]
        if len(matches) == 1:
            return matches[0]
    is_complete = bool(machine) and GPU_LIST not in os.environ  # nvidia-smi's list, but of whole GPUs only
    is_absent = name == "-1" or (is_complete and not name.startswith("MIG-"))
    return None if is_absent else name


@contextlib.contextmanager
def leased(count: int) -> Iterator[list[str]]:
    """Hold ``count`` GPUs that no other job holds, and show this process and its children only these; 0 hides all.

    Waits until enough are free, and takes them all at once, so that two waiting jobs cannot block each other. Yields
    the devices, as set in ``CUDA_VISIBLE_DEVICES``.

    Raises:
        UserError: More than this process may use, or the lock files cannot be made.
    """
    allowed = allowed_gpus()
    if count > len(allowed):
        limit = f" by {VISIBLE}={os.environ[VISIBLE]}" if VISIBLE in os.environ else ""
        raise UserError(
            f"GPUs: {len(allowed)} of this machine may be used{limit}, expected {count}; ask for fewer (pretrain.gpus,"
            " integrate.gpus, or the profile), or for another machine"
        )
    held = _wait_for(count, allowed) if count else {}
    earlier = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(held)
    try:
        yield list(held)
    finally:
        if earlier is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = earlier
        for lock in held.values():
            os.close(lock)


def _wait_for(count: int, allowed: dict[str, str]) -> dict[str, int]:
    """Device to its locked file descriptor."""
    folder = lease_folder()
    report_at_s = 0.0
    while (held := _try(count, allowed, folder)) is None:
        if time.monotonic() >= report_at_s:
            report_at_s = time.monotonic() + _REPORT_AGAIN_S
            print(f"waiting for {count} of {len(allowed)} GPUs that other jobs hold ({folder})", file=sys.stderr)
        time.sleep(_POLL_S)
    return held


def _try(count: int, allowed: dict[str, str], folder: Path) -> dict[str, int] | None:
    """All ``count`` locks or none; one job at a time tries, or two could each take half of what both need."""
    door = _open(folder / "door.lock")
    try:
        fcntl.flock(door, fcntl.LOCK_EX)
        held: dict[str, int] = {}
        for device, uuid in allowed.items():
            lock = _open(folder / (re.sub(r"[^A-Za-z0-9_-]", "_", uuid) + ".lock"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            held[device] = lock
            if len(held) == count:
                return held
        for lock in held.values():
            os.close(lock)
        return None
    finally:
        os.close(door)


def lease_folder() -> Path:
    """Folder of the lock files, made when absent.

    Raises:
        UserError: It cannot be made, or is not a folder.
    """
    given = os.environ.get(LEASE_FOLDER)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / "signstreams_gpus"
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)  # other users' jobs lease the same GPUs
        if not stat.S_ISDIR(folder.lstat().st_mode) and not given:
            raise UserError(f"{folder}: is not a folder, expected one for lock files; remove it, or set {LEASE_FOLDER}")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; set {LEASE_FOLDER} to a folder on this machine's disk") from None
    return folder


def _open(path: Path) -> int:
    """A lock file that any user's job may lock; never through a link, which someone else could have put there."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        return _open_of_others(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; set {LEASE_FOLDER} to a folder on this machine's disk") from None
    with contextlib.suppress(OSError):
        os.fchmod(lock, 0o666)
    return lock


def _open_of_others(path: Path) -> int:
    """A file that another user made under a strict umask: read access is enough to lock it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        raise UserError(
            f"{path.parent}: cannot be written by you, expected a folder for lock files of all users; its owner may"
            f" `chmod 1777` it, or set {LEASE_FOLDER} to another on this machine's disk"
        ) from None


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]
