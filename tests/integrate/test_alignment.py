"""Stage vlp: clips find their sentences, whatever the padding and the number of processes, and slt starts from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MBartConfig, MBartForConditionalGeneration

from signstreams.engine import checkpoint
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.integrate.alignment import Alignment, Pairs, alignment_loss, retrieval
from signstreams.integrate.batches import NO_TOKEN, Sample, collate
from signstreams.integrate.decoder import LanguageModel, TextDecoder, named_config, own_t5_config, text_encoder
from signstreams.integrate.losses import RESTORATION, compute_losses
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.nodes import NUM_NODES
from signstreams.integrate.run import run
from signstreams.integrate.settings import DecoderConfig, EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.tokenizer import SpecialTokens
from signstreams.integrate.trained_model import load_trained_model

from .language_models import save_mbart

Build = Callable[..., IntegrateConfig]
WIDTH = 12
STEPS = 80
SPECIAL = {
    "t5": SpecialTokens(),
    # mBART-25: the language ends what is read, and starts what is written
    "mbart": SpecialTokens(1, 2, 5, None, (1, 3), (), (2, 5)),
    # mBART-50: it begins both
    "mbart50": SpecialTokens(1, 2, 2, 5, (1, 3), (5,), (2,)),
}
SIZES = dict.fromkeys(("encoder_layers", "decoder_layers"), 1) | dict.fromkeys(
    ("encoder_ffn_dim", "decoder_ffn_dim"), 8
)


def parts(kind: str) -> tuple[TextDecoder, Alignment]:
    """A text decoder and what reads its sentences: a small one of ours, or a whole mBART."""
    torch.manual_seed(0)
    settings = DecoderConfig(num_layers=1, num_heads=2, ff_dim=8)
    if kind == "t5":
        sizes = own_t5_config(settings, WIDTH, 30)
        decoder = TextDecoder(sizes, WIDTH, SPECIAL[kind])
        return decoder.eval(), Alignment(WIDTH, text_encoder(settings, sizes)).eval()
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    config = MBartConfig(vocab_size=30, d_model=WIDTH, scale_embedding=True, init_std=0.5, **SIZES, **heads)
    return LanguageModel(config, SPECIAL[kind]).eval(), Alignment(WIDTH, None).eval()


def sentences(kind: str, lengths: list[int]) -> torch.Tensor:
    """Token rows (B, L) as in `Batch`."""
    special = SPECIAL[kind]
    start = [] if special.first is None else [special.first]
    rows = [torch.tensor([*start, *torch.randint(6, 30, (n,)).tolist(), special.eos]) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NO_TOKEN)


@pytest.mark.parametrize("kind", SPECIAL)
def test_padding_changes_neither_vectors_nor_restored_words(kind: str) -> None:
    decoder, alignment = parts(kind)
    tokens, shares = sentences(kind, [2, 7, 4]), torch.tensor([0.1, 0.15, 0.0])
    memory, mask = torch.randn(3, 6, WIDTH), torch.arange(6) < torch.tensor([[6], [2], [3]])
    together = alignment.pairs(decoder, memory * mask[..., None], mask, tokens)
    logits = alignment.restored(decoder, tokens, shares)
    for row, (steps, size) in enumerate(zip((6, 2, 3), (tokens >= 0).sum(dim=1).tolist(), strict=True)):
        own = tokens[row : row + 1, :size]
        alone = alignment.pairs(decoder, memory[row : row + 1, :steps], mask[row : row + 1, :steps], own)
        for ours, theirs in zip(alone, together, strict=True):
            torch.testing.assert_close(ours[0], theirs[row])
        torch.testing.assert_close(alignment.restored(decoder, own, shares[row : row + 1])[0], logits[row, :size])
    assert len(set(together.texts.tolist())) == 3
    torch.testing.assert_close(together.clips.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("kind", ["mbart", "mbart50"])
def test_a_whole_model_reads_a_sentence_as_it_was_pretrained(kind: str) -> None:
    decoder, alignment = parts(kind)
    tokens = torch.tensor([[7, 8, 9, 2]] if kind == "mbart" else [[5, 7, 8, 9, 2]])
    memory, mask = alignment.read(decoder, tokens)
    assert mask.all()
    ids = torch.tensor([[7, 8, 9, 2, 5]] if kind == "mbart" else [[5, 7, 8, 9, 2]])
    expected = decoder.net.get_encoder()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(memory, expected)


def test_the_last_words_are_masked_and_nothing_learns_from_what_restores_them_but_the_decoder() -> None:
    decoder, alignment = parts("t5")
    tokens = torch.tensor([[7, 8, 9, 10, 1]])
    other = torch.tensor([[7, 8, 9, 11, 1]])
    shares = torch.tensor([0.15])  # of four words one: rounded up
    read = [alignment.read(decoder, rows, shares)[0] for rows in (tokens, other)]
    torch.testing.assert_close(*read)
    whole = [alignment.read(decoder, rows)[0] for rows in (tokens, other)]
    assert not torch.allclose(*whole) and not torch.allclose(read[0], whole[0])
    torch.testing.assert_close(alignment.read(decoder, tokens, torch.tensor([0.0]))[0], whole[0])
    alignment.restored(decoder, tokens, shares).sum().backward()
    assert all(parameter.grad is None for parameter in alignment.parameters())
    assert decoder.net.lm_head.weight.grad is not None


def unit(*rows: list[float]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_the_loss_is_clips_and_0_where_all_is_right() -> None:
    clips, others = torch.randn(2, 5, WIDTH)
    pairs = Pairs(unit(*clips.tolist()), unit(*others.tolist()), torch.arange(5))
    scale = torch.tensor(3.0)
    logits = 3 * pairs.clips @ pairs.sentences.T
    expected = sum(torch.nn.functional.cross_entropy(scores, torch.arange(5)) for scores in (logits, logits.T)) / 2
    torch.testing.assert_close(alignment_loss(pairs, scale) / 5, expected)
    assert alignment_loss(pairs._replace(clips=torch.ones(5, WIDTH)), scale * 0) / 5 == pytest.approx(math.log(5))
    # a sentence that two clips have is right for both
    twice = Pairs(unit([1, 0], [1, 0], [0, 1]), unit([1, 0], [1, 0], [0, 1]), torch.tensor([4, 4, 5]))
    assert alignment_loss(twice, torch.tensor(100.0)) == pytest.approx(0, abs=1e-5)
    assert alignment_loss(twice._replace(texts=torch.arange(3)), torch.tensor(100.0)) > 1


def test_retrieval_counts_what_is_found_first_beside_a_guess() -> None:
    eye = torch.eye(4)
    right = retrieval(Pairs(eye, eye, torch.arange(4)))
    assert (right.text_to_clip, right.clip_to_text, right.mean, right.chance) == (100, 100, 100, 25)
    assert retrieval(Pairs(eye, eye.roll(1, 0), torch.arange(4))).mean == 0
    assert retrieval(Pairs(torch.ones(4, 4), eye, torch.arange(4))).mean == 0  # a tie finds nothing
    # one clip is nearest to two sentences: of these one is found by it, and it by both
    lopsided = retrieval(Pairs(unit([1, 0], [0, 1]), unit([1, 0], [1, 0.2]), torch.arange(2)))
    assert (lopsided.text_to_clip, lopsided.clip_to_text) == (50, 100)
    repeated = retrieval(Pairs(eye, eye.roll(1, 0), torch.tensor([1, 1, 1, 2])))
    assert repeated.chance == pytest.approx(100 * 10 / 16) and repeated.mean == 50


RANK = """
import sys, torch
from signstreams.engine import distributed
from signstreams.integrate.alignment import Alignment, Pairs
given = torch.load(sys.argv[1], weights_only=True)
world, found = distributed.start(distributed=True, device="cpu"), []
for count in (1, 3):
    alignment = Alignment(given["clips"].shape[1], None)
    clips, sentences = (given[key][:count][world.rank :: 2].clone().requires_grad_() for key in ("clips", "sentences"))
    texts = given["texts"][:count][world.rank :: 2]
    loss = alignment.joint_loss(Pairs(clips, sentences, texts) if len(texts) else None, count, world)
    loss.backward()
    none = torch.zeros_like(clips)
    grads = [none if clips.grad is None else clips.grad, none if sentences.grad is None else sentences.grad]
    found.append([loss.detach(), alignment.log_scale.grad, *grads])
