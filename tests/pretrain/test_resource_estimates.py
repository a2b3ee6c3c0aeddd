"""Room to run: how much disk is asked for, and an estimate of the memory against what is really kept."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.backbones.archs import resolve
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.pretrain import resource_estimates as room
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.network import build_network
from signstreams.pretrain.resource_estimates import (
    GIB,
    Memory,
    estimate_memory,
    exhaustion_as_user_error,
    log_memory_estimate,
)
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
BATCH = "raise --accumulate (now 1), lower --batch-size (now 8)"


@pytest.mark.parametrize(
    ("checkpoint_bytes", "expected_gb"),
    [(10**7, 0.4), (5 * 10**8, 5.0), (2 * 10**9, 12.0)],
    ids=["small", "usual", "large"],
)
def test_a_run_asks_for_5_gb_less_when_small_more_when_large(
    make: Make, tmp_path: Path, checkpoint_bytes: int, expected_gb: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    for free_gb, is_refused in ((expected_gb - 0.01, True), (expected_gb + 0.01, False)):
        monkeypatch.setattr(room.shutil, "disk_usage", lambda _, free=free_gb: SimpleNamespace(free=free * 1e9))
        if is_refused:
            with pytest.raises(UserError, match="GB are free"):
                room.check_disk(make(), tmp_path, checkpoint_bytes)
        else:
            room.check_disk(make(), tmp_path, checkpoint_bytes)


def test_the_estimate_follows_what_is_kept(make: Make) -> None:
    """Against the bytes autograd really keeps: within a third."""
    config = make(
        dataset={"batch_size": 16},
        model={"depth": 4},
        augmentation={"global_px": 48, "local_px": 24},
        dino={"num_prototypes": 1024, "hidden_dim": 512},
    )
    arch = resolve("vit_tiny", image_px=48, patch_px=8, depth=4)
    derived = derive_settings(config, num_crops=160, global_batch=16)
    trainer = Trainer(config, derived, arch, World(0, 1, torch.device("cpu")))
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    views = (torch.zeros(2, 16, 48, 48, 3, dtype=torch.uint8), torch.zeros(2, 16, 24, 24, 3, dtype=torch.uint8))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.train_step(*views)
    weights = sum(4 * parameter.numel() for parameter in trainer.student.parameters())
    found = sum(kept.values()) - weights
    memory = estimate_memory(config, derived, arch, trainer.student)
    assert memory.weights == 5 * weights
    assert memory.activations + memory.scores == pytest.approx(found, rel=1 / 3)
    halved = estimate_memory(make(**{**_tree(config), "optim": {"accumulate": 2}}), derived, arch, trainer.student)
    assert halved.activations == pytest.approx(memory.activations / 2, rel=1e-6)


def _tree(config: PretrainConfig) -> dict[str, Any]:
    return json.loads(config.model_dump_json(exclude_defaults=True))


def _estimate(config: PretrainConfig, num_crops: int = 160) -> Memory:
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=config.model.depth)
    derived = derive_settings(config, num_crops=num_crops, global_batch=config.dataset.batch_size)
    return estimate_memory(config, derived, arch, build_network(config, arch, derived, is_student=True))


def test_the_estimate_knows_checkpointing(make: Make) -> None:
    estimates = []
    for again in (False, True):
        config = make(model={"depth": 12}, optim={"checkpoint_activations": again})
        estimates.append(_estimate(config))
    assert estimates[1].activations < estimates[0].activations / 5
    assert estimates[1].weights == estimates[0].weights


def test_the_estimate_grows_with_what_a_step_holds(make: Make) -> None:
    views = {"augmentation": {"global_px": 32}}
    one = _estimate(make(**views))
    assert one.total == one.weights + one.activations + one.scores
    twice = _estimate(make(**views, dataset={"batch_size": 16}))
    assert (twice.weights, twice.activations, twice.scores) == (one.weights, 2 * one.activations, 2 * one.scores)
    bf16 = _estimate(make(**views, optim={"precision": "bf16"}))
    assert bf16.activations < one.activations and bf16.weights == one.weights
    many = _estimate(make(**views, dino={"num_prototypes": 512}))
    assert many.scores > 5 * one.scores and many.activations == one.activations
    patches = _estimate(make(**views, algorithm="ibot"))
    assert patches.scores > one.scores and patches.activations == one.activations


def test_what_lies_there_already_is_not_asked_for_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=0.3 * 1e9))
    with pytest.raises(UserError, match=r"0\.30 GB are free on its disk, the run needs 0\.40 GB"):
        room.check_disk(make(), tmp_path, 10**7)
    with (state / "checkpoint_last.pt").open("wb") as file:
        file.truncate(2 * 10**8)  # sparse
    room.check_disk(make(), tmp_path, 10**7)
    with pytest.raises(UserError, match=r"needs 2\.50 GB .* set checkpointing\.min_free_gb"):
        room.check_disk(make(checkpointing={"min_free_gb": 2.5}), tmp_path, 10**7)


@pytest.mark.parametrize(("free", "level"), [(2 * GIB, "WARNING"), (4 * GIB, "INFO"), (None, "INFO")])
def test_a_run_that_may_not_fit_is_warned_of(
    free: int | None, level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda device: free)
    with caplog.at_level(logging.INFO):
        log_memory_estimate(Memory(2 * GIB, GIB // 2, GIB // 2), torch.device("cpu"))
    (record,) = caplog.records
    assert record.levelname == level
    assert "about 3.00 GiB (weights and optimiser 2.00, activations 0.50, scores 0.50)" in record.message
    assert ("--accumulate" in record.message) == (level == "WARNING")


@pytest.mark.parametrize(
    ("memory", "changes", "expected"),
    [
        (Memory(3, 1, 1), {}, "take a smaller --arch or --depth, lower dino.num_prototypes"),
        (Memory(1, 1, 3), {}, f"lower dino.num_prototypes, {BATCH}, or use"),
        (Memory(1, 3, 1), {}, f"{BATCH}, add --checkpoint-activations"),
        (
            Memory(1, 3, 1),
            {"checkpoint_activations": True, "precision": "bf16"},
            f"{BATCH}, augmentation.num_local or --image-size",
        ),
    ],
    ids=["weights", "scores", "activations", "activations, all else tried"],
)
def test_the_first_setting_named_shrinks_what_is_largest(
    make: Make, memory: Memory, changes: dict[str, Any], expected: str
) -> None:
    config = make(optim=changes)
    with pytest.raises(UserError) as caught, exhaustion_as_user_error(config, memory):
        raise torch.OutOfMemoryError("CUDA out of memory")
    said = str(caught.value).partition("); ")[2]
    assert said.startswith(expected)
    assert ("or use --optim-precision bf16" in said) == (memory.weights == 1 and not changes)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "out of memory on the CPU",
        ),
        (RuntimeError("CUDA error: out of memory"), "out of memory on the GPU"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "out of memory on the GPU"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), r"its disk is full \(Disk quota exceeded\)"),
        (OSError(errno.ENOENT, "No such file"), None),
        (RuntimeError("shapes do not match"), None),
        (KeyError("out of memory"), None),
    ],
)
def test_what_ran_out_is_one_line_and_all_else_passes(make: Make, error: Exception, expected: str | None) -> None:
    kind = type(error) if expected is None else UserError
    with pytest.raises(kind, match=expected) as caught, exhaustion_as_user_error(make(), Memory(1, 1, 1)):
        raise error
    assert (caught.value is error) == (expected is None)
