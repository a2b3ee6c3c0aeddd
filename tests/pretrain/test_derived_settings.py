"""What the length of the run and the number of crops decide, and that a setting wins over them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from signstreams.pretrain.derived_settings import (
    LONG_STEPS,
    derive_settings,
    momentum_for,
    prototypes_for,
    teacher_temp_for,
)
from signstreams.pretrain.settings import PretrainConfig

Make = Callable[..., PretrainConfig]
OPEN = {"dino": {"batch_norm": None, "bottleneck_dim": None}, "sinkhorn": {"use": None}}


def test_choices_follow_the_volume_of_data(make: Make) -> None:
    counts = [1_000, 10_000, 60_000, 10_000_000]
    assert [prototypes_for(count) for count in counts] == [256, 1024, 4096, 65_536]
    temps = [teacher_temp_for(count, 10**6) for count in counts]
    assert temps == sorted(temps)
    assert (temps[0], temps[-1]) == (0.025, 0.07)
    assert [momentum_for(steps) for steps in (100, 25_000, 10_000_000)] == [0.95, 0.996, 0.9995]
    config = make(epochs=3, optim={"learning_rate": 1e-3}, dino={"num_prototypes": None, "hidden_dim": None})
    settled = derive_settings(config, num_crops=1000, global_batch=64)
    assert (settled.epoch_steps, settled.total_steps) == (15, 45)
    assert settled.peak_learning_rate == pytest.approx(0.25e-3)
    assert (settled.num_prototypes, settled.hidden_dim) == (256, 512)
    root = derive_settings(
        make(optim={"learning_rate": 1e-3, "learning_rate_scaling": "sqrt"}), num_crops=1000, global_batch=64
    )
    assert root.peak_learning_rate == pytest.approx(0.5e-3)
    assert derive_settings(make(dataset={"epoch_steps": 7}), num_crops=1000, global_batch=64).total_steps == 14


@pytest.mark.parametrize("num_crops", [500, 20_000, 20_001, 50_000, 2_000_000])
@pytest.mark.parametrize(("steps", "is_short"), [(240, True), (LONG_STEPS - 1, True), (LONG_STEPS, False)])
def test_the_steps_choose_the_head_and_targets_are_always_balanced(
    make: Make, num_crops: int, steps: int, is_short: bool
) -> None:
    config = make(epochs=1, dataset={"epoch_steps": steps}, **OPEN)
    derived = derive_settings(config, num_crops=num_crops, global_batch=256)
    assert (derived.batch_norm, derived.use_sinkhorn) == (is_short, True)


def test_no_number_of_crops_or_steps_is_a_cliff(make: Make) -> None:
    """Up to 20,000 crops a run had all that makes it leave its start, and one more had none of it."""
    config = make(
        epochs=100, dataset={"epoch_steps": None}, **(OPEN | {"dino": OPEN["dino"] | {"num_prototypes": None}})
    )
    few, more = (derive_settings(config, num_crops=count, global_batch=512) for count in (20_000, 20_600))
    assert (few.batch_norm, few.use_sinkhorn) == (more.batch_norm, more.use_sinkhorn) == (True, True)
    assert more.teacher_temp - few.teacher_temp < 0.001
    assert (few.num_prototypes, more.num_prototypes) == (1024, 2048)  # the table's next row
    temps = [teacher_temp_for(round(20_000 * 1.1**i), 10**6) for i in range(50)]
    by_steps = [teacher_temp_for(10**7, round(2_500 * 1.1**i)) for i in range(50)]
    for values in (temps, by_steps):
        assert values == sorted(values) and max(b - a for a, b in itertools.pairwise(values)) < 0.002


def test_fifty_thousand_crops_on_eight_processes_are_a_short_run(make: Make) -> None:
    config = make(epochs=100, dataset={"epoch_steps": 48}, **OPEN)
    derived = derive_settings(config, num_crops=50_000, global_batch=1024)
    assert derived.total_steps == 4_800 and derived.batch_norm and derived.use_sinkhorn
    assert derived.teacher_temp == pytest.approx(0.033, abs=5e-4)  # by the steps: the crops alone would give .035


@pytest.mark.parametrize(
    ("num_targets", "expected"), [(10**9, 65_536), (6_553_600, 65_536), (6_553_599, 32_768), (1, 256)]
)
def test_a_short_run_over_many_crops_has_fewer_prototypes(num_targets: int, expected: int) -> None:
    assert prototypes_for(2_000_000, num_targets) == expected


def test_the_recipes_for_a_few_cpu_minutes_keep_what_they_had(make: Make) -> None:
    """config/pretrain/small.toml and the demo's: 2,600 steps of 64 crops (800 before) and 240."""
    open_head = {"batch_norm": None, "bottleneck_dim": None, "num_prototypes": None, "hidden_dim": None}
    for steps, num_crops in ((240, 2_121), (800, 1_642), (800, 5_000), (2_600, 1_642)):
        config = make(epochs=1, dataset={"epoch_steps": steps}, dino=open_head, sinkhorn={"use": None})
        now, before = (
            derive_settings(config, num_crops=num_crops, global_batch=64, is_earlier=is_earlier)
            for is_earlier in (False, True)
        )
        assert now == before


