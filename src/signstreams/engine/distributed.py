"""Processes of one run: started by torchrun, or a single one without it. gloo on CPU, nccl on GPU."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from signstreams.engine.device import use_tensor_cores
from signstreams.engine.launch import die_with_launcher
from signstreams.errors import UserError
from signstreams.processes import ignore_stray_ranks, number_of_environment

log = logging.getLogger(__name__)

ValueT = TypeVar("ValueT")

TIMEOUT = datetime.timedelta(minutes=30)  # longest wait for another process
WAIT_UNSAID_S = 5.0  # a wait that is longer is said; on a slow disk the imports of two processes differ by some seconds
ASK_S = 5.0  # longest wait for an answer to `is_first_to_report`


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int  # 0 to ``size`` - 1; rank 0 writes files and reports
    size: int  # number of processes
    device: torch.device  # where this process computes

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start(*, distributed: bool = False, device: str = "auto") -> World:
    """Join the process group that a launcher announces in the environment; without one, this process is alone.

    What the environment says counts if torchrun started this process, or ``distributed`` is set. ``device`` is ``cpu``,
    ``cuda``, or ``auto``: a GPU when there is one.

    Raises:
        UserError: ``distributed`` without a launcher, ``cuda`` without a GPU, an environment that makes no sense, or
            other processes that cannot be reached.
    """
    die_with_launcher()
    ignore_stray_ranks(distributed=distributed)
    if distributed and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "--distributed: found no launcher, expected torchrun; start with `torchrun --standalone"
            " --nproc-per-node=N <script> ...`, or leave --distributed out"
        )
    rank, size, local_rank = _announced()
    use_gpu = torch.cuda.is_available() and device != "cpu"
    if device == "cuda" and not use_gpu:
        raise UserError("device 'cuda': PyTorch finds no GPU here, expected at least one; use --device auto or cpu")
    place = torch.device("cpu")
    if use_gpu:
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"rank {local_rank} of this machine has no GPU: {torch.cuda.device_count()} visible;"
                " start at most one process for each (torchrun --nproc-per-node)"
            )
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
    use_tensor_cores(place)
    if size > 1:
        _join("nccl" if use_gpu else "gloo", rank, size)
    return World(rank if size > 1 else 0, size, place)


def _announced() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, as the environment says; a `UserError` has all its faults.

    Of several processes the meeting point is checked as well.
    """
    found, problems = {}, []
    for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("MASTER_PORT", 0)):
        try:
            found[name] = number_of_environment(name, default)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    size = found["WORLD_SIZE"]
    if size > 1:
        if "RANK" not in os.environ or found["RANK"] >= size:
            problems.append(
                f"RANK: found {os.environ.get('RANK', 'none')} in the environment, expected 0 to {size - 1} as"
                f" WORLD_SIZE is {size}; start with torchrun, or unset both"
            )
        if not os.environ.get("MASTER_ADDR"):
            problems.append("MASTER_ADDR: found none in the environment, expected a host; start with torchrun")
        if not 0 < found["MASTER_PORT"] < 2**16:
            problems.append(
                f"MASTER_PORT: found {os.environ.get('MASTER_PORT', 'none')} in the environment, expected 1 to 65535;"
                " start with torchrun"
            )
    if problems:
        raise UserError(problems)
    return found["RANK"], size, found["LOCAL_RANK"]


def _meeting_point() -> tuple[str, int]:
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def _join(backend: str, rank: int, size: int) -> None:
    """Meet the other processes at the address of the environment.

    torchrun may serve all its attempts from one store (torch 2.15), in which a restarted process would find the
    addresses of the dead ones, and wait or fail; each attempt therefore has its own keys.
    """
    host, port = _meeting_point()
    text = f"rank {rank}: waiting for {size} processes at {host}:{port}"
    try:
        with _said_if_long(text):
            store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        store.set_timeout(TIMEOUT)
        store = dist.PrefixStore(f"signstreams/attempt_{_attempt()}", store)
        # whoever reached the store has met rank 0, which alone says that others are missing
        with _said_if_long(text) if rank == 0 else contextlib.nullcontext():
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (ValueError, dist.DistNetworkError, dist.DistStoreError) as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise UserError(
            f"{host}:{port}: the {size} processes of the run cannot meet there ({reason}); start with torchrun, which"
            " chooses a free port, or correct MASTER_ADDR and MASTER_PORT"
        ) from None


