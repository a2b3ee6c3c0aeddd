"""Start a training script under torchrun on leased GPUs, and return the exit code of its processes.

torchrun itself exits with 1 whenever a process fails. Here a user's error stays 2 and a run that asks to be tried again
stays 75, also through several processes and nodes; Ctrl-C is passed on and stays 130.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from signstreams.engine.gpu_lease import leased
from signstreams.errors import INTERRUPTED_EXIT_CODE, TRY_AGAIN_EXIT_CODE, USER_ERROR_EXIT_CODE, UserError
from signstreams.ids import printable
from signstreams.processes import available_cores, is_of_torchrun

SHUTDOWN_S = 3600  # torchrun would kill its processes 30 s after SIGTERM; how long they have is up to whoever sent it
REQUEUE_S = 300  # longest wait for Slurm to end a job that it has requeued
LAUNCHED = "SIGNSTREAMS_LAUNCHER"  # environment of the processes: pid of the launcher; they end when it does
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
"""Signals that the launcher passes on to its processes, unless it was started with them ignored."""
_PR_SET_PDEATHSIG = 1


def launch(
    command: list[str],
    *,
    gpus: int,
    nodes: int = 1,
    cpus: int | None = None,
    cpu_processes: int = 1,
    requeues: bool = False,
) -> int:
    """Run ``command`` (a Python script and its arguments) and return its exit code.

    It gets one process for each of ``gpus`` per node, or without GPUs ``cpu_processes``. Several nodes need a Slurm job
    that holds them, with ``cpus`` cores each (None: as its environment says). A run that asks to be tried again inside
    a Slurm job puts that back into the queue if ``requeues``.
    """
    if nodes > 1 and "SLURM_STEP_NUM_NODES" not in os.environ:
        return _srun(nodes, cpus)
    processes = gpus or cpu_processes
    if processes > 1:  # torchrun would give each one thread, with a warning
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    # torchrun never removes what it keeps of the start of each process, and nobody needs it afterwards
    with leased(gpus), tempfile.TemporaryDirectory(prefix="signstreams_torchrun_") as scratch:
        words = [*_meeting_point(nodes), f"--nproc-per-node={processes}", f"--log-dir={scratch}"]
        code = _torchrun([*words, *command])
    if code == TRY_AGAIN_EXIT_CODE and requeues:
        _requeue()
    return code


def die_with_launcher() -> None:
    """In a process of `launch` or torchrun: get SIGTERM when that is killed, instead of running on unnoticed."""
    if not (LAUNCHED in os.environ or is_of_torchrun()) or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if LAUNCHED in os.environ and os.getppid() != int(os.environ[LAUNCHED]):  # it died before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def _requeue() -> None:
    """Requeue this process' Slurm job under its own id, so that those who wait for it keep waiting.

    The first node does so. The others wait for it, since srun ends all nodes with the first that exits.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TRY_AGAIN_EXIT_CODE))  # Slurm's, when the job is put back
    if os.environ.get("SLURM_NODEID", "0") != "0" or _put_back(job):
        time.sleep(REQUEUE_S)  # Slurm ends this process; exiting first would look like a failure of the job


def _put_back(job: str) -> bool:
    """Whether Slurm requeued the job. One that no longer runs was cancelled, or is preempted, which requeues it too."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
    if "JobState=RUNNING" not in shown.stdout:
        return False
    print(f"saved; Slurm job {job} goes back into the queue", file=sys.stderr, flush=True)
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if done.returncode:
        print(
            f"the job cannot be requeued ({printable(done.stderr.strip())}); it ends to be tried again", file=sys.stderr
        )
    return done.returncode == 0


def _srun(nodes: int, cpus: int | None) -> int:
    """Run this very command once on every node of the Slurm job; replaces this process."""
    if shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"{nodes} nodes: found no Slurm job that holds them, expected one; submit with"
            " --workflow-profile workflow/profiles/slurm, or use --nodes 1"
        )
    words = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    # since Slurm 22.05 srun does not inherit it from the job, and one core per task loads data too slowly
    if cores := cpus or os.environ.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={cores}")
    sys.stdout.flush()
    os.execvp("srun", ["srun", *words, sys.executable, *sys.argv])


def _meeting_point(nodes: int) -> list[str]:
    """torchrun's options on where the processes meet: the first host of the job, at a port derived from its id."""
    if nodes == 1:
        return ["--standalone"]
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], capture_output=True, text=True, check=True
    )
    return [
        f"--nnodes={nodes}",
        f"--node-rank={os.environ['SLURM_NODEID']}",
        f"--master-addr={listed.stdout.split()[0]}",
        f"--master-port={20_000 + int(os.environ['SLURM_JOB_ID']) % 20_000}",
    ]


def _torchrun(words: list[str]) -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # their messages appear below, once
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))
    # without this torchrun also handles signals that `nohup` or a shell's background job ignores
    handled = [name for name in PASSED_ON if signal.getsignal(signal.Signals[name]) is not signal.SIG_IGN]
    signals = os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", ",".join(handled))
    os.environ[LAUNCHED] = str(os.getpid())
    try:
        run.run(run.parse_args([f"--signals-to-handle={signals}", *words]))
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            if failure.exitcode not in range(256) and failure.exitcode != -signal.SIGTERM:  # it could not report itself
                name = signal.Signals(-failure.exitcode).name
                hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
                print(f"error: process {rank} was ended by {name}{hint}", file=sys.stderr)
        return exit_code(failure.exitcode for failure in error.failures.values())
    except SignalException as error:  # the processes have saved and ended
        if error.sigval == signal.SIGINT:
            return INTERRUPTED_EXIT_CODE  # they have reported how to go on
        with contextlib.suppress(OSError):  # SIGHUP: the terminal is gone
            print(f"stopped by {error.sigval.name}; run again to go on", file=sys.stderr)
        return TRY_AGAIN_EXIT_CODE
    return 0


def exit_code(codes: Iterable[int]) -> int:
    """One exit code for several failed processes: a bug before a user's error before Ctrl-C before another try.

    This ignores what torchrun does to the others once one has failed: they are ended by SIGTERM, or save and ask to be
    tried again.
    """
    found = {code for code in codes if code not in (0, -signal.SIGTERM)}
    meanings = (USER_ERROR_EXIT_CODE, INTERRUPTED_EXIT_CODE, TRY_AGAIN_EXIT_CODE)
    if not found or found - set(meanings):
        return 1
    return next(meaning for meaning in meanings if meaning in found)
