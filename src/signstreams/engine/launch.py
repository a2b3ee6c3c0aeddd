"""Start a training script under torchrun on leased GPUs, and answer with what its processes answered.

torchrun itself answers 1 whatever its processes answer. Here a user's error stays 2 and a run that asks for another
try stays 75, also through several processes and several nodes; Ctrl-C is passed on and stays 130.
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
from signstreams.engine.interrupt import TRY_AGAIN_EXIT_CODE
from signstreams.errors import INTERRUPTED_EXIT_CODE, USER_ERROR_EXIT_CODE, UserError
from signstreams.ids import printable
from signstreams.processes import available_cores

SHUTDOWN_S = 3600
"""torchrun would kill its processes 30 s after its own SIGTERM; whoever sent that decides how long they have."""
REQUEUE_S = 300
"""Longest wait for Slurm to end a job that it has put back into the queue."""
LAUNCHED = "SIGNSTREAMS_LAUNCHER"
"""Environment of the processes: pid of the launcher, whose death ends them too."""
PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
"""Signals to the launcher that its processes get too, unless it was started with them ignored."""
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
    """Run ``command`` (a Python script and its words) and return its exit code.

    Args:
        command: Script and arguments.
        gpus: GPUs on each node, a process each; 0: ``cpu_processes`` processes on the CPU.
        nodes: Machines. More than one needs a Slurm job that holds them.
        cpus: Cores that this Slurm job has on each of several nodes; None: as its environment says.
        cpu_processes: Processes without GPUs.
        requeues: Where the run asks for another try inside a Slurm job, put that job back into the queue.
    """
    if nodes > 1 and "SLURM_STEP_NUM_NODES" not in os.environ:
        return _srun(nodes, cpus)
    processes = gpus or cpu_processes
    if processes > 1:  # torchrun would give each a single thread, with a warning
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    # what torchrun keeps of each process' start is of no use afterwards, and it never clears it away
    with leased(gpus), tempfile.TemporaryDirectory(prefix="signstreams_torchrun_") as scratch:
        words = [*_meeting_point(nodes), f"--nproc-per-node={processes}", f"--log-dir={scratch}"]
        code = _torchrun([*words, *command])
    if code == TRY_AGAIN_EXIT_CODE and requeues:
        _requeue()
    return code


def die_with_launcher() -> None:
    """In a process that `launch` started: get SIGTERM when the launcher is killed, in place of living on unseen."""
    if LAUNCHED not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(os.environ[LAUNCHED]):  # it died before the line above
        os.kill(os.getpid(), signal.SIGTERM)


def _requeue() -> None:
    """Put this process' Slurm job back into the queue, under its own id: whoever waits for it goes on waiting.

    The first node does so. The others wait for it, since srun ends all nodes with the first that leaves.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:
        return
    is_first = os.environ.get("SLURM_NODEID", "0") == "0"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TRY_AGAIN_EXIT_CODE))  # Slurm's, when the job is put back
    if not is_first or _put_back(job):
        time.sleep(REQUEUE_S)  # Slurm ends this process; leaving first would look like a failure of the job


def _put_back(job: str) -> bool:
    """Whether Slurm took it. A job no longer running was cancelled, or is being preempted, which puts it back too."""
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
    """This very command once on every node of the Slurm job; replaces this process."""
    if shutil.which("srun") is None or "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"{nodes} nodes: found no Slurm job that holds them, expected one; submit with"
            " --workflow-profile workflow/profiles/slurm, or use --nodes 1"
        )
    words = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    # since Slurm 22.05 srun does not take it from the job, and with one core a task nothing loads fast enough
    if cores := cpus or os.environ.get("SLURM_CPUS_PER_TASK"):
        words.append(f"--cpus-per-task={cores}")
    sys.stdout.flush()
    os.execvp("srun", ["srun", *words, sys.executable, *sys.argv])


def _meeting_point(nodes: int) -> list[str]:
    """torchrun's words on where the processes meet: the first host of the job, at a port of the job's own."""
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
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say is said below, once
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", ",".join(_heeded()))
    os.environ[LAUNCHED] = str(os.getpid())
    signals = os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]
    try:
        run.run(run.parse_args([f"--signals-to-handle={signals}", *words]))
    except ChildFailedError as error:
        failures = dict(sorted(error.failures.items()))
        for rank, failure in failures.items():
            if failure.exitcode not in range(256) and failure.exitcode != -signal.SIGTERM:  # it said nothing itself
                name = signal.Signals(-failure.exitcode).name
                hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
                print(f"error: process {rank} was ended by {name}{hint}", file=sys.stderr)
        return exit_code(failure.exitcode for failure in failures.values())
    except SignalException as error:  # the processes have saved and ended
        if error.sigval == signal.SIGINT:
            return INTERRUPTED_EXIT_CODE  # they have said how to go on
        with contextlib.suppress(OSError):  # SIGHUP: the terminal is gone
            print(f"stopped by {error.sigval.name}; run again to go on", file=sys.stderr)
        return TRY_AGAIN_EXIT_CODE
    return 0


def _heeded() -> list[str]:
    """Signals for torchrun's handlers, which would also heed those that `nohup`, or a shell's background, ignores."""
    return [name for name in PASSED_ON if signal.getsignal(signal.Signals[name]) is not signal.SIG_IGN]


def exit_code(codes: Iterable[int]) -> int:
    """One answer of several failed processes: a bug before a user's error before Ctrl-C before another try.

    So what torchrun does to the others once one has failed says nothing: they are ended by SIGTERM, or save and ask for
    another try.
    """
    told = {code for code in codes if code not in (0, -signal.SIGTERM)}
    meanings = (USER_ERROR_EXIT_CODE, INTERRUPTED_EXIT_CODE, TRY_AGAIN_EXIT_CODE)
    if not told or told - set(meanings):
        return 1
    return next(meaning for meaning in meanings if meaning in told)
