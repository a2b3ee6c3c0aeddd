"""The bag of glosses: counted by hand, blind to order and padding, and part of a run's loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from signstreams.engine.metrics import read_metrics
from signstreams.integrate.losses import bag_loss
from signstreams.integrate.run import run
from signstreams.integrate.settings import IntegrateConfig


def test_it_is_what_one_counts_by_hand() -> None:
    probs = torch.tensor([[[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]]])  # blank and two glosses, two steps
    total = bag_loss(probs.log(), torch.ones(1, 2, dtype=torch.bool), [[1]])
    assert float(total) == pytest.approx(-(math.log(0.7) + math.log(1 - 0.3)) / 2, rel=1e-5)


def test_order_repetition_and_padding_do_not_count() -> None:
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    value = bag_loss(logits, mask, [[1, 2], [3]])
    logits[1, 2:] = 50.0
    assert torch.equal(bag_loss(logits, mask, [[2, 1, 2], [3]]), value)


def test_no_gloss_is_zero_and_still_has_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, requires_grad=True)
    total = bag_loss(logits, torch.ones(1, 3, dtype=torch.bool), [None])
    total.backward()
    assert total.item() == 0 and not logits.grad.any()


def test_a_run_adds_it_to_its_loss(tiny_config: Callable[..., IntegrateConfig], tmp_path: Path) -> None:
    config = tiny_config(output_dir=tmp_path / "out", mska={"bag_weight": 3.0}, train={"epochs": 1})
    run(config)
    record = next(r for r in read_metrics(config.output_dir / "metrics.jsonl") if "val/loss_bag" in r)
    terms = {name: record[f"val/loss_{name}"] for name in ("translation", "ctc", "distillation", "bag")}
    assert terms["bag"] > 0
    assert record["val/loss"] == pytest.approx(sum(terms.values()) + 2 * terms["bag"], rel=1e-5)
