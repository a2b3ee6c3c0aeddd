"""Whatever settings say, a pretraining ends well or with a line for the user, on a CPU and on a pretended GPU."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import pytest

from signstreams.errors import UserError
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

NUM_SEEDS = 8
# Nothing that only costs time or processes, and what would be another test.
LEFT = {"device", "distributed", "resume", "on_conflict", "tracking", "experiment", "epochs", "stream", "threads"}
LEFT |= {"num_workers", "depth", "compile", "min_free_gb", "labels", "download", "patch_px", "global_px", "local_px"}
LEFT |= {"crop_px", "probe_crops", "epoch_steps"}


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_a_run_ends_well_or_says_why(
    seed: int,
    tiny: dict[str, Any],
    random_settings: ModuleType,
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
) -> None:
    rng = random.Random(seed)
    base = {**tiny, "epochs": 1, "optim": {"compile": False}}
    if rng.random() < 0.5:
        del base["dino"], base["sinkhorn"]  # chosen for the number of crops
    on_gpu = rng.random() < 0.5
    base["device"] = "cuda" if on_gpu else "cpu"

    def config() -> PretrainConfig:
        drawn = random_settings.draw(PretrainConfig, rng, share=0.1, leave=LEFT)
        return PretrainConfig.model_validate(random_settings.merged(base, drawn))

    found = random_settings.first_valid(config)
    try:
        with pretend_cuda() if on_gpu else contextlib.nullcontext():
            target = pretrain(found, "hand_r")
            again = pretrain(found, "hand_r")
    except UserError as said:
        assert all(said.problems)
    else:
        assert target == again == found.output_dir / "backbone.pt"
        assert target.exists()