@pytest.mark.parametrize(("num_crops", "is_small"), [(500, True), (20_000, True), (20_001, False)])
def test_a_run_of_an_earlier_version_ends_by_its_rule(make: Make, num_crops: int, is_small: bool) -> None:
    derived = derive_settings(make(**OPEN), num_crops=num_crops, global_batch=8, is_earlier=True)
    assert (derived.batch_norm, derived.use_sinkhorn) == (is_small, is_small)
    assert derived.bottleneck_dim == (64 if is_small else 256)
    assert derived.teacher_temp == (0.025 if is_small else pytest.approx(0.04, abs=1e-3))


@pytest.mark.parametrize("is_set", [True, False])
def test_a_setting_wins_over_steps_and_crops(make: Make, is_set: bool) -> None:
    config = make(dino={"batch_norm": is_set, "bottleneck_dim": 32, "teacher_temp": 0.06}, sinkhorn={"use": is_set})
    for num_crops in (100, 200_000):
        derived = derive_settings(config, num_crops=num_crops, global_batch=8)
        assert (derived.batch_norm, derived.use_sinkhorn) == (is_set, is_set)
        assert (derived.bottleneck_dim, derived.teacher_temp) == (32, 0.06)


def test_choices_know_whether_there_are_weights(make: Make) -> None:
    scratch, trained = (
        derive_settings(make(**changes), num_crops=800_000, global_batch=8)
        for changes in ({}, {"init": {"weights": "timm::x"}})
    )
    assert (scratch.head_only_steps, scratch.layer_decay, scratch.patch_embed_factor) == (0, 1.0, 1.0)
    assert (trained.head_only_steps, trained.layer_decay, trained.patch_embed_factor) == (2000, 0.9, 0.2)
    short = derive_settings(make(init={"weights": "timm::x"}), num_crops=80, global_batch=8)
    assert short.head_only_steps == 1


@pytest.mark.parametrize(
    ("num_crops", "expected"),
    [(1, 256), (5_000, 256), (5_001, 1024), (200_000, 16_384), (500_000, 32_768), (500_001, 65_536)],
)
def test_each_row_of_the_table_includes_its_limit(num_crops: int, expected: int) -> None:
    assert prototypes_for(num_crops) == expected


def test_the_temperature_rises_with_the_logarithm_of_the_data() -> None:
    half = round(math.sqrt(20_000 * 1_280_000))  # as many times the lower end as the upper end is of it
    assert teacher_temp_for(half, 10**6) == teacher_temp_for(10**9, round(math.sqrt(2_500 * 100_000))) == 0.0475
    assert teacher_temp_for(20_000, 10**6) == teacher_temp_for(10**9, 2_500) == teacher_temp_for(1, 0) == 0.025
    assert teacher_temp_for(10**9, 10**6) == 0.07


