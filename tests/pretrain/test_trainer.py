"""One step and many: schedules, frozen parts, the teacher, bad losses, exact state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from signstreams.engine.distributed import World
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.run import architecture
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer, teacher_backbone

ALONE = World(0, 1, torch.device("cpu"))
Make = Callable[..., PretrainConfig]


def _trainer(config: PretrainConfig, total_steps: int = 20) -> Trainer:
    derived = derive_settings(config, num_crops=8 * total_steps // config.epochs, global_batch=8)
    return Trainer(config, derived, architecture(config), ALONE)


def _views(seed: int, batch: int = 8) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 256, (2, batch, 16, 16, 3), dtype=torch.uint8, generator=rng),
        torch.randint(0, 256, (2, batch, 8, 8, 3), dtype=torch.uint8, generator=rng),
    )


def _weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_student_and_teacher_start_equal_and_the_teacher_gets_no_gradient(make: Make) -> None:
    trainer = _trainer(make())
    student, teacher = _weights(trainer.student), _weights(trainer.teacher)
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    trainer.train_step(*_views(0))
    assert all(parameter.grad is None for parameter in trainer.teacher.parameters())


def test_the_teacher_is_the_moving_average_of_the_student(make: Make) -> None:
    trainer = _trainer(make(dino={"momentum": 0.9}))
    before = _weights(trainer.teacher)
    momentum = trainer.scheduled(0)["momentum"]
    trainer.train_step(*_views(0))
    student, teacher = _weights(trainer.student), _weights(trainer.teacher)
    for name in before:
        torch.testing.assert_close(teacher[name], momentum * before[name] + (1 - momentum) * student[name])
    assert trainer.teacher_distance() > 0


def test_prototypes_rest_while_they_are_frozen(make: Make) -> None:
    trainer = _trainer(make(dino={"freeze_prototypes_ratio": 0.1}))  # of 20 steps: two
    moved = []
    for step in range(4):
        before = trainer.student.head.prototypes.weight_v.clone()
        trainer.train_step(*_views(step))
        moved.append(not torch.equal(before, trainer.student.head.prototypes.weight_v))
    assert moved == [False, False, True, True]


def test_schedules_begin_and_end_where_they_should(make: Make) -> None:
    config = make(
        optim={"learning_rate": 1e-2, "learning_rate_scaling": "none", "warmup_ratio": 0.2},
        dino={"momentum": 0.9, "warmup_teacher_temp": 0.03, "teacher_temp": 0.05, "teacher_temp_warmup_ratio": 0.5},
    )
    trainer = _trainer(config)
    assert trainer.scheduled(3)["lr"] == pytest.approx(1e-2)
    assert trainer.scheduled(0)["lr"] == pytest.approx(0.25e-2)
    assert trainer.scheduled(20)["lr"] == pytest.approx(1e-6)
    assert [trainer.scheduled(s)["weight_decay"] for s in (0, 20)] == pytest.approx([0.04, 0.4])
    assert [trainer.scheduled(s)["momentum"] for s in (0, 20)] == pytest.approx([0.9, 1.0])
    assert [trainer.scheduled(s)["teacher_temp"] for s in (0, 5, 10, 20)] == pytest.approx([0.03, 0.04, 0.05, 0.05])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sinkhorn": {"use": True}},
        {"koleo": {"weight": 0.1}},
        {"optim": {"precision": "bf16"}},
        {"augmentation": {"num_local": 0, "local_px": 48}},
        {"model": {"drop_path_prob": 0.3, "depth": 2}},
        {"dino": {"batch_norm": True}},
    ],
)
def test_every_variant_takes_finite_steps(make: Make, changes: dict[str, Any]) -> None:
    trainer = _trainer(make(**changes))
    views = _views(0)
    if not trainer.config.augmentation.num_local:
        views = (views[0], torch.empty(0, dtype=torch.uint8))
    for _ in range(3):
        trainer.train_step(*views)
    record = trainer.meters.read()
    assert all(math.isfinite(value) for value in record.values())
    assert (record["train/loss_koleo"] != 0) == bool(trainer.config.koleo.weight)
    assert (trainer.centre.value.norm() > 0) == (trainer.sinkhorn is None)


def test_a_loss_that_is_not_finite_changes_nothing_but_the_count(make: Make) -> None:
    trainer = _trainer(make())
    trainer.train_step(*_views(0))
    student, teacher = _weights(trainer.student), _weights(trainer.teacher)
    mean = trainer._mean.clone()
    trainer._mean.fill_(float("nan"))
    trainer.train_step(*_views(1))
    assert all(torch.equal(value, student[name]) for name, value in trainer.student.state_dict().items())
    for name, value in trainer.teacher.state_dict().items():
        assert torch.isfinite(value).all(), name
    assert torch.isfinite(trainer.centre.value).all()
    assert trainer.meters.num_bad_in_a_row() == 1
    trainer._mean.copy_(mean)
    trainer.train_step(*_views(2))
    assert any(not torch.equal(value, teacher[name]) for name, value in trainer.teacher.state_dict().items())


def test_the_state_holds_everything_a_later_process_needs(make: Make) -> None:
    config = make(model={"drop_path_prob": 0.2, "depth": 2})
    straight, early = _trainer(config), _trainer(config)
    for step in range(6):
        straight.train_step(*_views(step))
    for step in range(3):
        early.train_step(*_views(step))
    torch.manual_seed(99)  # another process has another global state
    late = _trainer(config)
    late.load_state_dict(early.state_dict())
    for step in range(3, 6):
        late.train_step(*_views(step))
    for part in ("student", "teacher", "centre"):
        ours, theirs = straight.state_dict()[part], late.state_dict()[part]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert straight.meters.read() == late.meters.read()


def test_a_few_crops_are_learned_by_heart(make: Make) -> None:
    """Loss well below ln K, without collapse: entropy of a crop below that of the batch."""
    config = make(
        epochs=1,
        optim={"learning_rate": 3e-3, "learning_rate_scaling": "none"},
        dino={"momentum": 0.9},
        sinkhorn={"use": True, "eps": 0.03},
        koleo={"weight": 0.1},
    )
    trainer = _trainer(config, total_steps=150)
    views = _views(0)
    views = (views[0][:1].expand(2, -1, -1, -1, -1), views[1])
    for _ in range(150):
        trainer.train_step(*views)
        if trainer.step == 140:
            trainer.meters.read()
    record = trainer.meters.read()
    assert record["train/loss_dino"] < 0.8 * math.log(16)
    assert record["teacher/entropy_sample"] < record["teacher/entropy_batch"] - 0.5


def test_the_exported_part_is_the_teachers_backbone(make: Make) -> None:
    trainer = _trainer(make())
    trainer.train_step(*_views(0))
    exported = teacher_backbone(trainer.state_dict())
    assert set(exported) == set(trainer.teacher.backbone.state_dict())
    assert torch.equal(exported["norm.weight"], trainer.teacher.backbone.norm.weight)


def test_the_standardised_head_is_the_same_in_student_and_teacher(make: Make) -> None:
    trainer = _trainer(make())
    images = _views(5)[0].flatten(0, 1)
    before = trainer.probe(images)["probe/assignment_information"]
    trainer.standardize_head(images)
    student, teacher = trainer.student.head.state_dict(), trainer.teacher.head.state_dict()
    assert all(torch.equal(student[name], teacher[name]) for name in student)
    assert trainer.probe(images)["probe/assignment_information"] > 1.2 * before
