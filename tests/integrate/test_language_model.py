"""A whole mBART and T5: steps in place of words, as Hugging Face's own code reads and writes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.decoder import (
    LanguageModel,
    load_pretrained_weights,
    named_config,
    named_tokenizer,
)
from signstreams.integrate.model import build_model
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecoderConfig, DecodingConfig, EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import Backbones
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.trained_model import load_trained_model
from signstreams.integrate.training import make_optimizer

from .language_models import SAVE, WIDTH

Build = Callable[..., IntegrateConfig]
KEYS_ONLY = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
FUSION = {"num_layers": 3, "ff_dim": 1024}  # the defaults: a whole language model has no fusion encoder
SIZES = {"num_layers": 3, "ff_dim": 512, "vocab_size": 2000}


@pytest.fixture(scope="module", params=SAVE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the two models. Read only."""
    return SAVE[request.param](tmp_path_factory.mktemp("hugging face") / f"tiny {request.param}")


def settings_of(folder: Path) -> dict[str, Any]:
    language = {"target_language": "es_XX"} if "mbart" in folder.name else {}
    return {"model": str(folder), **language}


def built(folder: Path) -> tuple[LanguageModel, Tokenizer, PreTrainedModel]:
    """Ours, its tokenizer, and Hugging Face's."""
    config = DecoderConfig(**settings_of(folder))
    tokenizer = named_tokenizer(config)
    model = LanguageModel(named_config(config, None), tokenizer.special)
    load_pretrained_weights(model, config)
    return model.eval(), tokenizer, AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def steps_of(*lengths: int) -> tuple[Tensor, Tensor]:
    """Random steps (B, S, W), with noise in their padding, and their mask."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), max(lengths), WIDTH), mask


def test_words_as_steps_are_read_as_the_sentence_that_they_are(folder: Path) -> None:
    ours, tokenizer, theirs = built(folder)
    texts = ["El perro come mañana.", "Casa"]
    ids = [[i for i in tokenizer.encode(text) if i != tokenizer.special.eos] for text in texts]
    steps, mask = steps_of(*map(len, ids))
    for row, own in enumerate(ids):
        steps[row, : len(own)] = theirs.get_input_embeddings().weight[own].detach()
    end = [tokenizer.special.eos]
    end += [tokenizer.ids["es_XX"]] if "mbart" in folder.name else []
    with torch.no_grad():
        memory, read = ours.read(steps, mask)
        for row, own in enumerate(ids):
            expected = theirs.get_encoder()(input_ids=torch.tensor([own + end])).last_hidden_state[0]
            assert read[row].sum() == len(own) + len(end)
            torch.testing.assert_close(memory[row, : len(own) + len(end)], expected, rtol=1e-4, atol=1e-4)
    assert memory[1, len(ids[1]) + len(end) :].abs().max() == 0


def test_mbart_50_begins_with_the_language(folder: Path) -> None:
    model, tokenizer, _ = built(folder)
    special, codes = tokenizer.special, [4, 6]
    model.special = type(special)(special.pad, special.eos, special.eos, 4, (), (4, 6), (5,))
    steps, mask = steps_of(3, 1)
    inputs, read = model.source(steps, mask)
    scale = WIDTH**0.5 if "mbart" in folder.name else 1.0
    words = model.net.get_encoder().embed_tokens.weight * scale
    for row, length in enumerate((3, 1)):
        expected = torch.cat((words[codes], steps[row, :length] * scale, words[[5]]))
        torch.testing.assert_close(inputs[row, : length + 3], expected)
    assert read.sum(dim=1).tolist() == [6, 4] and inputs.shape[1] == 6


@pytest.mark.parametrize("beams", [1, 5])
def test_texts_are_those_of_hugging_faces_own_generate(folder: Path, beams: int) -> None:
    ours, tokenizer, theirs = built(folder)
    torch.manual_seed(5)
    steps, mask = steps_of(7, 4, 9, 2)
    inputs, read = ours.source(steps, mask)
    decoding = DecodingConfig(num_beams=beams, **({"length_penalty": 0.7} if beams > 1 else {}))
    found = ours.generate(*ours.read(steps, mask), decoding, 12)
    expected = theirs.generate(
        inputs_embeds=inputs,
        attention_mask=read,
        num_beams=beams,
        length_penalty=0.7 if beams > 1 else None,
        max_new_tokens=12,
        do_sample=False,
        decoder_start_token_id=tokenizer.special.start,
        suppress_tokens=list(tokenizer.special.never),
        forced_eos_token_id=tokenizer.special.eos if "mbart" in folder.name else None,
    )
    assert [row + [tokenizer.special.pad] * (12 - len(row)) for row in found] == [
        row[1:] + [tokenizer.special.pad] * (13 - len(row)) for row in expected.tolist()
    ]
    assert len({tuple(row) for row in found}) > 1  # they depend on the steps


def test_padding_changes_neither_logits_nor_texts(folder: Path) -> None:
    model, _, _ = built(folder)
    steps, mask = steps_of(8, 3)
    tokens = torch.tensor([[7, 8, 9], [7, 8, 9]])
    with torch.no_grad():
        together = model(*model.read(steps, mask), tokens)[1]
        alone = model(*model.read(steps[1:, :3], mask[1:, :3]), tokens[1:])[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    for beams in (1, 4):
        one = model.generate(*model.read(steps[1:, :3], mask[1:, :3]), DecodingConfig(num_beams=beams), 8)[0]
        two = model.generate(*model.read(steps, mask), DecodingConfig(num_beams=beams), 8)[1]
        assert two[: len(one)] == one


@pytest.mark.parametrize("text", ["dijo </s> y", "</s>", "un <pad> o <unk>", "casa es_XX", "<extra_id_0> <mask>"])
def test_a_text_that_spells_a_special_token_stays_a_text(folder: Path, text: str) -> None:
    tokenizer = named_tokenizer(DecoderConfig(**settings_of(folder)))
    reserved = {token.content for token in tokenizer._tokenizer.get_added_tokens_decoder().values()}
    names = {number: name for name, number in tokenizer.ids.items()}
    ids = tokenizer.encode(text)
    own = [i for i in ids if i != tokenizer.special.first][:-1]
    assert ids[-1] == tokenizer.special.eos and not reserved & {names[i] for i in own} - {"<unk>"}
    if tokenizer.special.never[-1] not in own:  # no letter that the model lacks
        assert tokenizer.decode(ids) == text


def whole(tiny_config: Build, folder: Path, **changes: Any) -> IntegrateConfig:
    changes["decoder"] = {**settings_of(folder), **SIZES, **changes.get("decoder", {})}
    changes["model"] = {**KEYS_ONLY, **FUSION, **changes.get("model", {})}
    return tiny_config(**changes)


def test_a_run_prunes_stops_resumes_is_scored_and_needs_the_folder_no_more(
    folder: Path, tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / folder.name
    shutil.copytree(folder, copied)
    settings: dict[str, Any] = {"optim": {"lr_mapper": 1e-3}, "train": {"epochs": 2, "ema_decay": 0.5}}
    straight = whole(tiny_config, copied, output_dir=tmp_path / "straight", **settings)
    run(straight)
    save = checkpoint.save

    def die_after_the_first_epoch(path: Path, state: dict, **options: bool) -> None:
        save(path, state, **options)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    config = whole(tiny_config, copied, output_dir=tmp_path / "out", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", die_after_the_first_epoch)
        run(config)
    run(config)
    one, two = (checkpoint.load(tmp_path / name / "last.pt")["model"] for name in ("straight", "out"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    start = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
    name = next(
        name
        for name in start
        if name.endswith(("encoder.layers.1.fc1.weight", "encoder.block.1.layer.0.SelfAttention.q.weight"))
    )
    assert 0 < (two[f"decoder.net.{name}"] - start[name]).abs().max() < 0.1  # trained, from there
    shutil.rmtree(copied)
    scores = score(EvaluateSltConfig(checkpoint=tmp_path / "out" / "best.pt"))
    assert scores["decoding"]["num_beams"] == 5 and "blank_video" in scores["baselines"]
    bundle = load_trained_model(EvaluateSltConfig(checkpoint=tmp_path / "out" / "best.pt"))
    assert isinstance(bundle.model.decoder, LanguageModel)
    num_before = AutoModelForSeq2SeqLM.from_pretrained(folder).config.vocab_size
    assert len(bundle.tokenizer) == bundle.model.decoder.net.config.vocab_size < num_before
    text = "Casa mañana comer."
    assert bundle.tokenizer.decode(bundle.tokenizer.encode(text)) == text


def test_the_mapper_has_a_rate_of_its_own_and_all_of_the_model_learns(folder: Path, tiny_config: Build) -> None:
    config = whole(tiny_config, folder, optim={"lr": 1.0, "lr_mapper": 3.0, "lr_decoder": 2.0})
    tokenizer = named_tokenizer(config.decoder)
    model = build_model(config, Backbones({}, {}, {}, {}), tokenizer, num_glosses=None)
    rates = {group["name"]: group["peak_lr"] for group in make_optimizer(config, model).param_groups}
    assert rates == {"encoder": 1.0, "mska": 1.0, "mapper": 3.0, "decoder": 2.0}
    assert model.mapper is not None and model.fusion is not None and model.fusion.encoder is None
    steps, mask = steps_of(5)
    model.decoder(*model.decoder.read(steps, mask), torch.tensor([[7, 8, 1]])).square().sum().backward()
    without = {name for name, p in model.decoder.named_parameters() if p.grad is None}
    assert not without


def test_clips_beyond_the_models_positions_are_refused_before_anything_is_trained(
    folder: Path, tiny_config: Build
) -> None:
    config = whole(tiny_config, folder, data={"max_frames": 1000})
    tokenizer = named_tokenizer(config.decoder)
    if "t5" in folder.name:  # its positions are relative
        build_model(config, Backbones({}, {}, {}, {}), tokenizer, num_glosses=None)
        return
    message = (
        r"1,000 frames, 1,200 by augmentation\.time_scale, are 300 steps, but .* reads at most 254; lower it to 846"
    )
    with pytest.raises(UserError, match=message):
        build_model(config, Backbones({}, {}, {}, {}), tokenizer, num_glosses=None)
    config = whole(tiny_config, folder, decoder={"max_tokens": 257})
    with pytest.raises(UserError, match=r"max_tokens: is 257, but .* writes at most 256 tokens; lower it to that"):
        build_model(config, Backbones({}, {}, {}, {}), tokenizer, num_glosses=None)


def test_the_fuse_feature_alone_reaches_the_model_as_published(
    folder: Path, tiny_config: Build, tmp_path: Path
) -> None:
    config = whole(
        tiny_config,
        folder,
        output_dir=tmp_path / "out",
        model={"use_pose": False, "projection_dim": 256, "d_model": 256},
        mska={"gloss_fusion": "alone"},
        train={"epochs": 1},
    )
    run(config)
    names = {name.partition(".")[0] for name in checkpoint.load(tmp_path / "out" / "best.pt")["model"]}
    assert names == {"mska", "mapper", "decoder"}


def test_an_earlier_model_has_its_decoder_alone(folder: Path, tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config(
        output_dir=tmp_path / "out",
        model=KEYS_ONLY,
        decoder={**settings_of(folder), **SIZES, "use_encoder": False},
        train={"epochs": 1},
    )
    assert not {"use_encoder", "prune_vocabulary"} & config.identity({})["decoder"].keys()
    run(config)
    path = tmp_path / "out" / "best.pt"
    given = EvaluateSltConfig(checkpoint=path)
    expected = load_trained_model(given)
    content = checkpoint.load(path)
    for section, key in (("decoder", "use_encoder"), ("decoder", "prune_vocabulary"), ("optim", "lr_mapper")):
        del content["config"][section][key]
    content["config"]["decoder"]["preset"] = "mska_paper_mbart"
    torch.save(content, path)
    found = load_trained_model(given)
    assert not isinstance(found.model.decoder, LanguageModel) and found.config.optim.lr_mapper is None
    state = found.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in expected.model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": {"use_encoder": True}}, "use_encoder has no effect: no decoder.model is named"),
        ({"decoder": {"model": "a", "weights": "random", "prune_vocabulary": True}}, "weights is random"),
        ({"decoder": {"model": "a"}, "model": {"num_layers": 2}}, "model.num_layers has no effect"),
        ({"optim": {"lr_mapper": 1e-3}}, "optim.lr_mapper has no effect"),
        ({"mska": {"gloss_fusion": "alone"}}, "alone needs a whole language model"),
        ({"decoder": {"model": "a"}, "mska": {"gloss_fusion": "alone"}}, "expected no backbone"),
        (
            {"decoder": {"preset": "mska_paper_mbart"}, "model": {"stream_dropout": 0.1}},
            "model.stream_dropout has no effect: mska.gloss_fusion is alone",
        ),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegrateConfig.model_validate(settings)


def test_only_pretrained_models_are_whole_by_default() -> None:
    assert not DecoderConfig().is_whole and not DecoderConfig(model="a", weights="random").is_whole
    config = DecoderConfig(model="a")
    assert config.is_whole and config.is_pruned
    assert not DecoderConfig(model="a", use_encoder=False).is_pruned
    assert not DecoderConfig(model="a", prune_vocabulary=False).is_pruned


@pytest.mark.parametrize(("preset", "low_m", "high_m"), [("signmusketeers", 247, 249), ("mska_paper_mbart", 610, 612)])
def test_a_preset_has_all_of_the_published_model(preset: str, low_m: int, high_m: int) -> None:
    config = IntegrateConfig.model_validate({"decoder": {"preset": preset, "weights": "random"}})
    assert config.decoder.is_whole
    with torch.device("meta"):
        model = LanguageModel(named_config(config.decoder, None), Tokenizer.train(["a"], 300).special)
    assert low_m < sum(p.numel() for p in model.parameters()) / 1e6 < high_m
    assert all(p.requires_grad for p in model.parameters())
