"""Stage text: sentences restored from what is left of them, and stages that start from what it learned."""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.integrate.noised_text import HIDDEN_SHARE, load_texts, with_gaps
from signstreams.integrate.run import run
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.text_files import read_sentences, without_held_out
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.trained_model import load_trained_model

Build = Callable[..., IntegrateConfig]
CrashedAt = Callable[[int], AbstractContextManager[None]]
SIZES: dict[str, Any] = {"d_model": 32, "num_layers": 1, "ff_dim": 32}
TEXT: dict[str, Any] = {"num_layers": 1, "ff_dim": 32, "vocab_size": 320, "max_tokens": 64}
KEYS_ONLY = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
SENTENCES = [  # of the corpus's words, and of others
    " ".join(words).capitalize() + "."
    for length in (2, 3)
    for words in itertools.product(["casa", "niño", "comer", "mañana", "perro", "agua", "vecina"], repeat=length)
]


def of_texts(root: Path, output_dir: Path, **changes: Any) -> IntegrateConfig:
    tree: dict[str, Any] = {
        "stage": "text",
        "root": root,
        "output_dir": output_dir,
        "data": {"batch_size": 4},
        "model": SIZES,
        "decoder": TEXT,
        "optim": {"lr": 5e-3},
        "train": {"epochs": 2, "log_every_steps": 1},
    }
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(tree.get(key), dict) else value
    return IntegrateConfig.model_validate(tree)


def weights(folder: Path, name: str = "best.pt") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / name)["model"]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tables(processed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus without glosses, and without anything that was extracted."""
    root = tmp_path_factory.mktemp("tables") / "corpus"
    shutil.copytree(processed_corpus / "index", root / "index")
    shutil.copy(processed_corpus / "meta.csv", root)
    return root


@pytest.fixture(scope="module")
def learned(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> IntegrateConfig:
    folder = tmp_path_factory.mktemp("text")
    texts = write(folder / "más.txt", SENTENCES)
    train = {"epochs": 12, "eval_every_epochs": 4, "text_files": texts}
    still = {"decoder": {"dropout": 0}, "optim": {"label_smoothing": 0.0}}
    config = of_texts(tables, folder / "run", train=train, data={"batch_size": 16}, **still)
    run(config)
    return config


def unigram_loss(learned: list[str], texts: list[str], tokenizer: Tokenizer) -> float:
    """Cross-entropy per token of ``texts`` under how often each token is in ``learned``."""
    counts = Counter(token for text in learned for token in tokenizer.encode(text))
    tokens = [token for text in texts for token in tokenizer.encode(text)]
    return -sum(math.log(counts[token] / counts.total()) for token in tokens) / len(tokens)


def test_it_learns_more_than_which_tokens_are_frequent(learned: IntegrateConfig) -> None:
    tokenizer = Tokenizer.load(learned.output_dir / "tokenizer.json")
    texts = {split: [entry.text for entry in own] for split, own in load_texts(learned).entries.items()}
    records = read_metrics(learned.output_dir / "metrics.jsonl")
    val = [record["val/loss_restoration"] for record in records if "val/loss_restoration" in record]
    assert min(val) < 0.7 * unigram_loss(texts["train"], texts["val"], tokenizer)
    best = checkpoint.load(learned.output_dir / "best.pt")
    assert best["val"] == {"loss_restoration": min(val)} and best["glosses"] is None
    assert {name.partition(".")[0] for name in best["model"]} == {"decoder", "fusion"}
    assert not [key for record in records for key in record if "bleu" in key or "wer" in key]


def test_texts_of_the_files_are_learned_and_their_tokens_too(
    learned: IntegrateConfig, tables: Path, tmp_path: Path
) -> None:
    own = load_texts(of_texts(tables, tmp_path / "out")).entries["train"]
    both = load_texts(learned).entries["train"]
    added = [entry.text for entry in both[len(own) :]]
    assert [entry.text for entry in both[: len(own)]] == [entry.text for entry in own]
    assert added == [text for text in SENTENCES if text in set(added)] and len(added) > 0.9 * len(SENTENCES)
    alone = Tokenizer.train([entry.text for entry in own], TEXT["vocab_size"])
    shared = Tokenizer.load(learned.output_dir / "tokenizer.json")
    assert len(shared.encode("La vecina")) < len(alone.encode("La vecina"))


def test_what_starts_from_it_keeps_its_tokenizer_and_weights(
    learned: IntegrateConfig,
    processed_corpus: Path,
    tiny_config: Build,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also what starts from a stage that started from it."""
    kept: dict[str, Any] = {"optim": {"lr": 1e-12}}
    g2t, slt = tmp_path / "g2t", tmp_path / "slt"
    first = {"epochs": 1, "init_checkpoint": learned.output_dir / "best.pt"}
    run(of_texts(processed_corpus, g2t, stage="g2t", train=first, **kept))
    then = {"epochs": 1, "init_checkpoint": g2t / "best.pt"}
    run(tiny_config(output_dir=slt, model=KEYS_ONLY, decoder=TEXT, train=then, **kept))
    assert "the checkpoint has other ones" not in caplog.text
    ours, theirs = weights(slt, "last.pt"), weights(learned.output_dir)
    taken = [name for name in ours if name.startswith(("decoder.", "fusion.encoder."))]
    assert taken
    for name in taken:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)
    tokens = [Tokenizer.load(folder / "tokenizer.json").ids for folder in (learned.output_dir, slt)]
    assert tokens[0] == tokens[1]


