"""Pretraining on a pretended GPU: every tensor in its place, and no step waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import distributed
from signstreams.engine.metrics import read_metrics
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.run import architecture, pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
Pretend = Callable[[], AbstractContextManager[Any]]

RECIPES: dict[str, dict[str, Any]] = {
    "dino": {"monitor": {"pictures": True}},
    "small": {"sinkhorn": {"use": True}, "dino": {"batch_norm": True}, "koleo": {"weight": 0.1}},
    "ibot": {"algorithm": "ibot", "optim": {"accumulate": 2, "checkpoint_activations": True}},
    "own head": {
        "algorithm": "ibot",
        "ibot": {"shared_head": False},
        "model": {"num_registers": 2, "layer_scale_init": 0.1},
        "optim": {"precision": "bf16"},
    },
}


def on_cuda(make: Make, name: str, **changes: Any) -> PretrainConfig:
    """A recipe without torch.compile, which would want the real thing."""
    recipe = RECIPES[name]
    return make(**{**recipe, "optim": {**recipe.get("optim", {}), "compile": False}, "device": "cuda", **changes})


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_on_cuda_is_the_run_on_the_cpu(make: Make, name: str, tmp_path: Path, pretend_cuda: Pretend) -> None:
    on_cpu, there = make(**RECIPES[name]), on_cuda(make, name, output_dir=str(tmp_path / "cuda"))
    pretrain(on_cpu, "hand_r")
    with pretend_cuda():
        pretrain(there, "hand_r")
    ours, theirs = (read_metrics(config.output_dir / "metrics.jsonl") for config in (there, on_cpu))
    assert len(ours) == len(theirs) == 5
    for record, other in zip(ours, theirs, strict=True):
        assert record["mem/peak_gib"] > 0
        for key in {"train/loss", "teacher/entropy_batch", "probe/rankme", "train/loss_patch"} & set(other):
            # views are finished on the device, to within two of 255 grey levels
            assert record[key] == pytest.approx(other[key], rel=0.02), key
    state = torch.load(there.output_dir / "checkpoint_last.pt", weights_only=True)["trainer"]
    assert all(tensor.device.type == "cpu" for tensor in state["student"].values())


def test_a_finished_run_on_cuda_is_read_again_and_exported_alike(make: Make, pretend_cuda: Pretend) -> None:
    config = on_cuda(make, "ibot", epochs=1)
    longer = on_cuda(make, "ibot", epochs=1, resume=str(config.output_dir / "checkpoint_last.pt"))
    with pretend_cuda():
        pretrain(config, "hand_r")
        before = (config.output_dir / "backbone.pt").read_bytes()
        pretrain(longer, "hand_r")
    assert (config.output_dir / "backbone.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["small", "ibot"])
def test_two_gpus_equal_one_with_the_joint_batch(
    make: Make, name: str, tmp_path: Path, project: Path, pretend_cuda: Pretend, run_two: Callable[..., None]
) -> None:
    # parts of a joint batch hold other crops, and KoLeo looks for neighbours inside its part
    apart = {"optim": {"compile": False, "checkpoint_activations": True}, "koleo": {"weight": 0.0}, "epochs": 1}
    one = on_cuda(make, name, output_dir=str(tmp_path / "one"), **apart)
    two = on_cuda(make, name, output_dir=str(tmp_path / "two"), distributed=True, dataset={"batch_size": 4}, **apart)
    with pretend_cuda():
        pretrain(one, "hand_r")
    settings = tmp_path / "two.json"
    settings.write_text(two.model_dump_json(exclude_defaults=True))
    script = str(project / "scripts" / "pretrain_dino_hands.py")
    run_two(tmp_path, project / "tests" / "pretend_cuda.py", script, "--config", str(settings))
    ours, theirs = (read_metrics(config.output_dir / "metrics.jsonl") for config in (two, one))
    assert len(ours) == len(theirs) > 1
    for record, other in zip(ours, theirs, strict=True):
        for key in ("train/loss", "train/grad_norm", "teacher/entropy_batch"):
            assert record[key] == pytest.approx(other[key], rel=1e-3), key


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_waits_for_the_device(make: Make, name: str, pretend_cuda: Pretend) -> None:
    config = on_cuda(make, name)
    rng = torch.Generator().manual_seed(0)
    with pretend_cuda() as gpu:
        world = distributed.start(device="cuda")
        trainer = Trainer(config, derive_settings(config, num_crops=80, global_batch=8), architecture(config), world)
        gpu.waits.clear()
        for _ in range(3):
            views = [
                torch.randint(0, 256, (2, 8, side, side, 3), dtype=torch.uint8, generator=rng).pin_memory()
                for side in (16, 8)
            ]
            trainer.train_step(*views)
        assert dict(gpu.waits) == {}
        trainer.meters.read()
        assert gpu.waits  # so it would have been seen
