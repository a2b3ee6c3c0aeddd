"""Text decoders of Hugging Face, by folder and by size; presets; beams. Nothing here touches the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as HfTokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.integrate.decoder import (
    TextDecoder,
    load_pretrained_weights,
    named_config,
    named_tokenizer,
    own_t5_config,
)
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecoderConfig, DecodingConfig, EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.tokenizer import SpecialTokens, Tokenizer
from signstreams.integrate.trained_model import load_trained_model

Build = Callable[..., IntegrateConfig]
TEXTS = ["Casa niño comer.", "Agua mañana perro.", "El perro come mañana."] * 3
WIDTH = 24


def save_tokenizer(folder: Path, *, extra: list[str] = []) -> Tokenizer:  # noqa: B006
    own = Tokenizer.train(TEXTS, 320)
    backend = HfTokenizer.from_str(own._tokenizer.to_str())
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=extra,
    )
    fast.save_pretrained(folder)
    return own


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 with random weights and its tokenizer, as `save_pretrained` leaves them."""
    folder = tmp_path_factory.mktemp("hugging face") / "tiny t5"
    size = len(save_tokenizer(folder))
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=size + 4,
        d_model=WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=3,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mbart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of mBART; its tokenizer knows a language."""
    folder = tmp_path_factory.mktemp("hugging face") / "tiny mbart"
    size = len(save_tokenizer(folder, extra=["es_XX", "de_DE"]))
    torch.manual_seed(2)
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in _MBART_SIZES.items()}
    config = MBartConfig(vocab_size=size + 2, d_model=WIDTH, max_position_embeddings=64, **sizes)
    MBartForConditionalGeneration(config).save_pretrained(folder)
    return folder


SIZES = {"num_layers": 3, "ff_dim": 512, "vocab_size": 2000}  # the defaults: a named model has its own
_MBART_SIZES = {"layers": 2, "ffn_dim": 16, "attention_heads": 3}
_T5_SIZES = {"d_model": WIDTH, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 3}
_APART = {"t5": (T5Config, T5ForConditionalGeneration), "mt5": (MT5Config, MT5ForConditionalGeneration)}


@pytest.fixture(scope="module", params=_APART)
def apart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 v1.1 or mT5, whose output layer is not its token embeddings, with the config.json of the real ones."""
    folder = tmp_path_factory.mktemp("hugging face") / f"tiny {request.param}"
    size = len(save_tokenizer(folder))
    torch.manual_seed(3)
    kind, model = _APART[request.param]
    net = model(
        kind(vocab_size=size + 4, decoder_start_token_id=0, feed_forward_proj="gated-gelu", **_T5_SIZES, **_UNTIED)
    )
    net.lm_head.weight = torch.nn.Parameter(torch.randn_like(net.lm_head.weight))
    net.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(written | _UNTIED))
    return folder


_UNTIED = {"tie_word_embeddings": False}


def built(config: DecoderConfig, memory_dim: int = WIDTH) -> TextDecoder:
    tokenizer = named_tokenizer(config)
    decoder = TextDecoder(named_config(config, None), memory_dim, tokenizer.special)
    load_pretrained_weights(decoder, config)
    return decoder.eval()


def test_a_decoder_from_a_folder_gives_what_the_model_gives(t5: Path) -> None:
    ours = built(DecoderConfig(model=str(t5)))
    theirs = T5ForConditionalGeneration.from_pretrained(t5).eval()
    memory, mask = torch.randn(2, 5, WIDTH), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    labels = torch.tensor([[7, 8, 9, 1], [7, 1, -100, -100]])
    with torch.no_grad():
        expected = theirs(encoder_outputs=(memory,), attention_mask=mask, labels=labels).logits
        found = ours(memory, mask, labels)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, :2], expected[1, :2])


