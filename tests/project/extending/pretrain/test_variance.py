"""The spread term: what it asks for, what it changes, and that it is off unless asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from signstreams.engine.metrics import read_metrics
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.variance import spread_loss

Make = Callable[..., PretrainConfig]


def test_crops_that_are_alike_cost_nearly_the_floor_and_spread_ones_nothing() -> None:
    alike = torch.ones(2, 8, 4)
    assert float(spread_loss(alike, floor=0.5)) == pytest.approx(0.49)  # the root of 1e-4 is left
    assert float(spread_loss(torch.eye(8).expand(2, 8, 8) - 1 / 8, floor=0.5)) == 0


def test_order_and_length_do_not_count() -> None:
    tokens = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    value = spread_loss(tokens, floor=1.0)
    assert float(spread_loss(3 * tokens.flip(1), floor=1.0)) == pytest.approx(float(value), rel=1e-5)


def test_a_step_against_the_gradient_spreads() -> None:
    noise = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0))
    tokens = (torch.ones(1, 8, 4) + 0.01 * noise).requires_grad_()
    before = spread_loss(tokens, floor=1.0)
    before.backward()
    assert spread_loss(tokens.detach() - 0.1 * tokens.grad, floor=1.0) < before


def test_a_run_takes_it_in_and_says_so(make: Make) -> None:
    config = make(spread={"weight": 2.0, "floor": 1.0})
    pretrain(config, "hand_r")
    record = next(r for r in read_metrics(config.output_dir / "metrics.jsonl") if "train/loss_spread" in r)
    assert record["train/loss_spread"] > 0
    assert record["train/loss"] == pytest.approx(record["train/loss_dino"] + 2 * record["train/loss_spread"], rel=1e-4)


def test_a_floor_without_weight_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"spread\.floor has no effect"):
        make(spread={"floor": 0.9})
