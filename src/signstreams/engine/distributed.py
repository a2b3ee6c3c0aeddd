"""Processes of one run: started by torchrun, or a single one without it. gloo on CPU, nccl on GPU."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from signstreams.engine.device import use_tensor_cores
from signstreams.engine.launch import die_with_launcher
from signstreams.errors import UserError

ValueT = TypeVar("ValueT")

TIMEOUT = datetime.timedelta(minutes=30)  # longest wait for another process


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
    """Join the process group that torchrun announces in the environment; without one, this process is alone.

    ``device`` is ``cpu``, ``cuda``, or ``auto``: a GPU when there is one.

    Raises:
        UserError: ``distributed`` without torchrun, or ``cuda`` without a GPU.
    """
    die_with_launcher()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if distributed and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "--distributed: found no launcher, expected torchrun; start with `torchrun --standalone"
            " --nproc-per-node=N <script> ...`, or leave --distributed out"
        )
    use_gpu = torch.cuda.is_available() and device != "cpu"
    if device == "cuda" and not use_gpu:
        raise UserError("device 'cuda': PyTorch finds no GPU here, expected at least one; use --device auto or cpu")
    place = torch.device("cpu")
    if use_gpu:
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"rank {local_rank} of this machine has no GPU: {torch.cuda.device_count()} visible;"
                " start at most one process for each (torchrun --nproc-per-node)"
            )
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
    use_tensor_cores(place)
    if size > 1:
        _join("nccl" if use_gpu else "gloo")
    return World(int(os.environ.get("RANK", "0")) if size > 1 else 0, size, place)


def _join(backend: str) -> None:
    """Meet the other processes at the address of the environment.

    torchrun may serve all its attempts from one store (torch 2.15), in which a restarted process would find the
    addresses of the dead ones, and wait or fail; each attempt therefore has its own keys.
    """
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    store = dist.PrefixStore(f"signstreams/attempt_{_attempt()}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)


def _attempt() -> int:
    """Number of times that torchrun (``--max-restarts``) has restarted the processes of this run."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def is_restart() -> bool:
    """Whether torchrun (``--max-restarts``) or Slurm (requeue) started this process to replace one that ended."""
    return _attempt() > 0 or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


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
