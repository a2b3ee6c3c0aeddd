"""A GPU that is not there: tensors of the CPU that say they are on ``cuda``, and are held to its rules.

Inside `pretend_cuda`, code that asks for ``cuda`` runs whole, with true values, and what a real device would refuse is
an error here too: an operation over tensors of both places, a CPU's generator, ``numpy()``. `PretendCuda.waits` counts
where the CPU would wait for the device: ``item``, ``tolist``, ``cpu``, ``nonzero``, a mask as an index, a copy from
memory that is not page-locked. So the choice of device, the branches for CUDA and the rhythm of the hot path are tested
on any machine; kernels, memory, streams and speed are not.

As a program it runs a script on pretended GPUs, one a process: ``torchrun ... tests/pretend_cuda.py SCRIPT ...``.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.utils.checkpoint
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils

CUDA = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
SOURCE = str(Path(__file__).parents[1] / "src")

# What brings values from the device to the CPU, or asks the device for the size of a result.
READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "nonzero", "argwhere", "unique"}
READS |= {"masked_select", "bincount", "equal", "allclose", "isin", "new_tensor"}
# Take tensors of both places by their nature.
MIXES = {"copy_", "to", "tensor", "backward", "grad", "__set__", "_has_compatible_shallow_copy_type"}


class PretendCuda(TorchFunctionMode):
    """Follows tensors through every function of torch, by their storage: views and saved tensors share it.

    Attributes:
        waits: ``file.py:function operation`` of ours to how often the CPU would have waited there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: collections.Counter[str] = collections.Counter()
        self._there: dict[int, StorageWeakRef] = {}  # a weak reference keeps the address from being used again
        self._pinned: dict[int, StorageWeakRef] = {}
        self._in_backward = 0

    def is_there(self, value: Any) -> bool:
        """Whether a tensor pretends to be on the device."""
        return _is_among(self._there, value)

    def goes_by_itself(self, value: Any, kwargs: Any) -> bool:
        """Whether a copy to the device needs nothing of the CPU; what has gaps torch gathers first."""
        return bool(kwargs.get("non_blocking")) and value.is_contiguous() and _is_among(self._pinned, value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name in ("device", "_parse_to"):  # name a place, and move nothing there
            return func(*args, **kwargs)
        if name == "__get__":
            return self._attribute(func, args, kwargs)
        tensors = list(_tensors((*args, *kwargs.values())))
        goal = self._goal(name, args, kwargs)
        self._check(name, args, kwargs, tensors, goal)
        self._count(name, args, kwargs, tensors, goal)
        result = func(*map(_on_cpu, args), **{key: _on_cpu(value) for key, value in kwargs.items()})
        if goal is None and name != "cpu" and any(map(self.is_there, tensors)):
            goal = CUDA
        if isinstance(result, Tensor):
            return self._placed(result, goal, tensors)
        if goal is not None and goal.type == "cuda":  # parts of a tensor, or values with their places
            for part in _tensors(result):
                self._mark(part)
        return result

    def _goal(self, name: str, args: Any, kwargs: Any) -> torch.device | None:
        """The device that a call moves to, or makes its result on."""
        named = kwargs.get("device")
        if name == "to" and args[1:] and isinstance(args[1], Tensor):
            return CUDA if self.is_there(args[1]) else torch.device("cpu")
        if name in ("to", "cuda"):
            named = next((value for value in args[1:] if isinstance(value, torch.device | str)), named)
            named = CUDA if name == "cuda" else named
        return None if named is None else torch.device(named)

    def _placed(self, value: Tensor, goal: torch.device | None, inputs: list[Tensor]) -> Tensor:
        """A result where it belongs; what torch did not copy, since it knows one place only, is copied."""
        wants, is_there = goal is not None and goal.type == "cuda", self.is_there(value)
        if wants == is_there:
            return value
        storage = value.untyped_storage()._cdata
        if any(tensor.untyped_storage()._cdata == storage for tensor in inputs):
            value = value.clone()
        if wants:
            self._mark(value)
        return value

    def _mark(self, tensor: Tensor) -> None:
        _remember(self._there, tensor)

    def pin(self, tensor: Tensor) -> Tensor:
        """In any thread: the others do not know this mode."""
        if self.is_there(tensor):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")
        if _is_among(self._pinned, tensor):
            return tensor
        with torch._C.DisableTorchFunction():
            pinned = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        _remember(self._pinned, pinned)
        return pinned

    def collective(self, run: Callable[..., Any], tensor: Tensor, **options: Any) -> Any:
        """As nccl, which knows no tensor of the CPU."""
        if not self.is_there(tensor) and not self._in_backward:
            raise RuntimeError("No backend type associated with device type cpu")
        return run(tensor, **options)

    def run_backward(self, engine: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """With eyes open: activations may be computed again on the way."""
        self._in_backward += 1
        try:
            with self:
                return engine(*args, **kwargs)
        finally:
            self._in_backward -= 1

    def _attribute(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor, attribute = args[0], getattr(func.__self__, "__name__", "")
        is_there = self.is_there(tensor)
        if is_there and attribute in ("device", "is_cuda", "is_cpu"):
            return {"device": CUDA, "is_cuda": True, "is_cpu": False}[attribute]
        result = func(*args, **kwargs)
        if is_there and isinstance(result, Tensor) and not self.is_there(result):  # a gradient, which the engine made
            self._mark(result)
        return result

    def _check(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], goal: torch.device | None) -> None:
        there = list(map(self.is_there, tensors))
        if name == "numpy" and there[0]:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if isinstance(kwargs.get("generator"), torch.Generator) and (any(there) or (goal and goal.type == "cuda")):
            raise RuntimeError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")
        if self._in_backward or name in MIXES:  # gradients are the engine's and not marked
            return
        if name in ("__getitem__", "__setitem__", "index_put_"):
            base, index = there[0], there[1:]
            if name != "__getitem__" and isinstance(args[-1], Tensor):
                index = there[1:-1]
                if args[-1].ndim and there[-1] != base:
                    raise RuntimeError(f"{name}: the value is on another device than the tensor")
            is_mixed = any(index) and not base  # a tensor of the device may be indexed by one of the CPU
        else:
            # a single number of the CPU may meet any tensor, but not be joined to it
            counts = (
                mark or tensor.ndim or name in ("stack", "cat") for mark, tensor in zip(there, tensors, strict=True)
            )
            is_mixed = len(set(itertools.compress(there, counts))) > 1
        if is_mixed:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found cuda:0 and cpu")

    def _count(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], goal: torch.device | None) -> None:
        if any(map(self.is_there, tensors)):
            waits = self._reads(name, args, kwargs, tensors, goal)
        else:  # a copy there; torch waits for its end, or for one to page-locked memory first
            waits = name in ("tensor", "as_tensor") or (name == "to" and not self.goes_by_itself(tensors[0], kwargs))
            waits &= goal is not None and goal.type == "cuda"
        if waits:
            self.waits[f"{_place()} {name}"] += 1

    def _reads(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], goal: torch.device | None) -> bool:
        """Whether an operation on tensors of the device needs their values, or copies some there."""
        waits = name in READS or (name == "to" and goal is not None and goal.type == "cpu")
        if name == "copy_":
            target, source = tensors
            comes = self.is_there(source) or self.goes_by_itself(source, kwargs)
            waits |= not (self.is_there(target) and comes)
        waits |= name == "where" and len(tensors) == 1
        waits |= name == "repeat_interleave" and len(tensors) > 1
        if name in ("__getitem__", "__setitem__"):
            keys = args[1] if isinstance(args[1], tuple) else (args[1],)
            waits |= any(isinstance(key, list) for key in keys)
            waits |= any(
                isinstance(key, Tensor) and (key.dtype == torch.bool or not self.is_there(key)) for key in keys
            )
        return waits


