"""A run whose metrics also go elsewhere is the run that it is without."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.engine.metrics import read_metrics
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig


def test_a_sink_that_draws_numbers_and_then_fails_changes_no_bit(
    make: Callable[..., PretrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []

    def log(numbers: dict[str, float], step: int) -> None:
        random.random()
        seen.append(step)
        if len(seen) == 2:
            raise ConnectionError("no route to host")

    fake = ModuleType("wandb")
    run = SimpleNamespace(id="a", offline=True, log=log, finish=lambda exit_code: None)
    vars(fake).update(init=lambda **words: run, Settings=lambda **words: words)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    plain = make(output_dir=str(tmp_path / "plain"))
    tracked = make(output_dir=str(tmp_path / "tracked"), tracking={"wandb": "señas"})
    threads = torch.get_num_threads()
    try:
        files = [pretrain(config, "hand_r") for config in (plain, tracked)]
    finally:
        torch.set_num_threads(threads)
    assert seen == [2, 4]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "wandb" in r.getMessage()]
    assert len(warnings) == 1 and "no route to host" in warnings[0]
    assert files[0].read_bytes() == files[1].read_bytes()
    losses: list[Any] = [[line.get("train/loss") for line in read_metrics(f.parent / "metrics.jsonl")] for f in files]
    assert losses[0] == losses[1] and len(losses[0]) > 2
    assert tracked.output_dir.joinpath("state", "tracking.json").exists()
    monkeypatch.delitem(sys.modules, "wandb")
    assert pretrain(plain.model_copy(update={"output_dir": tracked.output_dir, "resume": "must"}), "hand_r")  # same run
