"""This process and others: limits and environment, signals that stop a run, pools of workers that Ctrl-C ends."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, TypeVar

from signstreams.errors import INTERRUPTED_EXIT_CODE, TRY_AGAIN_EXIT_CODE, UserError, print_problems

# mallopt's numbers in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT_BYTES = 2**31 - 1  # the largest that mallopt takes
MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def prepare_processor() -> None:
    """Make idle OpenMP threads sleep, and keep freed memory in the process; call it before torch is imported.

    By default glibc returns every large freed tensor to the system, and the next one arrives page by page, zeroed: a
    fifth to a third of a training step on a CPU (benchmarks/mska.py). Environment variables of the user win.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name in os.environ for name in MALLOC_VARIABLES):
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc: keep its defaults
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl and macOS have no such symbol
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


MAX_KEPT_OPEN = 256  # files that a reader keeps open; more would save it next to nothing
WANTED_OPEN_FILES = 65_536  # far above what any command needs; a limit in the billions would slow fork and exec down


def raise_open_file_limit() -> None:
    """Raise this process's limit on open files as far as it may: shells and services start with 1,024 or less."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # macOS refuses what its kernel does not allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def files_to_keep_open(num_readers: int = 1) -> int:
    """Files that each of several readers may keep open: a share of half of the limit, at most `MAX_KEPT_OPEN`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = MAX_KEPT_OPEN * num_readers if soft == resource.RLIM_INFINITY else soft // 2
    return max(1, min(MAX_KEPT_OPEN, half // num_readers))


ResultT = TypeVar("ResultT")


@contextlib.contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; processes started inside ignore it until they unblock it."""
    resource_tracker.ensure_running()  # starting it inside the block would unblock Ctrl-C
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes, not forked ones: threads of MediaPipe, OpenCV and PyAV do not survive a fork.

    Ctrl-C ends the running tasks, which clean up after themselves, and starts no others. If the system kills a
    process, a `UserError` says so. ``initializer``, which can be pickled, is called once in each.
    """

    def __init__(self, num_processes: int, initializer: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.num_processes = num_processes
        super().__init__(num_processes, mp_context=context, initializer=_start, initargs=(initializer,))

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """Like the base class; a process that is started here gets no Ctrl-C before it can handle it."""
        with ctrl_c_held_back():
            return super().submit(_run, fn, *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            for process in multiprocessing.active_children():  # a terminal signals all; `kill -INT` one
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
        if kind is not None:
            self.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"a worker process was killed, perhaps for lack of memory ({self.num_processes} at once); run again"
                " with fewer --jobs: finished work stays as it is"
            ) from None
        return super().__exit__(kind, error, tb)


_is_stopped = False
_is_busy = False


def _start(initializer: Callable[[], None] | None) -> None:
    end_with_parent()  # before Ctrl-C is unblocked: the main thread, which works, is to get it
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if initializer is not None:
        initializer()


def end_with_parent() -> None:
    """In a process that `multiprocessing` started: end it when its parent ends, however that does.

    A worker of a killed parent would wait forever, unseen, and with it the fork server that both have. PyTorch's own
    loaders look at the process that forked them, which is that server. PR_SET_PDEATHSIG does not do: its signal comes
    when the thread that started this process ends, or, of a fork server, never.
    """
    threading.Thread(target=_end_after_parent, name="end with parent", daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _note(number: int, frame: FrameType | None) -> None:
    """End the task once; an idle process waits for shutdown, and a second signal does not disturb the clean-up."""
    global _is_stopped
    if not _is_stopped:
        _is_stopped = True
        if _is_busy:
            raise KeyboardInterrupt


def _run(fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> ResultT:
    global _is_busy
    if _is_stopped:  # a task that was queued before the pool shut down
        raise KeyboardInterrupt
    _is_busy = True
    try:
        return fn(*args, **kwargs)
    finally:
        _is_busy = False


class QuietStderr:
    """Holds back what native code (LiteRT, MediaPipe, absl) writes to stderr within the block.

    Shown are lines that begin with ERROR, and all of them when the block fails. Cheap enough for every frame (0.01 ms).
    Not reentrant.
    """

    def __init__(self) -> None:
        self._held = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`

    def __enter__(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()
        self._held.seek(0)
        self._held.truncate()
        try:
            self._kept = os.dup(2)
        except OSError:  # closed: nobody would see anything
            self._kept = -1
            return
        os.dup2(self._held.fileno(), 2)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._kept < 0:
            return
        os.dup2(self._kept, 2)
        os.close(self._kept)
        if not self._held.seek(0, os.SEEK_END):
            return
        self._held.seek(0)
        failed = kind is not None and issubclass(kind, Exception)  # Ctrl-C is no failure
        shown = [line for line in self._held if failed or line.startswith(b"ERROR")]
        with contextlib.suppress(OSError):
            os.write(2, b"".join(shown))

    def close(self) -> None:
        """Free the file."""
        self._held.close()


def available_cores() -> int:
    """Cores this process may use, shared among the processes that torchrun started on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, number_of_environment("LOCAL_WORLD_SIZE", 1)))


# -- What a launcher says in the environment

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Which of how many processes this one is, as torchrun and other launchers say it."""
MEETING_POINT = ("MASTER_ADDR", "MASTER_PORT")  # where they meet


def number_of_environment(name: str, default: int) -> int:
    """A whole number of the environment; ``default`` where the variable is unset or empty.

    Raises:
        UserError: It is no whole number.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{name}: found '{text}' in the environment, expected a whole number; correct or unset it")
    return int(text)


def is_of_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def ignore_stray_ranks(*, distributed: bool) -> None:
    """Drop what the environment says of ranks where no launcher started this process, and name it in a warning.

    A shell inside an allocation, or an earlier experiment in the same one, leaves such variables behind; following them
    would mean to wait for processes that do not exist.
    """
    if distributed or is_of_torchrun() or not any(name in os.environ for name in RANK_VARIABLES):
        return
    found = {name: os.environ.pop(name) for name in (*RANK_VARIABLES, *MEETING_POINT) if name in os.environ}
    named = ", ".join(f"{name}={value}" for name, value in found.items())
    print_problems(
        [f"{named} in the environment: ignored, this process runs alone; with a launcher, add --distributed"],
        kind="warning",
    )


# -- Signals that ask a run to save and stop: preemption and hang-up, to be tried again; Ctrl-C, which is final

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class StopRequest:
    """Whether the run was asked to stop; read it between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """Exit code of the run: after Ctrl-C nobody wants it to be started again."""
        return INTERRUPTED_EXIT_CODE if self.signal == signal.SIGINT else TRY_AGAIN_EXIT_CODE


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Note SIGTERM, SIGUSR1, SIGHUP and Ctrl-C instead of dying; the earlier handlers are restored at the end.

    A signal that was ignored at the start stays ignored. A second Ctrl-C is a `KeyboardInterrupt`, as usual.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if request.signal == signal.SIGINT:
                raise KeyboardInterrupt
            if os.environ.get("RANK", "0") == "0":  # not print: the signal may have come in the middle of one
                os.write(2, b"\nstopping as soon as this step is saved; Ctrl-C once more ends at once\n")
        request.signal = number

    # a job in the background of a shell ignores Ctrl-C, one under `nohup` SIGHUP
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, note) for number in handled}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
