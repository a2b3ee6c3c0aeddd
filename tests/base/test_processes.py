"""Ctrl-C over several processes: each cleans up, none says a word, none of them lives on. One that the system kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from signstreams.errors import UserError
from signstreams.processes import WorkerPool

PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from task import work
from signstreams.errors import exit_on_user_error
from signstreams.processes import WorkerPool
if __name__ == "__main__":
    with exit_on_user_error(), WorkerPool(2) as pool:
        for future in [pool.submit(work, sys.argv[1], number) for number in range(8)]:
            future.result()
"""
TASK = """
import os, time
from pathlib import Path
from signstreams.files import replacing
def work(folder, number):
    with replacing(Path(folder) / f"{number}.bin") as part:
        Path(folder, f"{number}.pid").write_text(str(os.getpid()))
        time.sleep(60)
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "parent.py").write_text(PARENT)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Not gone, nor a zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_behind(tmp_path: Path, number: int) -> None:
    run = start(tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    os.kill(run.pid, number)
    run.communicate(timeout=30)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(map(is_running, pids)), 30)
    assert len(list(tmp_path.glob("*.pid"))) == 2  # no further task began


SERVED = """
import multiprocessing, os, sys, time
from pathlib import Path
from signstreams.processes import end_with_parent

def work(folder):
    end_with_parent()
    (Path(folder) / f"{os.getpid()}.pid").write_text(str(os.getppid()))
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    for _ in range(2):
        context.Process(target=work, args=(sys.argv[1],), daemon=True).start()
    time.sleep(600)
"""


def test_a_killed_trainer_leaves_neither_loaders_nor_their_fork_server(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    run = subprocess.Popen([sys.executable, tmp_path / "served.py", tmp_path], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: sum(bool(path.read_text()) for path in tmp_path.glob("*.pid")) == 2, 30)
    loaders = [int(path.stem) for path in tmp_path.glob("*.pid")]
    server = int((tmp_path / f"{loaders[0]}.pid").read_text())
    assert all(map(is_running, [*loaders, server])) and server != run.pid
    os.kill(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)  # its end closes the pipe, which they have too
    wait_for(lambda: not any(map(is_running, [*loaders, server])), 30)


def test_a_pool_outlives_the_thread_that_started_it() -> None:
    with WorkerPool(1) as pool:
        thread = threading.Thread(target=lambda: pool.submit(abs, -1).result())
        thread.start()
        thread.join()
        time.sleep(0.5)
        assert pool.submit(abs, -2).result() == 2


@pytest.mark.parametrize("to_all", [True, False], ids=["as a terminal sends it", "as kill sends it"])
def test_ctrl_c_ends_the_tasks_and_leaves_nothing_behind(tmp_path: Path, to_all: bool) -> None:
    run = start(tmp_path)
    until = time.monotonic() + 60
    while sum(bool(path.read_text()) for path in tmp_path.glob("*.pid")) < 2:  # named before they are written
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    (os.killpg if to_all else os.kill)(run.pid, signal.SIGINT)
    said = run.communicate(timeout=30)[1]
    assert (run.returncode, said) == (130, "stopped; run again to go on: finished files are kept\n")
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.bin"))
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2  # no further task began
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_ctrl_c_while_the_processes_start_is_one_line(tmp_path: Path) -> None:
    run = start(tmp_path)
    until = time.monotonic() + 60
    while not Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[1:]:  # beside the resource tracker
        assert run.poll() is None and time.monotonic() < until
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert (run.returncode, said) == (130, "stopped; run again to go on: finished files are kept\n")
    assert not list(tmp_path.glob("*.part"))


def test_a_pool_gives_results_and_errors_as_ever() -> None:
    with WorkerPool(1) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(UserError, match=r"2 at once.*fewer --jobs"), WorkerPool(2) as pool:
        pid = pool.submit(os.getpid).result()
        waiting = pool.submit(time.sleep, 60)
        os.kill(pid, signal.SIGKILL)
        waiting.result()


def test_what_has_not_begun_is_dropped() -> None:
    started_s = time.monotonic()
    with pytest.raises(KeyError), WorkerPool(1) as pool:
        for _ in range(100):
            pool.submit(time.sleep, 1)
        raise KeyError
    assert time.monotonic() - started_s < 30