def assert_gives_what_the_model_gives(ours: TextDecoder, folder: Path) -> None:
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    memory, mask, labels = (
        torch.randn(2, 5, WIDTH),
        torch.ones(2, 5, dtype=torch.bool),
        torch.tensor([[7, 8, 9, 1]] * 2),
    )
    with torch.no_grad():
        expected = theirs(encoder_outputs=(memory,), attention_mask=mask, labels=labels).logits
        torch.testing.assert_close(ours(memory, mask, labels), expected)


def test_an_output_layer_of_its_own_is_kept_apart(apart: Path) -> None:
    decoder = built(DecoderConfig(model=str(apart)))
    assert_gives_what_the_model_gives(decoder, apart)
    assert not decoder.names_tied_to_output_layer()
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert {"net.shared.weight", "net.lm_head.weight"} <= trained
    random = TextDecoder(named_config(DecoderConfig(model=str(apart), weights="random"), 300), WIDTH, SpecialTokens())
    assert not random.names_tied_to_output_layer()


def test_an_output_layer_of_its_own_survives_a_stop_a_bundle_and_a_warm_start(
    apart: Path, tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(apart, folder)
    settings = {
        "model": {**dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...), "d_model": 24},
        "decoder": {"model": str(folder), "use_encoder": False, **SIZES},
        "optim": {"lr": 1e-12},  # nothing moves
        "train": {"epochs": 2, "ema_decay": 0.5},
    }
    config = tiny_config(output_dir=tmp_path / "out", **settings)
    save = checkpoint.save

    def die_after_the_first_epoch(path: Path, state: dict, **options: bool) -> None:
        save(path, state, **options)
        if path.name == "last.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", die_after_the_first_epoch)
        run(config)
    run(config)
    warm = settings | {"train": {"epochs": 1, "init_checkpoint": tmp_path / "out" / "best.pt"}}
    run(tiny_config(output_dir=tmp_path / "warm", **warm))
    shutil.rmtree(folder)
    for name in ("out", "warm"):
        bundle = load_trained_model(EvaluateSltConfig(checkpoint=tmp_path / name / "best.pt"))
        assert_gives_what_the_model_gives(bundle.model.decoder, apart)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_in_float32_whatever_the_precision_of_the_file(
    t5: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    shutil.copytree(t5, tmp_path / "half")
    T5ForConditionalGeneration.from_pretrained(t5).to(dtype).save_pretrained(tmp_path / "half")
    config = DecoderConfig(model=str(tmp_path / "half"))
    decoder, whole = built(config, memory_dim=10), built(DecoderConfig(model=str(t5)))
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}
    torch.testing.assert_close(decoder.net.shared.weight, whole.net.shared.weight.to(dtype).float())
    logits = decoder(torch.randn(1, 4, 10), torch.ones(1, 4, dtype=torch.bool), torch.tensor([[7, 1]]))
    assert logits.dtype == torch.float32


def test_the_encoder_is_gone_and_the_rest_is_trained(t5: Path, mbart: Path) -> None:
    for config in (DecoderConfig(model=str(t5)), DecoderConfig(model=str(mbart))):
        decoder = built(config)
        names = {name for name, p in decoder.named_parameters() if p.requires_grad}
        assert not any(".encoder." in name and "embed_tokens" not in name for name in names)
        logits = decoder(torch.randn(1, 4, WIDTH), torch.ones(1, 4, dtype=torch.bool), torch.tensor([[7, 8, 1]]))
        logits.square().sum().backward()
        trained = dict(decoder.named_parameters())
        assert all(trained[name].grad is not None for name in names)


def test_a_memory_of_another_width_is_projected(t5: Path) -> None:
    decoder = built(DecoderConfig(model=str(t5)), memory_dim=10)
    assert decoder(torch.randn(1, 4, 10), torch.ones(1, 4, dtype=torch.bool), torch.tensor([[7, 1]])).shape[:2] == (
        1,
        2,
    )


