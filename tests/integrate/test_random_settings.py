"""Whatever settings say, a training and its evaluation end well or with a line for the user: never with a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from signstreams.errors import UserError
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig

NUM_SEEDS = 8
# Nothing that only costs time, and what would be another test.
LEFT = {"device", "distributed", "resume", "on_conflict", "tracking", "experiment", "epochs", "subset_size"}
LEFT |= {"vocab_size", "max_tokens", "head_ff_dim", "offline", "preset", "download", "lr", "max_frames"}
BACKBONES = ("face_backbone", "hand_left_backbone", "hand_right_backbone")


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_a_run_ends_well_or_says_why(
    seed: int,
    tiny_config: Callable[..., IntegrateConfig],
    make_corpus: Callable[..., Path],
    random_settings: ModuleType,
    tmp_path: Path,
) -> None:
    rng = random.Random(seed)
    root = make_corpus(
        tmp_path / "corpus",
        sizes={"train": rng.choice([1, 5]), "val": 1, "test": 2},
        frames_each=rng.choice([1, 6]),
        has_gloss=rng.random() < 0.8,
        missing_ratio=rng.choice([0.15, 0.15, 1.0]),
    )
    output_dir = tmp_path / "out"
    base = {"root": root, "output_dir": output_dir, "train": {"epochs": 1}, "data": {"unknown_gloss": "count"}}

    def config() -> IntegrateConfig:
        drawn = random_settings.draw(IntegrateConfig, rng, share=0.08, leave=LEFT)
        drawn.setdefault("model", {}).update({key: ... for key in BACKBONES if rng.random() < 0.3})
        return tiny_config(**random_settings.merged(base, drawn))

    def scoring() -> EvaluateSltConfig:
        drawn = random_settings.draw(EvaluateSltConfig, rng, share=0.3, leave=LEFT)
        return EvaluateSltConfig.model_validate({**drawn, "checkpoint": output_dir / "best.pt"})

    try:
        run(random_settings.first_valid(config))
        score(random_settings.first_valid(scoring))
    except UserError as said:
        assert all(said.problems)
    else:
        assert (output_dir / "scores.json").exists()
