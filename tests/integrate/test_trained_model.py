"""Weights of another run: rows of tokens and glosses go by their text, whatever their numbers here and there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from signstreams.corpus.gloss import GlossVocabulary
from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.trained_model import load_initial_weights

from .models import model_of

Build = Callable[..., IntegrateConfig]
HERE = Tokenizer.train(["casa niño comer agua", "la casa y el agua"] * 4, 300)
THERE = Tokenizer.train(["perro mañana agua", "el perro y la mañana"] * 4, 300)
GLOSSES_HERE = GlossVocabulary(("<blank>", "AGUA", "CASA", "COMER", "NIÑO"))
GLOSSES_THERE = ["<blank>", "AGUA", "MAÑANA", "NIÑO", "PERRO"]
EMBEDDINGS, OUTPUT = "decoder.net.shared.weight", "decoder.net.lm_head.weight"
CLASSIFIER = "mska.heads.fuse.classify"


def save(folder: Path, model: MultistreamModel, tokenizer: Tokenizer | None, glosses: list[str] | None) -> Path:
    """What load_initial_weights reads of a run, its weights moved so that none equals a first weight of ours."""
    folder.mkdir()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    checkpoint.save(folder / "best.pt", {"model": model.state_dict(), "glosses": glosses})
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    return folder / "best.pt"


def weights(model: MultistreamModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def with_output_layer(model: MultistreamModel, *, apart: bool) -> MultistreamModel:
    if apart:
        model.decoder.separate_output_layer()
    return model


def test_rows_of_the_same_tokens_are_loaded_and_the_others_keep_their_initial_weights(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = tiny_config()
    for apart in (False, True):
        path = save(tmp_path / str(apart), with_output_layer(model_of(config), apart=apart), THERE, GLOSSES_THERE)
        theirs = checkpoint.load(path)["model"]
        model = with_output_layer(model_of(config), apart=apart)
        first = weights(model)
        load_initial_weights(model, path, HERE, GLOSSES_HERE)
        after = weights(model)
        shared = HERE.ids.keys() & THERE.ids.keys()
        assert any(HERE.ids[token] != THERE.ids[token] for token in shared)
        assert HERE.ids.keys() - shared
        for name in (EMBEDDINGS, OUTPUT):
            for token, number in HERE.ids.items():
                row = theirs[name][THERE.ids[token]] if token in shared else first[name][number]
                assert torch.equal(after[name][number], row), (apart, name, token)
        assert torch.equal(after[EMBEDDINGS], after[OUTPUT]) != apart
        assert torch.equal(after["fusion.fuse.1.weight"], theirs["fusion.fuse.1.weight"])
        assert f"tokens: the checkpoint has other ones: {len(shared)} of {len(HERE)} are loaded" in caplog.text


def test_rows_of_the_same_glosses_are_loaded_and_the_others_keep_their_initial_weights(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = save(tmp_path / "run", model_of(tiny_config()), HERE, GLOSSES_THERE)
    theirs, model = checkpoint.load(path)["model"], model_of(tiny_config())
    first = weights(model)
    load_initial_weights(model, path, HERE, GLOSSES_HERE)
    after = weights(model)
    for name in (f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"):
        for here, there in ((0, 0), (1, 1), (2, None), (3, None), (4, 3)):
            row = first[name][here] if there is None else theirs[name][there]
            assert torch.equal(after[name][here], row), (name, here)
    assert "glosses: the checkpoint has other ones: 3 of 5 are loaded" in caplog.text
    assert torch.equal(after[EMBEDDINGS], theirs[EMBEDDINGS])  # the same tokenizer: every row
    assert "tokens:" not in caplog.text


def test_other_numbers_of_tokens_and_glosses_fit_too(tiny_config: Build, tmp_path: Path) -> None:
    names = ["<blank>", "NIÑO"]
    path = save(tmp_path / "run", model_of(tiny_config(), num_glosses=2), THERE, names)
    theirs, model = checkpoint.load(path)["model"], model_of(tiny_config())
    load_initial_weights(model, path, HERE, GLOSSES_HERE)
    assert torch.equal(weights(model)[f"{CLASSIFIER}.bias"][[0, 4]], theirs[f"{CLASSIFIER}.bias"])


def test_an_output_layer_that_the_checkpoint_has_apart_does_not_overwrite_embeddings(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "run", with_output_layer(model_of(tiny_config()), apart=True), HERE, None)
    model = model_of(tiny_config())
    load_initial_weights(model, path, HERE, None)
    assert torch.equal(weights(model)[EMBEDDINGS], checkpoint.load(path)["model"][EMBEDDINGS])
    assert "the output layer of the checkpoint is not loaded: here it is tied to the token embeddings" in caplog.text


def test_a_checkpoint_without_its_tokenizer_is_one_line(tiny_config: Build, tmp_path: Path) -> None:
    path = save(tmp_path / "run", model_of(tiny_config()), None, None)
    with pytest.raises(UserError, match=r"init_checkpoint: .*best\.pt: found no .*tokenizer\.json, expected .*; copy"):
        load_initial_weights(model_of(tiny_config()), path, HERE, None)


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"model": 5},
        {"model": {"a": 1}},
        {"model": {1: torch.ones(1)}},
        {"model": {"a": torch.tensor([torch.nan])}},
        None,
    ],
    ids=["list", "number", "no tensor", "no name", "not finite", "text"],
)
def test_what_is_no_checkpoint_of_a_run_is_one_line(content: object, tiny_config: Build, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save(content, path)
    if content is None:
        path.write_text("Rate limit exceeded")
    with pytest.raises(
        UserError, match=r"train\.init_checkpoint: .*best\.pt: is not a checkpoint of a multistream run \("
    ) as e:
        load_initial_weights(model_of(tiny_config()), path, HERE, None)
    assert "\n" not in str(e.value) and "weights_only" not in str(e.value)
