"""A step in parts is the step of the joint batch: losses, targets, centre, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from signstreams.backbones.archs import resolve
from signstreams.engine.distributed import World
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.losses import koleo_loss
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
ALONE = World(0, 1, torch.device("cpu"))


def _stepped(config: PretrainConfig, steps: int = 1) -> tuple[Trainer, dict[str, float]]:
    """A trainer after some steps on noise, and what its meters read."""
    arch = resolve("vit_tiny", image_px=32, patch_px=8, depth=1)
    trainer = Trainer(config, derive_settings(config, num_crops=200, global_batch=8), arch, ALONE)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        trainer.train_step(
            torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8, generator=rng),
            torch.randint(0, 256, (2, 8, 8, 8, 3), dtype=torch.uint8, generator=rng),
        )
    return trainer, trainer.meters.read()


def _gradients(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.grad for name, p in trainer.student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sinkhorn": {"use": True}},
        {"algorithm": "ibot"},
        {"algorithm": "ibot", "sinkhorn": {"use": True}, "ibot": {"shared_head": False}},
    ],
    ids=["centre", "sinkhorn", "ibot", "ibot-sinkhorn"],
)
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_equal_the_joint_batch(make: Make, changes: dict[str, Any], parts: int) -> None:
    shape = {"augmentation": {"global_px": 32}, "dino": {"freeze_prototypes_ratio": 0.0}, **changes}
    joint, expected = _stepped(make(**shape))
    cut, found = _stepped(make(optim={"accumulate": parts}, **shape))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    torch.testing.assert_close(cut.centre.value, joint.centre.value, rtol=1e-5, atol=1e-7)
    ours, theirs = _gradients(cut), _gradients(joint)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()), msg=name)


def test_koleo_sees_its_part_alone(make: Make) -> None:
    changes = {"augmentation": {"global_px": 32}, "koleo": {"weight": 0.1}}
    whole, parts = (_stepped(make(optim={"accumulate": count}, **changes))[1] for count in (1, 2))
    assert parts["train/loss_dino"] == pytest.approx(whole["train/loss_dino"], rel=1e-5)
    # fewer neighbours are further away: -log of the distance falls
    assert parts["train/loss_koleo"] < whole["train/loss_koleo"] - 1e-3
    tokens = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    halves = sum(float(koleo_loss(half, epsilon=1e-4)) for half in tokens.chunk(2)) / 2
    assert halves < float(koleo_loss(tokens, epsilon=1e-4))


def test_less_is_kept_for_the_backward_pass(make: Make) -> None:
    kept: dict[int, int] = {}
    for parts in (1, 4):
        largest = now = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal now
            now += tensor.numel()
            return tensor

        config = make(optim={"accumulate": parts}, augmentation={"global_px": 32})
        original = Trainer._koleo

        def between(self: Trainer, tokens: Tensor) -> Tensor:
            nonlocal largest, now
            largest, now = max(largest, now), 0
            return original(self, tokens)  # noqa: B023

        with pytest.MonkeyPatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            patch.setattr(Trainer, "_koleo", between)
            _stepped(config)
        kept[parts] = largest
    assert kept[4] < 0.8 * kept[1]  # weights, which are kept as well, stay as they are


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optim": {"accumulate": 3}}, "does not divide a batch_size of 8; next is 2"),
        ({"optim": {"accumulate": 8}, "koleo": {"weight": 0.1}}, "parts of one crop have no neighbour"),
    ],
)
def test_parts_that_cannot_be_are_refused(make: Make, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(**changes)
