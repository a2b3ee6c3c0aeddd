"""Which settings decide on a corpus, and which language models are on this machine; tests/contract has the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from signstreams.config.load import build
from signstreams.integrate.corpus_rules import settings_for_corpus, tokenizer_for
from signstreams.integrate.decoder import KNOWN_SIZES
from signstreams.integrate.model_files import KNOWN_MODELS, absent_files
from signstreams.integrate.presets import PRESETS
from signstreams.integrate.settings import DecoderConfig, IntegrateConfig
from signstreams.workflow.plan import setting_pairs

from .language_models import save_mbart

NAME = "google/mt5-some"


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_what_decides_on_a_corpus_is_a_config_by_itself_that_says_the_same(preset: str | None) -> None:
    stage = "vlp" if preset == "gfslt_vlp" else "slt"
    tree = {"stage": stage, "decoder": {"preset": preset}, "data": {"max_frames": 300}}
    config = IntegrateConfig.model_validate(tree)
    settings = settings_for_corpus(config)
    assert settings["data.max_frames"] == 300
    again = build(IntegrateConfig, [], setting_pairs({key: value for key, value in settings.items() if value != []}))
    assert settings_for_corpus(again) == settings


def test_of_a_stage_it_says_which_and_what_else_it_reads() -> None:
    config = IntegrateConfig.model_validate({"stage": "text", "train": {"text_files": ["a.txt"]}})
    settings = settings_for_corpus(config)
    assert (settings["stage"], settings["train.text_files"]) == ("text", ["a.txt"])
    assert "stage" not in settings_for_corpus(IntegrateConfig())  # contracts of before stay as they are


def test_the_models_of_presets_can_be_built_without_their_files() -> None:
    assert set(KNOWN_SIZES) == KNOWN_MODELS


def test_counting_unknown_glosses_leaves_the_fingerprints_of_before() -> None:
    """The default was "refuse": a run that it let through has the same identity now, and so has one that counted."""
    default = IntegrateConfig().identity({})
    assert default["data"]["unknown_gloss"] == "refuse" and IntegrateConfig().data.unknown_gloss == "count"
    for value in ("refuse", "count"):
        given = IntegrateConfig.model_validate({"data": {"unknown_gloss": value}}).identity({})
        assert given["data"]["unknown_gloss"] == value


# -- Files of language models


def absent(**settings: object) -> list[str]:
    return absent_files(DecoderConfig.model_validate(settings))


def put_files(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}", encoding="utf-8")


def test_a_decoder_that_is_built_here_needs_no_file() -> None:
    assert absent() == []
    assert absent(model="facebook/mbart-large-cc25", weights="random", target_language="es_XX") == []


def test_a_name_is_looked_for_in_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = absent(model=NAME)
    assert [line.partition(";")[0] for line in found] == [
        f"decoder.model: {NAME} is not on this machine (no {what})" for what in ("config", "weights", "tokenizer")
    ]
    assert all(line.endswith("; or --decoder-offline false") for line in found)
    assert absent(model=NAME, offline=False) == []  # the training fetches it
    cached = tmp_path / f"models--{NAME.replace('/', '--')}"
    put_files(cached / "snapshots" / "abc", "config.json", "model.safetensors", "spiece.model")
    assert len(absent(model=NAME)) == 3  # no reference to the snapshot yet
    put_files(cached / "refs")
    (cached / "refs" / "main").write_text("abc", encoding="utf-8")
    assert absent(model=NAME) == []
    (line,) = absent(model=NAME, tokenizer="google/other")
    assert line.startswith("decoder.tokenizer: google/other is not on this machine (no tokenizer)")


@pytest.mark.parametrize("offline", [True, False])
def test_a_folder_must_hold_each_part(tmp_path: Path, offline: bool) -> None:
    folder = tmp_path / "mt5"
    put_files(folder, "config.json", "pytorch_model.bin")
    (line,) = absent(model=str(folder), offline=offline)
    assert line.startswith(f"decoder.model: {folder} is not on this machine (no tokenizer)")
    assert absent(model=str(folder), weights="random") == []  # its sizes, and a tokenizer of the corpus
    put_files(folder, "tokenizer.json")
    assert absent(model=str(folder), offline=offline) == []
    assert len(absent(model=f"{folder}/gone")) == 3


def test_texts_are_counted_in_the_tokens_that_pruning_leaves(tmp_path: Path) -> None:
    """What train does not say takes more tokens then: a text of val is refused before the training, not in it."""
    named = {"model": str(save_mbart(tmp_path / "mbart")), "target_language": "es_XX"}
    whole = tokenizer_for(DecoderConfig(**named, prune_vocabulary=False), ["Casa"])
    kept = tokenizer_for(DecoderConfig(**named), ["Casa"])
    assert len(kept) < len(whole) and len(kept.encode("Casa")) == len(whole.encode("Casa"))
    assert len(kept.encode("El perro come")) > len(whole.encode("El perro come"))