def test_a_tokenizer_of_another_size_is_named(learned: IntegrateConfig, tables: Path, tmp_path: Path) -> None:
    changes = {"decoder": {"vocab_size": 400}, "train": {"init_checkpoint": learned.output_dir / "best.pt"}}
    with pytest.raises(UserError, match=r"decoder.vocab_size: is 400, but the tokenizer of .* has 320; set it to that"):
        run(of_texts(tables, tmp_path / "out", **changes))


def test_it_is_no_model_that_translates(learned: IntegrateConfig) -> None:
    with pytest.raises(UserError, match=r"is of stage text, which translates nothing; train stage slt with"):
        load_trained_model(EvaluateSltConfig(checkpoint=learned.output_dir / "best.pt"), reads_video=False)


def steps_until(folder: Path, loss: float) -> float:
    for record in read_metrics(folder / "metrics.jsonl"):
        if record.get("val/loss_translation", math.inf) < loss:
            return record["step"]
    return math.inf


def test_a_translation_that_starts_from_it_needs_fewer_steps(
    learned: IntegrateConfig, tiny_config: Build, tmp_path: Path
) -> None:
    """The texts of the corpus and more of their grammar are known when the first clip is read."""
    found = {}
    for name, starts in (("scratch", []), ("started", [learned.output_dir / "best.pt"])):
        train = {"epochs": 10, "init_checkpoint": starts}
        folder = tmp_path / name
        changes: dict[str, Any] = {"model": KEYS_ONLY, "decoder": TEXT, "optim": {"lr": 2e-3}, "train": train}
        run(tiny_config(output_dir=folder, features_dir=tmp_path / "features", **changes))
        found[name] = folder
    scratch = [r["val/loss_translation"] for r in read_metrics(found["scratch"] / "metrics.jsonl") if "val/loss" in r]
    reached = scratch[len(scratch) // 2]
    assert steps_until(found["started"], reached) <= steps_until(found["scratch"], reached) / 2


def test_a_stopped_run_resumes_to_the_same_weights(tables: Path, tmp_path: Path, crashed_at: CrashedAt) -> None:
    run(of_texts(tables, tmp_path / "whole"))
    with crashed_at(4):
        run(of_texts(tables, tmp_path / "parts"))
    run(of_texts(tables, tmp_path / "parts", resume="must"))
    whole, parts = weights(tmp_path / "whole", "last.pt"), weights(tmp_path / "parts", "last.pt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# -- Gaps and files


def test_a_span_becomes_one_mask_and_a_third_is_hidden() -> None:
    rng, tokens = np.random.default_rng(0), list(range(10, 40))
    for _ in range(50):
        seen = with_gaps(tokens, 0, rng)
        kept = [token for token in seen if token]
        assert kept == sorted(kept) and len(kept) == len(tokens) - math.ceil(HIDDEN_SHARE * len(tokens))
        assert not any(one == other == 0 for one, other in itertools.pairwise(seen))
    assert with_gaps([7], 0, rng) == [0]
    assert with_gaps(tokens, 0, np.random.default_rng(1)) != with_gaps(tokens, 0, np.random.default_rng(2))


def test_training_draws_new_gaps_and_an_evaluation_the_same(learned: IntegrateConfig) -> None:
    from signstreams.integrate.noised_text import SentenceDataset, tokenize_texts

    tokenizer = Tokenizer.load(learned.output_dir / "tokenizer.json")
    entries = tokenize_texts(load_texts(learned), tokenizer, 64)["train"]
    clips = SentenceDataset(entries, tokenizer.special)
    drawn = [clips.drawn(0, learned.augmentation, np.random.default_rng(seed)).features["word"] for seed in range(4)]
    assert len({ids.tobytes() for ids in drawn}) > 1
    assert np.array_equal(clips[0].features["word"], clips[0].features["word"])
    assert clips[0].tokens == list(entries[0].tokens)


def test_sentences_of_val_and_test_are_counted_and_left_out(
    tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = {split: (tables / "index" / f"{split}.csv").read_text().split("\n")[0] for split in ("val", "test")}
    texts = dict(line.split(";") for line in (tables / "meta.csv").read_text().splitlines())
    leaked = [f"  {texts[index['val']].upper()} ", texts[index["test"]]]
    file = write(tmp_path / "a.txt", [*leaked, "", "Nueva frase."])
    with caplog.at_level(logging.WARNING):
        clips = load_texts(of_texts(tables, tmp_path / "out", train={"text_files": file}))
    assert [entry.text for entry in clips.entries["train"] if not entry.video.video_id] == ["Nueva frase."]
    assert "train.text_files: 2 of 3 sentences are texts of the corpus that are not to be learned" in caplog.text
    assert "left out" in caplog.text and "of val" in caplog.text and "of test" in caplog.text


def test_files_are_composed_and_count_by_what_they_say(tables: Path, tmp_path: Path) -> None:
    one = write(tmp_path / "one.txt", ["El niño come."])
    other = tmp_path / "other.txt"
    other.write_bytes(b"\xef\xbb\xbf" + unicodedata.normalize("NFD", "El niño come.").encode() + b"\r\n\r\n")
    assert read_sentences([one])[0].text == read_sentences([other])[0].text
    digests = {load_texts(of_texts(tables, tmp_path, train={"text_files": f})).digest for f in (one, other)}
    assert len(digests | {load_texts(of_texts(tables, tmp_path)).digest}) == 2
    given, without = (of_texts(tables, tmp_path, train={"text_files": files}) for files in ([one], []))
    assert given.identity({}) == without.identity({})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"absent.txt: No such file or directory, expected a text file, one sentence per line; name one"),
        (b"hola\nni\xf1o\n", r"absent.txt: byte 0xf1 in line 2, expected UTF-8; convert the file"),
        (b" \n\n", r"absent.txt: is empty, expected one sentence per line; leave it out"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "absent.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^train.text_files: .*{message}$"):
        read_sentences([path])


def test_nothing_is_said_where_nothing_leaks(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    sentences = read_sentences([write(tmp_path / "a.txt", SENTENCES)])
    assert without_held_out(sentences, {"val": ["Otra cosa."]}) == sentences and not caplog.text


def test_sentences_of_files_that_are_too_long_are_left_out(
    tables: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "a.txt", ["palabra " * 70, *SENTENCES])
    with caplog.at_level(logging.WARNING):
        run(of_texts(tables, tmp_path / "out", train={"text_files": file, "max_train_steps": 1}))
    assert "train.text_files: 1 sentences have more than decoder.max_tokens (64) tokens" in caplog.text


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"stage": "slt", "train": {"text_files": "a.txt"}}, "text_files has no effect: stage text alone reads them"),
        ({"stage": "text", "mska": {"head_dim": 64}}, "mska.head_dim has no effect: stage text learns sentences"),
        ({"stage": "text", "optim": {"translation_loss": "sentence"}}, "optim.translation_loss has no effect"),
        ({"stage": "text", "scoring": {"num_beams": 2}}, "scoring.num_beams has no effect"),
        ({"stage": "text", "scoring": {"gloss_cleanup": "phoenix2014t"}}, "scoring.gloss_cleanup has no effect"),
        ({"stage": "text", "decoder": {"model": "google/mt5-small"}}, "google/mt5-small is pretrained on more texts"),
    ],
)
def test_settings_that_it_does_not_read_are_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegrateConfig.model_validate(tree)


@pytest.mark.parametrize("use_encoder", [False, True])
def test_a_named_model_from_scratch_learns_it_too(tables: Path, tmp_path: Path, use_encoder: bool) -> None:
    from transformers import MBartConfig

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"vocab_size": 320, "d_model": 24, "max_position_embeddings": 128}
    config = MBartConfig(scale_embedding=True, **widths, **sizes, **heads)
    config.save_pretrained(tmp_path / "sizes")
    named = {"model": str(tmp_path / "sizes"), "weights": "random", "use_encoder": use_encoder}
    tree = of_texts(tables, tmp_path / "out", train={"epochs": 12}).model_dump(exclude_defaults=True)
    tree |= {"decoder": {**named, "max_tokens": 64, "vocab_size": 320}, "model": {} if use_encoder else SIZES}
    run(IntegrateConfig.model_validate(tree))
    records = read_metrics(tmp_path / "out" / "metrics.jsonl")
    losses = [record["train/loss_restoration"] for record in records if "train/loss_restoration" in record]
    assert losses[-1] < 0.7 * losses[0]
    names = weights(tmp_path / "out")
    assert any(name.startswith("fusion.enter.") for name in names) != use_encoder
