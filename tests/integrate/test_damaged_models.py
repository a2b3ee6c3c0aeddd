"""A trained model whose files were moved, damaged or changed: one line that says which, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.trained_model import load_trained_model
from signstreams.streams import BACKBONE_KEYS, STREAMS


def load(path: Path, **changes: object) -> Any:
    return load_trained_model(EvaluateSltConfig.model_validate({"checkpoint": path, **changes}))


def copied(config: IntegrateConfig, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("best.pt", "tokenizer.json"):
        shutil.copy(config.output_dir / name, folder)
    return folder / "best.pt"


def backbone_of(config: IntegrateConfig, stream: str) -> Path:
    return Path(config.model.backbones[stream].removeprefix("file::").partition(":")[0])


@pytest.fixture
def away(trained: IntegrateConfig, tmp_path: Path) -> Path:
    """The model in another folder, of a config whose backbones are no longer where they were."""
    path = copied(trained, tmp_path / "bundle" / "translation")
    content = checkpoint.load(path)
    for stream in STREAMS:
        content["config"]["model"][BACKBONE_KEYS[stream]] = f"file::{tmp_path}/gone/{stream}.pt"
    torch.save(content, path)
    return path


def test_backbones_that_were_moved_are_to_be_named(trained: IntegrateConfig, away: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(away)
    assert len(caught.value.problems) == 3
    assert "gone/face.pt: no such file, expected the backbone that" in caught.value.problems[0]
    assert caught.value.problems[0].endswith("; name it with --face-backbone file::PATH")
    named = {BACKBONE_KEYS[stream]: f"file::{backbone_of(trained, stream)}" for stream in STREAMS}
    assert load(away, **named).path == away
    with pytest.raises(UserError, match=r"absent\.pt: no such file"):
        load(away, **{**named, "face_backbone": f"file::{tmp_path}/absent.pt"})


@pytest.mark.parametrize("layout", ["release", "work_dirs"])
def test_a_release_and_a_moved_work_directory_load_by_their_one_name(
    trained: IntegrateConfig, away: Path, layout: str
) -> None:
    bundle = away.parent.parent
    for stream in STREAMS:
        folder = (
            bundle
            / ("backbones" if layout == "release" else "")
            / (stream if layout == "release" else f"dino_{stream}")
        )
        folder.mkdir(parents=True)
        shutil.copy(backbone_of(trained, stream), folder / "backbone.pt")
    if layout == "work_dirs":
        away.parent.rename(bundle / "multistream_v9")
    model = load(bundle)
    assert model.path.parent.parent == bundle
    assert all(str(bundle) in spec for spec in model.config.model.backbones.values())
    torch.save({}, bundle / ("backbones/face" if layout == "release" else "dino_face") / "backbone.pt")
    with pytest.raises(UserError, match=r"face_backbone: .*gone/face\.pt: no such file"):  # another is not taken
        load(bundle)


def test_another_backbone_at_the_place_of_the_training_is_not_taken_for_its_own(
    trained: IntegrateConfig, away: Path
) -> None:
    """As where a release is loaded beside a run of one's own."""
    bundle, places = away.parent.parent, {}
    for stream in STREAMS:
        places[stream] = bundle / "backbones" / stream / "backbone.pt"
        places[stream].parent.mkdir(parents=True)
        shutil.copy(backbone_of(trained, stream), places[stream])
    gone = bundle.parent / "gone"
    gone.mkdir()
    shutil.copy(places["hand_l"], gone / "face.pt")
    assert str(bundle) in load(bundle).config.model.backbones["face"]
    shutil.copy(places["hand_l"], places["face"])  # nor is it in the bundle
    with pytest.raises(UserError, match=r"face_backbone: its SHA-256 is \w{12}, but"):
        load(bundle)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this folder has none of best\.pt, translation/best\.pt, .*; name its best"):
        load(tmp_path)


KEYS = (
    "config",
    "model",
    "backbone_sha256",
    "token_roles",
    "glosses",
    "decoder",
    "extraction",
    "step",
    "num_train_clips",
)


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_that_is_absent_or_something_else_is_named(key: str, trained: IntegrateConfig, tmp_path: Path) -> None:
    path = copied(trained, tmp_path / "run")
    content = checkpoint.load(path)
    for value in (..., 3.5, [torch.ones(1)]):
        changed = {name: entry for name, entry in content.items() if name != key}
        if value is not ...:
            changed[key] = value
        torch.save(changed, path)
        with pytest.raises(UserError, match=rf"best\.pt: its {key} .*; it is damaged or of another version"):
            load(path)


def test_sizes_that_the_weights_do_not_have_take_no_memory(trained: IntegrateConfig, tmp_path: Path) -> None:
    path = copied(trained, tmp_path / "run")
    content = checkpoint.load(path)
    for key, value in (
        ("num_decoder_layers", 10**6),
        ("d_ff", 10**9),
        ("vocab_size", 10**9),
        ("d_model", 10**6),
        ("model_type", "no such model"),
        ("num_heads", "many"),
    ):
        decoder = json.loads(content["decoder"])
        assert key in decoder
        torch.save({**content, "decoder": json.dumps({**decoder, key: value})}, path)
        with pytest.raises(UserError, match=r"best\.pt: (its decoder is damaged|weights, config and tokenizer do not)"):
            load(path)
    for section, key, value in (("model", "d_model", 10**6), ("model", "num_layers", 10**6)):
        config = {**content["config"], section: {**content["config"][section], key: value}}
        torch.save({**content, "config": config}, path)
        with pytest.raises(
            UserError, match=r"best\.pt: (its config does not fit|weights, config and tokenizer do not)"
        ):
            load(path)
    torch.save({**content, "decoder": "{" * 100}, path)
    with pytest.raises(UserError, match=r"best\.pt: its decoder is damaged"):
        load(path)


def test_weights_that_are_not_finite_are_refused(trained: IntegrateConfig, tmp_path: Path) -> None:
    path = copied(trained, tmp_path / "run")
    content = checkpoint.load(path)
    next(iter(content["model"].values())).view(-1)[0] = torch.inf
    torch.save(content, path)
    with pytest.raises(UserError, match=r"best\.pt: its weights are not finite, .* lower optim\.lr"):
        load(path)


@pytest.mark.parametrize(
    "roles", [{}, {"pad": 0}, {"pad": "0"}, {"pad": -1}, {"eos": 10**9}, {"never": [10**9]}, {"never": 5}, {"other": 1}]
)
def test_roles_of_tokens_that_are_none_are_one_line(
    roles: dict[str, Any], trained: IntegrateConfig, tmp_path: Path
) -> None:
    path = copied(trained, tmp_path / "run")
    content = checkpoint.load(path)
    known = {"pad": 0, "eos": 1, "start": 0, "first": None, "never": [0, 2]}
    torch.save({**content, "token_roles": roles if roles in ({}, {"pad": 0}) else known | roles}, path)
    with pytest.raises(UserError, match=r"best\.pt: its token_roles"):
        load(path)