torch.save(found, f"{sys.argv[2]}/{world.rank}.pt")
distributed.close()
"""


def test_two_processes_compare_the_clips_of_their_joint_batch(tmp_path: Path, run_two: Callable[..., None]) -> None:
    """Also where one of them has none: losses and gradients add up to those of one process."""
    torch.manual_seed(1)
    given = {"clips": torch.randn(3, 4), "sentences": torch.randn(3, 4), "texts": torch.tensor([7, 8, 7])}
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "rank.py").write_text(RANK)
    run_two(tmp_path, tmp_path / "rank.py", str(tmp_path / "given.pt"), str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for count, first, second in zip((1, 3), *ranks, strict=True):
        alignment = Alignment(4, None)
        clips, sentences = (given[key][:count].clone().requires_grad_() for key in ("clips", "sentences"))
        loss = alignment_loss(Pairs(clips, sentences, given["texts"][:count]), alignment.scale)
        loss.backward()
        torch.testing.assert_close(first[0] + second[0], loss.detach())
        torch.testing.assert_close(first[1] + second[1], alignment.log_scale.grad)
        for number, expected in ((2, clips.grad), (3, sentences.grad)):
            for rank, found in enumerate((first, second)):
                torch.testing.assert_close(found[number], expected[rank::2])


def spoken(words: list[int], rng: np.random.Generator) -> Sample:
    """A clip whose face shows four frames of each word of its sentence."""
    size = 4 * len(words)
    shown = np.repeat(np.eye(6)[np.array(words) - 3], 4, axis=0) + rng.normal(0, 0.2, (size, 6))
    nodes = np.zeros((size, NUM_NODES, 3), np.float32)
    seen = {"face": np.ones(size, dtype=bool)}
    features = {"face": shown.astype(np.float16)}
    return Sample("clip", nodes, np.zeros((size, 21), np.float32), seen, {}, features, tokens=[*words, 1])


def test_a_short_training_finds_sentences_of_unseen_clips_and_no_others(tiny_config: Build) -> None:
    config = tiny_config(stage="vlp", model={"use_mska": False, "use_pose": False, "dropout": 0})
    sizes = own_t5_config(config.decoder, config.model.d_model, 300)
    torch.manual_seed(0)
    model = MultistreamModel(
        config,
        feature_dims={"face": 6},
        backbones={},
        num_glosses=None,
        decoder=TextDecoder(sizes, config.model.d_model, SpecialTokens()),
        alignment=Alignment(config.model.d_model, text_encoder(config.decoder, sizes)),
    )
    assert model.alignment is not None
    rng, alone = np.random.default_rng(0), World(0, 1, torch.device("cpu"))
    sentences = [list(words) for words in itertools.permutations(range(3, 9), 3)]
    rng.shuffle(sentences)
    unseen, known = sentences[:20], sentences[20:]
    optimizer, history = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(STEPS):
        chosen = rng.choice(len(known), 16, replace=False)
        batch = collate([spoken(known[row], rng) for row in chosen])
        losses = compute_losses(model, batch, model.encode(batch), label_smoothing=0)
        alignment = model.alignment.joint_loss(losses.pairs, 16, alone) / 16
        restoration = losses.terms[RESTORATION].total / batch.num_tokens
        optimizer.zero_grad()
        (alignment + restoration).backward()
        optimizer.step()
        history.append((alignment.item(), restoration.item()))
    model.eval()
    batch = collate([spoken(words, rng) for words in unseen])
    with torch.no_grad():
        pairs = compute_losses(model, batch, model.encode(batch), label_smoothing=0).pairs
    assert pairs is not None
    found = retrieval(pairs)
    swapped = retrieval(pairs._replace(sentences=pairs.sentences.roll(1, 0)))
    assert found.chance == 5 and found.mean > 40 and swapped.mean < 15
    for start, *_, end in zip(*history, strict=True):
        assert end < start / 2


KEYS = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)


@pytest.fixture(scope="module")
def aligned(tiny_config: Build, tmp_path_factory: pytest.TempPathFactory) -> IntegrateConfig:
    """Config of a finished stage."""
    folder = tmp_path_factory.mktemp("vlp") / "run"
    config = tiny_config(stage="vlp", output_dir=folder, model=KEYS, train={"epochs": 1, "log_every_steps": 1})
    run(config)
    return config


def test_a_run_is_chosen_by_retrieval_and_says_what_a_guess_reaches(aligned: IntegrateConfig) -> None:
    records = read_metrics(aligned.output_dir / "metrics.jsonl")
    assert all(records[0][f"train/loss_{name}"] > 0 for name in ("alignment", "restoration"))
    val = records[-1]
    assert val["val/retrieval_chance"] == pytest.approx(100 / 3)
    assert val["val/retrieval"] == (val["val/recall_text_to_clip"] + val["val/recall_clip_to_text"]) / 2
    assert val["val/loss"] == pytest.approx(val["val/loss_alignment"] + val["val/loss_restoration"])
    assert not any("translation" in key or ("ctc_" in key and "skipped" not in key) or "bleu" in key for key in val)
    best = checkpoint.load(aligned.output_dir / "best.pt")
    assert best["val"] == {"retrieval": val["val/retrieval"], "loss_alignment": val["val/loss_alignment"]}
    assert best["glosses"] is None


def test_a_model_of_the_stage_translates_nothing_and_says_what_to_do(aligned: IntegrateConfig) -> None:
    best = aligned.output_dir / "best.pt"
    with pytest.raises(UserError, match="of stage vlp, which translates nothing; train stage slt with") as caught:
        load_trained_model(EvaluateSltConfig(checkpoint=best))
    assert len(caught.value.problems) == 1


def test_a_translation_starts_from_all_its_weights_but_those_of_the_stage(
    aligned: IntegrateConfig, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = {"epochs": 1, "init_checkpoint": aligned.output_dir / "best.pt"}
    config = tiny_config(
        output_dir=tmp_path / "slt",
        features_dir=aligned.features,
        model=KEYS,
        mska={"ctc_weight": 0},
        train=start,
        optim={"lr": 1e-12},
    )
    run(config)
    ours, theirs = (checkpoint.load(folder / "best.pt")["model"] for folder in (config.output_dir, aligned.output_dir))
    assert {name for name in theirs if name not in ours} == {name for name in theirs if name.startswith("alignment.")}
    assert ours.keys() <= theirs.keys()
    assert all(torch.allclose(tensor, theirs[name], atol=1e-9) for name, tensor in ours.items())
    assert "fit nothing here" not in caplog.text


def test_a_named_model_without_its_encoder_keeps_it_for_the_sentences(tmp_path: Path) -> None:
    folder = save_mbart(tmp_path / "mbart")
    settings = DecoderConfig(model=str(folder), use_encoder=False, target_language="es_XX")
    sizes = named_config(settings, None)
    theirs = MBartForConditionalGeneration.from_pretrained(folder).get_encoder().eval()
    ids = torch.tensor([[7, 8, 2]])
    found = text_encoder(settings, sizes).eval()(inputs_embeds=theirs.embed_tokens(ids)).last_hidden_state
    torch.testing.assert_close(found, theirs(ids).last_hidden_state)
    assert not any("embed_tokens" in name for name, _ in text_encoder(settings, sizes).named_parameters())


def test_a_whole_model_reads_clips_and_sentences_and_hands_all_on(tiny_config: Build, tmp_path: Path) -> None:
    folder = save_mbart(tmp_path / "mbart")
    own = IntegrateConfig()
    config = tiny_config(
        stage="vlp",
        output_dir=tmp_path / "run",
        model={**KEYS, **{name: getattr(own.model, name) for name in ("num_layers", "ff_dim")}},
        decoder={
            **{name: getattr(own.decoder, name) for name in ("num_layers", "ff_dim", "vocab_size")},
            "model": str(folder),
            "target_language": "es_XX",
        },
        train={"epochs": 1},
    )
    run(config)
    state = checkpoint.load(config.output_dir / "best.pt")["model"]
    assert {name for name in state if name.startswith("alignment.")} == {
        "alignment.project.weight",
        "alignment.log_scale",
    }
    before = MBartForConditionalGeneration.from_pretrained(folder).state_dict()
    for part in ("encoder", "decoder"):  # both learned
        name = f"model.{part}.layers.0.fc1.weight"
        assert not torch.equal(state[f"decoder.net.{name}"], before[name])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"mska": {"translation_weight": 2.0}}, "translation_weight has no effect: stage vlp learns neither"),
        ({"mska": {"ctc_weight": 0.5}}, "ctc_weight has no effect"),
        ({"optim": {"translation_loss": "sentence"}}, "translation_loss has no effect"),
        ({"scoring": {"num_beams": 4}}, "num_beams has no effect"),
        ({"scoring": {"gloss_beams": 4}}, "gloss_beams has no effect"),
        ({"optim": {"accumulate_steps": 2}}, "compares the clips of one pass with each other; set it to 1"),
        ({"data": {"batch_size": 1}}, "batch_size is 1, but stage vlp"),
    ],
)
def test_a_setting_without_effect_is_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegrateConfig.model_validate({"stage": "vlp", **tree})
    if "batch_size" not in str(tree):
        IntegrateConfig.model_validate({"stage": "vlp", "model": {"use_mska": False}})


def test_the_stage_is_another_experiment() -> None:
    assert IntegrateConfig(stage="vlp").identity({})["stage"] == "vlp"
    assert "stage" not in IntegrateConfig().identity({})
