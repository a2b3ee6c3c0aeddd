"""What is gathered between two lines of metrics."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from signstreams.pretrain.health import Meters, count_best


def _read(targets: Tensor) -> dict[str, float]:
    meters = Meters(targets.shape[-1], torch.device("cpu"))
    one = torch.tensor(1.0)
    meters.add(loss=one, dino=one * 2, koleo=one, targets=targets, grad_norm=one, is_bad=torch.tensor(False))
    return meters.read()


def test_entropies_tell_learning_from_both_collapses() -> None:
    eye = torch.eye(8).reshape(2, 4, 8)
    sharp_and_spread = _read(eye)
    assert sharp_and_spread["teacher/entropy_sample"] == pytest.approx(0.0)
    assert sharp_and_spread["teacher/entropy_batch"] == pytest.approx(math.log(8))
    assert sharp_and_spread["teacher/prototypes_used_ratio"] == 1.0
    one_wins = _read(eye[:1, :1].expand(2, 4, 8))
    assert one_wins["teacher/entropy_batch"] == pytest.approx(0.0)
    assert one_wins["teacher/prototypes_used_ratio"] == 1 / 8
    flat = _read(torch.full((2, 4, 8), 1 / 8))
    assert flat["teacher/entropy_sample"] == pytest.approx(math.log(8))
    assert flat["train/kl"] == pytest.approx(2 - math.log(8), rel=1e-5)


def test_losses_that_are_not_finite_are_counted_in_a_row() -> None:
    meters = Meters(4, torch.device("cpu"))
    for is_bad in (False, True, True, False, True):
        value = torch.tensor(float("nan") if is_bad else 1.0)
        meters.add(
            loss=value,
            dino=value,
            koleo=value,
            targets=torch.full((2, 3, 4), 0.25),
            grad_norm=value,
            is_bad=torch.tensor(is_bad),
        )
    assert meters.num_bad_in_a_row() == 2
    assert meters.read()["train/loss"] == 1.0


def _step(targets: Tensor, value: float = 1.0, *, is_bad: bool = False) -> dict[str, Tensor]:
    scalars = {name: torch.tensor(value) for name in ("loss", "dino", "koleo", "grad_norm")}
    return scalars | {"targets": targets, "is_bad": torch.tensor(is_bad)}


def _targets(seed: int, batch: int = 3) -> Tensor:
    return (2 * torch.randn(2, batch, 5, generator=torch.Generator().manual_seed(seed))).softmax(dim=-1)


def test_a_reading_is_the_mean_over_its_steps_and_begins_anew() -> None:
    meters, targets = Meters(5, torch.device("cpu")), [_targets(seed) for seed in range(3)]
    for rows, value in zip(targets, (1.0, 2.0, 6.0), strict=True):
        meters.add(**_step(rows, value))
    record = meters.read()
    rows = torch.cat(targets).flatten(0, 1).double()  # (18, 5)
    entropies = [-sum(float(p) * math.log(float(p)) for p in row) for row in rows]
    mean = rows.mean(dim=0)
    assert (record["train/loss"], record["train/grad_norm"]) == (3.0, 3.0)
    assert record["teacher/entropy_sample"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert record["teacher/entropy_batch"] == pytest.approx(-float((mean * mean.log()).sum()), rel=1e-5)
    assert record["train/kl"] == pytest.approx(3.0 - record["teacher/entropy_sample"])
    meters.add(**_step(torch.eye(5)[None], 7.0))
    again = meters.read()
    assert (again["train/loss"], again["teacher/entropy_sample"]) == (7.0, 0.0)
    assert again["teacher/entropy_batch"] == pytest.approx(math.log(5))


def test_a_bad_step_enters_nothing_that_is_read() -> None:
    both, good = (Meters(5, torch.device("cpu")) for _ in range(2))
    rows = torch.eye(5)[:2].repeat(2, 1, 1)  # prototypes 0 and 1 win
    for meters in (both, good):
        meters.add(**_step(rows))
    both.add(**_step(torch.eye(5)[3:].repeat(2, 1, 1), math.nan, is_bad=True))
    both.add(**_step(torch.full((2, 2, 5), math.nan), math.nan, is_bad=True))
    assert both.read() == good.read()
    both.add(**_step(rows, math.nan, is_bad=True))
    assert all(math.isnan(value) for value in both.read().values())  # nothing but bad steps


def test_the_winners_are_counted_as_bincount_counts_them() -> None:
    counts, rows = torch.arange(5), _targets(0, batch=50).flatten(0, 1)
    expected = torch.arange(5) + torch.bincount(rows.argmax(dim=-1), minlength=5)
    count_best(counts, rows, torch.tensor(False))
    assert torch.equal(counts, expected)


def test_a_later_process_reads_what_an_earlier_one_added() -> None:
    early, late, straight = (Meters(5, torch.device("cpu")) for _ in range(3))
    for meters in (early, straight):
        meters.add(**_step(_targets(0)))
        meters.add(**_step(_targets(1), math.nan, is_bad=True))
    late.load_state_dict(early.state_dict())
    early.add(**_step(_targets(5)))  # what is kept is a copy
    for meters in (late, straight):
        meters.add(**_step(_targets(2), math.nan, is_bad=True))
    assert late.num_bad_in_a_row() == straight.num_bad_in_a_row() == 2
    assert late.read() == straight.read()


@pytest.mark.parametrize(
    ("num_rows", "num_winners", "expected"), [(6, 6, 1.0), (6, 3, 0.5), (64, 32, 1.0), (64, 8, 0.25)]
)
def test_the_share_of_used_prototypes_is_of_those_that_could_win(
    num_rows: int, num_winners: int, expected: float
) -> None:
    """Of 32 prototypes, by windows with fewer and with more rows than that."""
    rows = torch.eye(32)[torch.arange(num_rows) % num_winners]
    assert _read(rows[None])["teacher/prototypes_used_ratio"] == expected
