"""The launcher answers with what its processes answered, passes signals on, and leaves none of them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from signstreams.engine.launch import exit_code

SCRIPTS = Path(__file__).parents[2] / "scripts"

WORKER = """
import os, signal, sys, time
from pathlib import Path
from signstreams.engine.launch import die_with_launcher
die_with_launcher()
folder, codes, hold_s = Path(sys.argv[1]), sys.argv[2].split(","), float(sys.argv[3])
rank = os.environ["RANK"]
def leave(number, frame):
    (folder / f"stopped_{rank}").touch()
    raise SystemExit(75)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    signal.signal(signal.SIGHUP, leave)
(folder / f"began_{rank}").write_text(f"{os.environ['WORLD_SIZE']} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
while len(list(folder.glob("began_*"))) < int(os.environ["WORLD_SIZE"]):  # torchrun ends the others with the first
    time.sleep(0.05)
time.sleep(hold_s)
sys.exit(int(codes[int(rank)]))
"""


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Also where the tests themselves run under `nohup`."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, earlier)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("SIGNSTREAMS_GPUS", "0,1")
    monkeypatch.setenv("SIGNSTREAMS_LEASE_FOLDER", str(tmp_path / "leases"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "worker.py").write_text(WORKER)
    return [sys.executable, str(SCRIPTS / "launch.py")]


def run(words: list[str], flags: list[str], tmp_path: Path, *worker: str) -> subprocess.CompletedProcess:
    command = [*words, *flags, "--", str(tmp_path / "worker.py"), str(tmp_path), *worker]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A program of this name that the launcher finds first."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(path)


@pytest.mark.parametrize("code", [0, 2, 75])
def test_two_processes_answer_as_one(words: list[str], tmp_path: Path, code: int) -> None:
    done = run(words, ["--cpu-processes", "2"], tmp_path, f"{code},{code}", "0")
    assert done.returncode == code, done.stderr
    assert done.stderr == ""  # what there is to say the processes say
    assert (tmp_path / "began_1").read_text() == "2 "  # two of them, no GPU to be seen


def test_a_process_a_gpu(words: list[str], tmp_path: Path) -> None:
    assert run(words, ["--gpus", "2"], tmp_path, "0,0", "0").returncode == 0
    assert (tmp_path / "began_0").read_text() == "2 0,1"


def test_more_gpus_than_there_are_is_one_line(words: list[str], tmp_path: Path) -> None:
    done = run(words, ["--gpus", "3"], tmp_path, "0", "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "2 of this machine may be used, expected 3" in done.stderr


def test_several_nodes_without_slurm_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    done = run(words, ["--nodes", "2"], tmp_path, "0", "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "found no Slurm job" in done.stderr


@pytest.mark.parametrize(("cpus", "granted", "expected"), [(["--cpus", "32"], "", 32), ([], "8", 8)])
def test_each_node_gets_the_cores_that_the_job_has_there(
    cpus: list[str], granted: str, expected: int, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, monkeypatch, "srun", 'echo "$@"')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    monkeypatch.delenv("SLURM_STEP_NUM_NODES", raising=False)
    done = run(words, ["--nodes", "2", *cpus], tmp_path, "0", "0")
    assert done.returncode == 0, done.stderr
    assert f"--nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 --cpus-per-task={expected} " in done.stdout


@pytest.mark.parametrize(("node", "requeues"), [("0", True), ("1", False)])
def test_all_nodes_wait_until_slurm_ends_the_requeued_job(
    node: str, requeues: bool, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first puts the job back; one that left earlier would end it as a failure (srun --kill-on-bad-exit)."""
    asked = tmp_path / "asked"
    on_path(tmp_path, monkeypatch, "scontrol", f"echo \"$@\" >> '{asked}'\necho JobState=RUNNING")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NODEID", node)
    command = [*words, "--requeue", "--", str(tmp_path / "worker.py"), str(tmp_path), "75", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        wait_for(tmp_path / "began_0")
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(timeout=3)
        job.send_signal(signal.SIGTERM)  # as Slurm does then
        said = job.communicate(timeout=60)[1]
    assert job.returncode == 75
    assert asked.exists() is requeues
    assert not requeues or asked.read_text().endswith("requeue 7\n")
    assert said == ("saved; Slurm job 7 goes back into the queue\n" if requeues else "")


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_a_signal_that_the_launcher_was_started_to_ignore_does_nothing(
    name: str, words: list[str], tmp_path: Path
) -> None:
    """HUP as under `nohup`, INT as in the background of a shell."""
    ignoring = ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh"]
    command = [*ignoring, *words, "--", str(tmp_path / "worker.py"), str(tmp_path), "0", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        wait_for(tmp_path / "began_0")
        job.send_signal(signal.Signals[f"SIG{name}"])
        said = job.communicate(timeout=60)[1]
    assert (job.returncode, said) == (0, "")
    assert not (tmp_path / "stopped_0").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_processes(number: signal.Signals, code: int, words: list[str], tmp_path: Path) -> None:
    """SIGTERM and SIGHUP ask for another try, Ctrl-C does not."""
    command = [*words, "--cpu-processes", "2", "--", str(tmp_path / "worker.py"), str(tmp_path), "0,0", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as job:
        wait_for(tmp_path / "began_1")
        wait_for(tmp_path / "began_0")
        job.send_signal(number)
        said = job.communicate(timeout=60)[1]
    # on Ctrl-C the processes themselves say how to go on
    assert (job.returncode, said) == (code, "" if code == 130 else f"stopped by {number.name}; run again to go on\n")
    assert (tmp_path / "stopped_0").exists()
    assert (tmp_path / "stopped_1").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_a_killed_launcher_leaves_no_process_behind(words: list[str], tmp_path: Path) -> None:
    command = [*words, "--gpus", "1", "--", str(tmp_path / "worker.py"), str(tmp_path), "0", "60"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
        wait_for(tmp_path / "began_0")
        os.kill(job.pid, signal.SIGKILL)
        wait_for(tmp_path / "stopped_0")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
@pytest.mark.usefixtures("words")
def test_a_killed_torchrun_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "worker.py"), str(tmp_path), "0,0", "60"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as job:
        for rank in "01":
            wait_for(tmp_path / f"began_{rank}")
        os.kill(job.pid, signal.SIGKILL)
        for rank in "01":
            wait_for(tmp_path / f"stopped_{rank}")


def test_a_process_that_was_killed_is_named(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = run(words, [], tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: process 0 was ended by SIGKILL (the system may have run out of memory)"
    )


@pytest.mark.parametrize(
    ("codes", "answer"),
    [
        *[([2, 2], 2), ([75], 75), ([75, -15], 75), ([2, 75], 2), ([130, 75], 130), ([130, 2], 2)],
        *[([1, 2], 1), ([1, 75], 1), ([-9], 1), ([-15], 1), ([], 1)],
    ],
)
def test_codes_of_several_processes_become_one(codes: list[int], answer: int) -> None:
    assert exit_code(codes) == answer