def test_padding_changes_neither_logits_nor_beams(t5: Path) -> None:
    decoder = built(DecoderConfig(model=str(t5)))
    memory = torch.randn(1, 3, WIDTH)
    padded, mask = torch.zeros(2, 6, WIDTH), torch.zeros(2, 6, dtype=torch.bool)
    padded[0], mask[0] = torch.randn(6, WIDTH), True
    padded[1, :3], mask[1, :3] = memory[0], True
    alone_mask = torch.ones(1, 3, dtype=torch.bool)
    for beams in (1, 4):
        decoding = DecodingConfig(num_beams=beams)
        alone = decoder.generate(memory, alone_mask, decoding, 8)[0]
        together = decoder.generate(padded, mask, decoding, 8)[1]
        assert together[: len(alone)] == alone


def test_more_beams_find_what_is_at_least_as_likely(t5: Path) -> None:
    decoder = built(DecoderConfig(model=str(t5)))
    memory, mask = torch.randn(4, 5, WIDTH), torch.ones(4, 5, dtype=torch.bool)

    def score_of(beams: int) -> float:
        decoding = DecodingConfig(num_beams=beams, length_penalty=0.0) if beams > 1 else DecodingConfig(num_beams=1)
        texts = decoder.generate(memory, mask, decoding, 3)
        total = 0.0
        for row, ids in enumerate(texts):
            tokens = torch.tensor([ids])
            logits = decoder(memory[row : row + 1], mask[row : row + 1], tokens).log_softmax(-1)
            ended = ids.index(1) + 1 if 1 in ids else len(ids)
            total += sum(logits[0, i, token].item() for i, token in enumerate(ids[:ended]))
        return total

    assert score_of(12) >= score_of(1) - 1e-4


def test_no_beam_writes_what_has_no_text(t5: Path) -> None:
    decoder = built(DecoderConfig(model=str(t5)))
    with torch.no_grad():
        decoder.net.lm_head.weight[2] = 50.0  # the unknown token would win each time
    texts = decoder.generate(torch.randn(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool), DecodingConfig(), 6)
    assert not any(token == 2 for ids in texts for token in ids)