@contextlib.contextmanager
def pretend_cuda() -> Iterator[PretendCuda]:
    """A GPU for each process of this machine, as far as torch's own answers and tensors go; gloo in place of nccl."""
    patch = pytest.MonkeyPatch()
    autocast, group = torch.autocast, _foreach_utils._group_tensors_by_device_and_dtype
    join = dist.init_process_group
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        "current_device": CUDA.index,
        "set_device": None,
        "synchronize": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 2**30,
        "mem_get_info": (60 * 2**30, 80 * 2**30),
        "get_device_name": "pretended GPU",
    }
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    for name in ("_cuda_graph_capture_health_check", "_accelerator_graph_capture_health_check"):
        patch.setattr(torch.optim.Optimizer, name, lambda _: None, raising=False)
    patch.setattr(torch, "autocast", lambda kind, **options: autocast("cpu" if kind == "cuda" else kind, **options))
    precision = torch.get_float32_matmul_precision()
    mode = PretendCuda()

    def grouped(*args: Any, **kwargs: Any) -> Any:  # torch asks the tensors below Python
        groups = group(*args, **kwargs)
        first = next(iter(args[0][0]), None)
        return {(CUDA, key[1]): value for key, value in groups.items()} if mode.is_there(first) else groups

    patch.setattr(Tensor, "pin_memory", lambda tensor, device=None: mode.pin(tensor))
    patch.setattr(
        torch.autograd, "_engine_run_backward", partial(mode.run_backward, torch.autograd._engine_run_backward)
    )
    # not by place: some tensors are asked inside torch, where this mode is off
    shape_and_type = {"default": lambda tensor: {"shape": tensor.shape, "dtype": tensor.dtype}}
    patch.setattr(torch.utils.checkpoint, "_allowed_determinism_checks_to_fns", shape_and_type)
    patch.setattr(dist, "init_process_group", lambda backend, **options: join({"nccl": "gloo"}[backend], **options))
    for name in ("all_reduce", "broadcast"):
        patch.setattr(dist, name, partial(mode.collective, getattr(dist, name)))
    for place in (_foreach_utils, torch.optim.Optimizer, torch.nn.utils.clip_grad):
        patch.setattr(place, "_group_tensors_by_device_and_dtype", grouped, raising=False)
    try:
        with mode:
            yield mode
    finally:
        patch.undo()
        torch.set_float32_matmul_precision(precision)


def _remember(storages: dict[int, StorageWeakRef], tensor: Tensor) -> None:
    with torch._C.DisableTorchFunction():
        storage = tensor.untyped_storage()
        storages[storage._cdata] = StorageWeakRef(storage)


def _is_among(storages: dict[int, StorageWeakRef], value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    with torch._C.DisableTorchFunction():
        found = storages.get(value.untyped_storage()._cdata)
    return found is not None and not found.expired()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _on_cpu(value: Any) -> Any:
    """A device that an argument names, as torch will see it."""
    is_cuda = isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] == "cuda")
    return torch.device("cpu") if is_cuda else value


def _place() -> str:
    """The innermost line of ours on the stack."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCE):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


if __name__ == "__main__":
    del sys.argv[0]
    with pretend_cuda():
        runpy.run_path(sys.argv[0], run_name="__main__")
