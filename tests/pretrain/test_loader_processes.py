"""Loader processes: little shared memory, an end of the training that nobody announced, what fails inside them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signstreams.errors import UserError
from signstreams.pretrain import resource_estimates as room
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

Make = Callable[..., PretrainConfig]
BATCH = 8 * (3 * (2 * 16**2 + 2 * 8**2) + 4 * room.PARAMS * 4)  # bytes of the tiny run's


@pytest.mark.parametrize(
    ("workers", "fits", "expected"),
    [
        (2, 6, (2, 2)),
        (2, 5, (2, 1)),
        (2, 4, (2, 1)),
        (2, 3, (1, 1)),
        (2, 2, "2 loader processes need"),
        (8, 9, (7, 1)),
        (0, 0, (0, 2)),
        (None, 2, (0, 1)),
        (None, 6, (3, 1)),
    ],
)
def test_as_many_batches_are_in_flight_as_shared_memory_holds(
    make: Make,
    workers: int | None,
    fits: int,
    expected: tuple[int, int] | str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(room, "free_shared_memory", lambda: fits * BATCH + BATCH // 2)
    monkeypatch.setattr(room, "available_cores", lambda: 4)
    config = make(dataset={"num_workers": workers})
    if isinstance(expected, str):
        with pytest.raises(UserError, match=rf"^/dev/shm: .*{expected}.*--dataset-num-workers 0.*--shm-size"):
            room.plan_loading(config)
        return
    with caplog.at_level(logging.WARNING):
        assert room.plan_loading(config) == expected
    is_short = bool(workers or workers is None) and expected != (workers, room.PREFETCHED)
    assert ("/dev/shm: " in caplog.text) == is_short


def test_the_processes_of_a_machine_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = room.free_shared_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    shared = room.free_shared_memory()
    assert alone and shared and shared < alone / 2
    monkeypatch.setattr(room, "SHARED_MEMORY", Path("/no/such/place"))
    assert room.free_shared_memory() is None


UNPLANNED = """
import sys
from pathlib import Path
from signstreams.errors import exit_on_user_error
from signstreams.pretrain import resource_estimates
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig
if __name__ == "__main__":
    resource_estimates.free_shared_memory = lambda: None  # as if others took it after the start
    with exit_on_user_error():
        pretrain(PretrainConfig.model_validate_json(Path(sys.argv[1]).read_text()), "hand_r")
"""


def small_shared_memory(size: str, command: list[str]) -> list[str]:
    """``command`` where /dev/shm has this size; the test is skipped where mounts are not allowed."""
    namespaces = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*namespaces, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small /dev/shm")
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    return [*namespaces, "sh", "-c", script, "sh", *command]


@pytest.mark.parametrize("size", ["4k", "96k"])
def test_a_batch_that_does_not_fit_ends_the_run_in_one_line(make: Make, tmp_path: Path, size: str) -> None:
    """Not even a lock fits, or a few batches: PyTorch would lose one in a thread, and the training wait forever."""
    (tmp_path / "unplanned.py").write_text(UNPLANNED)
    (tmp_path / "run.json").write_text(make(dataset={"num_workers": 2}).model_dump_json(exclude_none=True))
    command = [sys.executable, str(tmp_path / "unplanned.py"), str(tmp_path / "run.json")]
    done = subprocess.run(small_shared_memory(size, command), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: /dev/shm: ") and "--dataset-num-workers" in line and "No space left" in line
    assert "Caught" not in done.stderr


def test_a_damaged_crop_is_named_in_one_line_with_loader_processes(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "hand_r"
    shutil.copytree(make().train_dir[0], folder)
    config = make(train_dir=[str(folder)], dataset={"num_workers": 2}, monitor={"probe_crops": 8})
    damaged = next(folder.glob("*.zip"))
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    with pytest.raises(UserError) as caught:
        pretrain(config, "hand_r")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{damaged}, frame ") and "\n" not in caught.value.problems[0]


def descendants(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
    found, left = set(), {pid}
    while left:
        left = {child for child, parent in parents if parent in left}
        found |= left
    return found


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize(("launcher", "flags"), [([], []), (TORCHRUN, ["--distributed"])], ids=["alone", "torchrun"])
def test_they_and_their_fork_server_end_with_a_killed_training(
    make: Make, project: Path, launcher: list[str], flags: list[str]
) -> None:
    """Of torchrun, its trainers end as well; they learn of it by a signal, and may still write a checkpoint."""
    num_trainers = 2 if launcher else 0
    config = make(dataset={"num_workers": 2}, epochs=4000, checkpointing={"every_steps": 2})
    settings = Path(f"{config.output_dir}.json")
    settings.write_text(config.model_dump_json(exclude_none=True, exclude_defaults=True))
    script = project / "scripts" / "pretrain_dino_hands.py"
    command = [sys.executable, *launcher, str(script), "--config", str(settings), *flags]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        until_s = time.monotonic() + 60
        while not (config.output_dir / "state" / "checkpoint_last.pt").exists():
            assert run.poll() is None and time.monotonic() < until_s
            time.sleep(0.05)
        helpers = descendants(run.pid)
        assert len(helpers) >= num_trainers + 4 * max(1, num_trainers)  # fork server, its tracker, two loaders each
    finally:
        run.kill()
        run.wait(timeout=30)
    until_s = time.monotonic() + 60
    while left := [pid for pid in helpers if is_alive(pid)]:
        assert time.monotonic() < until_s, f"still alive: {left}"
        time.sleep(0.05)


def test_what_cannot_be_handed_over_ends_its_loader_instead_of_being_lost(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, Dataset\n"
        "from signstreams.pretrain.data import _start_loader, _unchanged\n"
        "class Unsendable(Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i): return lambda: i\n"
        "if __name__ == '__main__':\n"
        "    options = {'num_workers': 1, 'multiprocessing_context': 'forkserver', 'collate_fn': _unchanged}\n"
        "    print(list(DataLoader(Unsendable(), worker_init_fn=_start_loader, **options)))\n"
    )
    done: Any = subprocess.run([sys.executable, str(tmp_path / "lost.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Unsendable.__getitem__.<locals>.<lambda>" in done.stderr  # how it is said depends on the Python
    assert "DataLoader worker" in done.stderr and "exited unexpectedly" in done.stderr