def test_the_warm_up_of_the_temperature_never_comes_down(make: Make) -> None:
    open_temps = {"dino": {"warmup_teacher_temp": None, "teacher_temp": None}}
    for num_crops in (1_000, 50_000, 2_000_000):
        derived = derive_settings(make(**open_temps), num_crops=num_crops, global_batch=8)
        assert derived.warmup_teacher_temp == min(0.04, derived.teacher_temp)


def test_shares_of_the_run_become_steps(make: Make) -> None:
    config = make(
        epochs=10,
        optim={"warmup_ratio": 0.25},
        dino={"teacher_temp_warmup_ratio": 0.5, "freeze_prototypes_ratio": 0.003},
    )
    derived = derive_settings(config, num_crops=107, global_batch=10)  # what is over fills no batch
    assert (derived.epoch_steps, derived.total_steps) == (10, 100)
    assert (derived.warmup_steps, derived.teacher_temp_warmup_steps) == (25, 50)
    assert derived.freeze_prototypes_steps == 1  # a share above none is a step at least
    none = make(epochs=10, dino={"freeze_prototypes_ratio": 0.0})
    assert derive_settings(none, num_crops=100, global_batch=10).freeze_prototypes_steps == 0


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_the_rate_follows_the_batch_of_all_processes(make: Make, scaling: str, factor: float) -> None:
    config = make(optim={"learning_rate": 1e-3, "learning_rate_scaling": scaling})
    assert derive_settings(config, num_crops=10_000, global_batch=1024).peak_learning_rate == pytest.approx(
        factor * 1e-3
    )


@pytest.mark.parametrize(("batch", "factor"), [(64, 0.25), (256, 1), (1024, 4), (1025, 4.002), (4096, 8), (16_384, 16)])
def test_by_default_the_rate_is_in_proportion_up_to_a_batch_and_goes_by_the_root_from_there(
    make: Make, batch: int, factor: float
) -> None:
    config = make(optim={"learning_rate": 1e-3})
    found = derive_settings(config, num_crops=100_000, global_batch=batch)
    assert found.peak_learning_rate == pytest.approx(factor * 1e-3, rel=1e-4)
    linear = make(optim={"learning_rate": 1e-3, "learning_rate_scaling": "linear"})
    assert (linear.identity(batch // 8) == config.identity(batch // 8)) == (batch // 8 * 8 <= 1024)


def test_the_head_never_learns_alone_for_longer_than_the_run(make: Make) -> None:
    config = make(epochs=1, init={"weights": "timm::x", "head_only_steps": 500})
    assert derive_settings(config, num_crops=80, global_batch=8).head_only_steps == 10


def test_the_layers_of_the_head_grow_with_the_prototypes(make: Make) -> None:
    for num_prototypes, hidden_dim in ((2048, 512), (4096, 2048)):
        config = make(dino={"num_prototypes": num_prototypes, "hidden_dim": None})
        assert derive_settings(config, num_crops=100, global_batch=8).hidden_dim == hidden_dim


@pytest.mark.parametrize(
    ("length", "num_crops", "expected"),
    [
        ({"epochs": 100}, 2_000_000, 1_562_500),  # what is asked for
        ({"epochs": None}, 2_000_000, 156_250),  # 20 million views
        ({"epochs": None}, 6_400, 5_000),  # 100 passes
        ({"epochs": None, "budget": {"views": 1_280_000}}, 2_000_000, 10_000),
        ({"epochs": None, "budget": {"views": 1}}, 6_400, 1),
        ({"epochs": None, "dataset": {"epoch_steps": 10}}, 2_000_000, 1_000),
    ],
)
def test_the_length_is_what_is_set_or_a_budget_of_views(
    make: Make, length: dict[str, Any], num_crops: int, expected: int
) -> None:
    assert derive_settings(make(**length), num_crops=num_crops, global_batch=128).total_steps == expected


def test_a_budget_beside_epochs_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"budget\.views.*epochs is set"):
        make(budget={"views": 100})


def test_a_run_of_an_earlier_version_without_epochs_keeps_its_hundred(make: Make) -> None:
    derived = derive_settings(make(epochs=None), num_crops=2_000_000, global_batch=128, is_earlier=True)
    assert derived.total_steps == 1_562_500
