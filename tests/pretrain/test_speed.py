"""What keeps a step fast, where it can be seen without a GPU: no waiting, compiled blocks, checkpointing, threads."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.engine.device import can_compile, use_tensor_cores
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
CPU = torch.device("cpu")
# what asks the device for a number, or for a shape that hangs on one: a CUDA device is waited for
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal", "is_nonzero")


class _Watch(TorchDispatchMode):
    """Names of the calls that would wait for a CUDA device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for places in args[1:2]
            if isinstance(places, list | tuple)
            for index in places
        )
        if name.startswith(WAITS) or is_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def _trainer(config: PretrainConfig) -> Trainer:
    model = config.model
    arch = resolve(model.arch, image_px=16, patch_px=model.patch_px, depth=model.depth)
    return Trainer(config, derive_settings(config, num_crops=400, global_batch=8), arch, World(0, 1, CPU))


def _views(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, 256, (2, 8, side, side, 3), dtype=torch.uint8, generator=rng) for side in (16, 8))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sinkhorn": {"use": True}, "koleo": {"weight": 0.1}, "optim": {"precision": "bf16"}},
        {"algorithm": "ibot", "model": {"drop_path_prob": 0.3, "depth": 2}},
        {"algorithm": "ibot", "sinkhorn": {"use": True}, "optim": {"accumulate": 2, "checkpoint_activations": True}},
    ],
)
def test_a_step_asks_the_device_for_nothing(
    make: Make, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(make(**changes))
    trainer.train_step(*_views())
    masks = None
    if trainer.patches is not None:  # drawn by NumPy, before anything is on the device
        masks = trainer.patches.draw(1, 2, 8, trainer.config.optim.accumulate)
        monkeypatch.setattr(trainer.patches, "draw", lambda *_: masks)
    for name in ("tolist", "cpu", "numpy"):  # reads that no dispatcher sees on a CPU
        monkeypatch.setattr(Tensor, name, _forbidden)
    with _Watch() as watch:
        trainer.train_step(*_views(1))
    assert watch.seen == []
    assert trainer.step == 2


def test_the_watch_sees_what_waits() -> None:
    x = torch.arange(3.0)
    with _Watch() as watch:
        float(x[0])
        bool(x[0])
        x[0].item()
        x[x > 1]
        x.nonzero()
    assert watch.seen.count("_local_scalar_dense") == 3
    assert {"index", "nonzero"} <= set(watch.seen)


def _forbidden(*_: object) -> None:
    raise AssertionError("a step must not wait for the device")


def test_compiled_blocks_give_the_same_tokens_and_keep_their_names() -> None:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=4)
    groups = [torch.randn(3, 3, 16, 16), torch.randn(4, 3, 8, 8)]
    results = []
    for is_compiled in (False, True):
        model = VisionTransformer(arch, drop_path_prob=0.3).train()
        model.init_weights(torch.Generator().manual_seed(0))
        names = list(model.state_dict())
        if is_compiled:
            model.compile_blocks(backend="aot_eager")  # all of it but the making of kernels, which takes a minute
        torch._dynamo.utils.counters.clear()
        torch.manual_seed(0)
        classes, _ = model.forward_tokens(groups, packed=True)
        classes.square().sum().backward()
        assert list(model.state_dict()) == names
        results.append((classes.detach(), model.blocks[0].mlp.fc1.weight.grad))
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 2  # with stochastic depth and without, however many blocks
    assert not counters["graph_break"]
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("compile_", "expected"), [("auto", 0), (False, 0), (True, 2)])
def test_both_networks_are_compiled_where_asked(
    make: Make, monkeypatch: pytest.MonkeyPatch, compile_: bool | str, expected: int
) -> None:
    compiled: list[VisionTransformer] = []
    monkeypatch.setattr("signstreams.pretrain.trainer.can_compile", lambda device: True)
    monkeypatch.setattr(VisionTransformer, "compile_blocks", lambda self: compiled.append(self))
    config = make(optim={"compile": compile_})
    _trainer(config)
    assert len(compiled) == expected
    assert config.optim.is_compiled("cuda") is (compile_ is not False)


def test_without_a_compiler_a_line_says_so_and_training_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compile_(*_: object, **__: object) -> None:
        raise RuntimeError("\nNo working C++ compiler found in g++\nmore")

    monkeypatch.setattr(torch, "compile", compile_)
    with caplog.at_level(logging.WARNING):
        assert not can_compile(CPU)
        trainer = _trainer(make(optim={"compile": True}))
    assert caplog.messages[0] == (
        "torch.compile does not work here (No working C++ compiler found in g++); going on without it"
    )
    trainer.train_step(*_views())
    assert trainer.step == 1


def test_tensor_cores_are_for_cuda_alone() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        use_tensor_cores(CPU)
        assert torch.get_float32_matmul_precision() == before
        use_tensor_cores(torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("algorithm", ["dino", "ibot"])
def test_checkpointed_activations_change_no_bit_and_keep_the_run(make: Make, algorithm: str) -> None:
    weights = []
    for again in (False, True):
        model = {"depth": 3, "drop_path_prob": 0.4}
        config = make(algorithm=algorithm, model=model, optim={"checkpoint_activations": again})
        trainer = _trainer(config)
        for seed in range(2):
            trainer.train_step(*_views(seed))
        weights.append(trainer.student.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert config.identity() == make(algorithm=algorithm, model=model).identity()


def test_the_benchmark_counts_the_operations_that_a_step_does(
    make: Make, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    step_flops = importlib.import_module("pretrain_gpu").step_flops
    config = make(model={"depth": 2})
    trainer = _trainer(config)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's fused one is not counted
        trainer.train_step(*_views())
    assert step_flops(trainer.arch, config, trainer.derived, batch=8) == counter.get_total_flops()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()]
)
def test_too_little_memory_for_the_networks_is_one_line(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def greedy(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("signstreams.pretrain.trainer.build_network", greedy)
    place = "CPU" if isinstance(error, MemoryError) else "GPU"
    with pytest.raises(UserError, match=rf"out of memory on the {place} while .*--arch.*num_prototypes") as caught:
        pretrain(make(), "hand_r")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("pretrain_dino_face.py", ["--train-dir", "face", "--output-dir", "run"]),
        ("pretrain_dino_hands.py", ["--train-dir", "hand_l", "--output-dir", "run"]),
    ],
)
@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_idle_threads_leave_the_cores_unless_the_user_says_otherwise(
    project: Path, tmp_path: Path, script: str, arguments: list[str], given: str | None
) -> None:
    look = (  # OpenMP reads its settings when torch is loaded
        "import os, runpy, sys\n"
        "class Look:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "            raise SystemExit(0)\n"
        "sys.meta_path.insert(0, Look())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", look, str(project / "scripts" / script), *arguments]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [given or "PASSIVE"]