@contextlib.contextmanager
def _said_if_long(text: str) -> Iterator[None]:
    """Log ``text`` if the block takes longer than `WAIT_UNSAID_S`."""
    timer = threading.Timer(WAIT_UNSAID_S, log.warning, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_first_to_report() -> bool:
    """Whether this process is the first of its run to ask: that one prints its error, since all may have the same.

    The first, not rank 0: a GPU or a file may be missing for another rank alone. The store at the meeting point counts;
    where nobody serves one, there are no others, or they never got there, and rather all say it than none.
    """
    try:
        size, count = number_of_environment("WORLD_SIZE", 1), _attempt()
        host, port = _meeting_point()
        socket.create_connection((host, port), timeout=ASK_S).close()  # the store would warn on stderr, in many lines
        timeout = datetime.timedelta(seconds=ASK_S)
        store = dist.TCPStore(host, port, size, is_master=False, timeout=timeout, wait_for_workers=False)
        return bool(store.add(f"signstreams/attempt_{count}/reports", 1) == 1)
    except (UserError, KeyError, ValueError, OSError, RuntimeError):
        return True


def _attempt() -> int:
    """Number of times that torchrun (``--max-restarts``) has restarted the processes of this run."""
    return number_of_environment("TORCHELASTIC_RESTART_COUNT", 0)


def is_restart() -> bool:
    """Whether torchrun (``--max-restarts``) or Slurm (requeue) started this process to replace one that ended."""
    return _attempt() > 0 or number_of_environment("SLURM_RESTART_COUNT", 0) > 0


def close() -> None:
    """Leave the process group, if there is one."""
    if is_distributed():
        dist.destroy_process_group()


def is_distributed() -> bool:
    """Whether a process group of several ranks is running."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes, 1 without a group."""
    return dist.get_world_size() if is_distributed() else 1


@torch.no_grad()
def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over all ranks, in place and without gradient; a single process keeps its tensor."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def all_reduce_max(tensor: torch.Tensor) -> torch.Tensor:
    """Maximum over all ranks, in place and without gradient; a single process keeps its tensor."""
    if is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


class _JointSum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: torch.Tensor) -> torch.Tensor:
        return all_reduce_sum(tensor.clone())

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return all_reduce_sum(gradient.clone())  # every rank's loss depends on every rank's share


def joint_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over all ranks, with the gradient of the sum of all ranks' losses."""
    return _JointSum.apply(tensor) if is_distributed() else tensor


@torch.no_grad()
def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Rank 0's values into every rank's tensors, in place."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    """Wait for every rank."""
    if is_distributed():
        dist.barrier()


def from_main(value: ValueT | None) -> ValueT:
    """Rank 0's plain value, on every rank (pickled by our own processes, never read from a file)."""
    box = [value]
    if is_distributed():
        dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def gather(value: ValueT) -> list[ValueT]:
    """Every rank's plain value, by rank, on every rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def sum_gradients(parameters: Iterable[torch.nn.Parameter], *, bucket_bytes: int = 25 * 2**20) -> None:
    """Sum the gradients of all ranks, in buckets; a parameter without gradient on this rank counts as zero."""
    if not is_distributed():
        return
    bucket: list[torch.Tensor] = []
    size = 0

    def reduce() -> None:
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))

    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        size += parameter.grad.nbytes
        if size >= bucket_bytes:
            reduce()
            bucket, size = [], 0
    if bucket:
        reduce()


@contextlib.contextmanager
def main_first(world: World) -> Iterator[None]:
    """For work of rank 0 alone: a `UserError` inside is raised on every rank, so that none waits forever.

    Use as ``with main_first(world): if world.is_main: ...``.
    """
    problems: list[str] = []
    try:
        yield
    except UserError as error:
        problems = error.problems
    if problems := from_main(problems):
        raise UserError(problems)


def found_by_main(world: World, find: Callable[[], ValueT]) -> ValueT:
    """What ``find`` returns on rank 0, which alone calls it: a plain value, on every rank, as is its `UserError`."""
    found: ValueT | None = None
    with main_first(world):
        if world.is_main:
            found = find()
    return from_main(found)
