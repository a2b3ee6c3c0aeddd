"""Runs and models of before MSKA had all layers of the authors' code: they load, go on, and stay what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.run import run
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.trained_model import load_trained_model

from .models import model_of
from .test_mska import nodes

Build = Callable[..., IntegrateConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
SETTINGS: dict = {
    "model": {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...},
    "data": {"subset_size": 8},
    "decoder": {"max_tokens": 12},
    "train": {"epochs": 2},
}
NEW = "mska.encoders.left.embed_norm.weight"


def as_before(folder: Path) -> None:
    """Leave what an earlier version would have: no setting names the layers, and none the norm."""
    for path in {*folder.glob("state/*.pt"), *folder.glob("*.pt")}:
        content = checkpoint.load(path)
        for name in ("layers", "norm"):
            del content["config"]["mska"][name]
        path.unlink()  # the two names are links
        checkpoint.save(path, content)
    recorded = json.loads((folder / "state" / "fingerprint.json").read_text())
    assert not {"layers", "norm"} & recorded["config"]["mska"].keys()


@pytest.fixture
def earlier(tiny_config: Build, tmp_path: Path, stopped_at: StoppedAt) -> IntegrateConfig:
    """Config, as it was written then, of a run of an earlier version that was stopped after its first epoch."""
    config = tiny_config(output_dir=tmp_path / "run", **SETTINGS)
    with stopped_at(3):
        run(tiny_config(output_dir=tmp_path / "run", mska={"layers": "reduced"}, **SETTINGS))
    as_before(config.output_dir)
    return config


def test_a_run_of_before_goes_on_to_the_model_that_it_would_have_become(
    earlier: IntegrateConfig, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert earlier.mska.layers == "published"
    run(earlier)
    assert "a run of an earlier version, whose MSKA has fewer layers; it stays so (mska.layers: reduced)" in caplog.text
    whole = tiny_config(output_dir=tmp_path / "whole", mska={"layers": "reduced"}, **SETTINGS)
    run(whole)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.load(config.output_dir / name) for config in (earlier, whole))
        assert ours["config"]["mska"]["layers"] == "reduced" and NEW not in ours["model"]
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
    caplog.clear()
    run(earlier)  # it is finished, and no other experiment
    assert "steps are done already" in caplog.text


def test_a_run_that_starts_anew_or_names_its_layers_has_those_of_now(earlier: IntegrateConfig) -> None:
    named = earlier.model_copy(update={"mska": earlier.mska.model_validate({**earlier.mska.model_dump()})})
    with pytest.raises(UserError, match=r"mska\.layers is .* there, .*published.* here"):
        run(named)
    run(earlier.model_copy(update={"resume": "never", "on_conflict": "archive"}))
    best = checkpoint.load(earlier.output_dir / "best.pt")
    assert best["config"]["mska"]["layers"] == "published" and NEW in best["model"]
    (moved,) = (earlier.output_dir / "previous").iterdir()
    assert NEW not in checkpoint.load(moved / "state" / "last.pt")["model"]


def test_a_model_of_before_loads_and_says_what_it_said(earlier: IntegrateConfig) -> None:
    run(earlier)
    written = load_trained_model(EvaluateSltConfig(checkpoint=earlier.output_dir / "best.pt"))
    as_before(earlier.output_dir)
    read = load_trained_model(EvaluateSltConfig(checkpoint=earlier.output_dir / "best.pt"))
    assert read.config.mska.layers == "reduced"
    clips, lengths = nodes(2, 14), torch.tensor([14, 9])
    torch.testing.assert_close(read.model.mska(clips, lengths)[1], written.model.mska(clips, lengths)[1])


def test_another_run_that_starts_from_a_model_of_before_is_told_of_its_layers(
    earlier: IntegrateConfig, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told = "its MSKA has fewer layers than this one; to keep them, set mska.layers to reduced"
    settings = {**SETTINGS, "train": {"epochs": 1, "init_checkpoint": earlier.output_dir / "best.pt"}}
    run(tiny_config(output_dir=tmp_path / "a", **settings))
    assert told in caplog.text and NEW.replace("weight", "") in caplog.text
    caplog.clear()
    run(tiny_config(output_dir=tmp_path / "b", mska={"layers": "reduced"}, **settings))
    assert told not in caplog.text and "keep their initial weights" not in caplog.text


def test_parameters_keep_the_order_by_which_the_state_of_an_optimizer_knows_them() -> None:
    model = model_of(IntegrateConfig.model_validate({"mska": {"gloss_fusion": "concat"}}))
    owners = dict.fromkeys(name.partition(".")[0] for name, _ in model.named_parameters())
    assert list(owners) == ["mska", "fusion", "gloss_map", "gloss_join", "decoder"]