def test_mbart_is_told_its_language(mbart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = named_tokenizer(DecoderConfig(model=str(mbart), target_language="de_DE"))
    assert tokenizer.special.first == tokenizer._tokenizer.token_to_id("de_DE")
    ids = tokenizer.encode("perro")
    assert ids[0] == tokenizer.special.first and ids[-1] == tokenizer.special.eos
    assert tokenizer.decode(ids) == "perro"
    with pytest.raises(UserError, match=r"xx_YY is not a token of .*, expected one of de_DE, es_XX"):
        named_tokenizer(DecoderConfig(model=str(mbart), target_language="xx_YY"))


def test_what_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    config = DecoderConfig(model="google/t5-v1_1-small")
    for make in (named_tokenizer, lambda c: named_config(c, None)):
        with pytest.raises(UserError) as error:
            make(config)
        (line,) = error.value.problems
        assert line.startswith("decoder.model: google/t5-v1_1-small is not on this machine")
        assert "hf download google/t5-v1_1-small --local-dir models/t5-v1_1-small" in line
        assert "--decoder-offline false" in line
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        named_config(DecoderConfig(model=str(tmp_path)), None)


def test_a_model_that_decodes_from_nothing_is_refused(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a gpt2 model, expected a T5, mT5 or mBART"):
        named_config(DecoderConfig(model=str(tmp_path)), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offline": False}, "offline has no effect"),
        ({"target_language": "es_XX"}, "target_language has no effect"),
        ({"model": "a", "ff_dim": 7}, "ff_dim has no effect: a has its own"),
        ({"model": "a", "vocab_size": 500}, "vocab_size has no effect"),
        ({"preset": "other"}, "signmusketeers"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**settings)


def test_random_weights_of_a_named_model_take_the_corpus_tokenizer(t5: Path) -> None:
    config = DecoderConfig(model=str(t5), weights="random", vocab_size=400)
    assert config.uses_own_tokenizer
    found = named_config(config, 333)
    assert (found.vocab_size, found.d_model, found.pad_token_id) == (333, WIDTH, 0)


@pytest.mark.parametrize(
    ("preset", "low_m", "high_m"),
    # decoder with its embeddings and output layer, which mBART-large shares: 202 M + 256 M, and T5 v1.1 base has apart:
    # 113 M + 25 M + 25 M
    [("signmusketeers", 162, 164), ("mska_paper_mbart", 450, 465)],
)
def test_presets_build_at_their_true_sizes(preset: str, low_m: float, high_m: float) -> None:
    config = IntegrateConfig.model_validate({"decoder": {"preset": preset, "weights": "random"}})
    with torch.device("meta"):
        sizes = named_config(config.decoder, None)
        decoder = TextDecoder(sizes, sizes.d_model, SpecialTokens())
    trained = {id(p): p.numel() for p in decoder.parameters() if p.requires_grad}
    assert low_m < sum(trained.values()) / 1e6 < high_m


def test_what_the_user_sets_wins_over_a_preset() -> None:
    config = IntegrateConfig.model_validate(
        {"decoder": {"preset": "signmusketeers"}, "model": {"d_model": 96}, "optim": {"lr": 0.5}}
    )
    assert (config.model.d_model, config.model.projection_dim, config.optim.lr) == (96, 256, 0.5)
    assert config.decoder.model == "google/t5-v1_1-base" and config.optim.label_smoothing == 0.2
    assert IntegrateConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_preset_runs_forward_at_its_width() -> None:
    config = IntegrateConfig.model_validate({"decoder": {"preset": "signmusketeers", "weights": "random"}})
    sizes = named_config(config.decoder, 400)
    sizes.num_decoder_layers = 1  # the width is the true one, the depth would only take time
    decoder = TextDecoder(sizes, config.model.d_model, SpecialTokens()).eval()
    logits = decoder(torch.randn(1, 4, 768), torch.ones(1, 4, dtype=torch.bool), torch.tensor([[7, 8, 1]]))
    assert logits.shape == (1, 3, 400) and torch.isfinite(logits).all()


def test_a_run_with_a_named_model_trains_scores_and_needs_the_model_no_more(
    t5: Path, tiny_config: Build, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(t5, folder)
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
    config = tiny_config(
        output_dir=tmp_path / "out",
        model=keys,
        decoder={"model": str(folder), "use_encoder": False, **SIZES},
        train={"epochs": 1},
    )
    run(config)
    start = T5ForConditionalGeneration.from_pretrained(folder).state_dict()
    after = checkpoint.load(tmp_path / "out" / "last.pt")["model"]
    name = "decoder.block.0.layer.1.EncDecAttention.q.weight"
    moved = (after[f"decoder.net.{name}"] - start[name]).abs().max()
    assert 0 < moved < 0.05  # trained from there, not from elsewhere
    shutil.rmtree(folder)
    scores = score(EvaluateSltConfig(checkpoint=tmp_path / "out" / "best.pt"))
    assert scores["decoding"] == {"num_beams": 5, "length_penalty": 1.0}


def test_a_random_mbart_trains_and_writes_with_the_tokenizer_of_the_corpus(
    mbart: Path, tiny_config: Build, tmp_path: Path
) -> None:
    """Its config forces an end token that is another token of ours, or none of them."""
    folder = tmp_path / "model"
    shutil.copytree(mbart, folder)
    written = json.loads((folder / "config.json").read_text())
    assert written["forced_eos_token_id"] == 2
    (folder / "config.json").write_text(json.dumps(written | {"forced_bos_token_id": 250004}))
    config = tiny_config(
        output_dir=tmp_path / "out",
        model=dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...),
        decoder={"model": str(folder), "weights": "random", "num_layers": 3, "ff_dim": 512, "max_tokens": 60},
        train={"epochs": 1},
    )
    run(config)
    assert score(EvaluateSltConfig(checkpoint=tmp_path / "out" / "best.pt"))["num_clips"] == 3


def test_own_sizes_stay_the_default() -> None:
    config = DecoderConfig()
    decoder = TextDecoder(own_t5_config(config, 64, 500), 64, SpecialTokens())
    assert decoder.net.config.model_type == "t5" and len(decoder.net.get_decoder().block) == config.num_layers
