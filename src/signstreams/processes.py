"""Settings of this process, and pools of worker processes: how Ctrl-C ends them, and what a killed one says."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from types import FrameType, TracebackType
from typing import Any, TypeVar

from signstreams.errors import UserError

# Settings of the process that libraries read when they are loaded, or never by themselves.

# mallopt's numbers in glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT_BYTES = 2**31 - 1  # the largest that mallopt takes
MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def prepare_processor() -> None:
    """Let idle threads leave the cores alone, and keep memory that was freed; called before torch is loaded.

    By itself glibc gives every large tensor back to the system when it is freed, and the next one comes page by page,
    zeroed: a fifth to a third of the time of a training step on a CPU (benchmarks/mska.py). What the user's
    environment says of either holds.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name in os.environ for name in MALLOC_VARIABLES):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library: its own ways
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl and macOS have no such symbol
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


# Processes that work side by side: how Ctrl-C ends them (soon, no file half written), what is said of a killed one.

ResultT = TypeVar("ResultT")


@contextlib.contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """A Ctrl-C in here comes at the end; processes that are started in here get none unless they ask for it."""
    resource_tracker.ensure_running()  # its start, inside, would let Ctrl-C through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class WorkerPool(ProcessPoolExecutor):
    """Fresh processes, not forked ones: threads of MediaPipe, OpenCV and PyAV do not survive a fork.

    Left by Ctrl-C, it ends the tasks under way, which clean up after themselves, and starts no other. Where the system
    kills a process, a `UserError` says so.

    Args:
        num_processes: How many.
        initializer: Called once in each; can be pickled.
    """

    def __init__(self, num_processes: int, initializer: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.num_processes = num_processes
        super().__init__(num_processes, mp_context=context, initializer=_start, initargs=(initializer,))

    def submit(self, fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> Future[ResultT]:
        """As of the base class; a process that is started here gets no Ctrl-C until it knows what to do with it."""
        with ctrl_c_held_back():
            return super().submit(_run, fn, *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            for process in multiprocessing.active_children():  # a terminal has told them; `kill -INT` told one alone
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
        if kind is not None:
            self.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"a worker process was killed, perhaps for want of memory ({self.num_processes} at once); run again"
                " with fewer --jobs: what is done stays as it is"
            ) from None
        return super().__exit__(kind, error, tb)


_is_stopped = False
_is_busy = False


def _start(initializer: Callable[[], None] | None) -> None:
    # before Ctrl-C is let through: it is for the main thread, which works
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _note)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if initializer is not None:
        initializer()


def _end_with_parent() -> None:
    """Or, of a parent that was killed, this process would do what is queued and then wait for more, unseen.

    Not by PR_SET_PDEATHSIG, which comes when the thread that started this process ends.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody reads it


def _note(number: int, frame: FrameType | None) -> None:
    """End the task once; an idle process waits to be dismissed, and a second signal does not disturb the cleaning."""
    global _is_stopped
    if not _is_stopped:
        _is_stopped = True
        if _is_busy:
            raise KeyboardInterrupt


def _run(fn: Callable[..., ResultT], /, *args: Any, **kwargs: Any) -> ResultT:
    global _is_busy
    if _is_stopped:  # handed over before the pool was left
        raise KeyboardInterrupt
    _is_busy = True
    try:
        return fn(*args, **kwargs)
    finally:
        _is_busy = False


def available_cores() -> int:
    """Cores this process may use, shared among the processes that torchrun started on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
