"""Stage g2t: glosses to text without any video, and a translation that starts from what it learned."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MBartForConditionalGeneration

from signstreams.corpus.findings import few
from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.integrate.corpus_rules import gloss_words
from signstreams.integrate.decoder import named_tokenizer
from signstreams.integrate.gloss_text import load_sentences
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecoderConfig, EvaluateSltConfig, IntegrateConfig, ModelConfig
from signstreams.integrate.trained_model import load_trained_model

from .language_models import save_mbart

Build = Callable[..., IntegrateConfig]
CrashedAt = Callable[[int], AbstractContextManager[None]]
SIZES: dict[str, Any] = {"d_model": 32, "num_layers": 1, "ff_dim": 32}
TEXT: dict[str, Any] = {"num_layers": 1, "ff_dim": 32, "vocab_size": 300, "max_tokens": 64}


def g2t(root: Path, output_dir: Path, **changes: Any) -> IntegrateConfig:
    tree: dict[str, Any] = {
        "stage": "g2t",
        "root": root,
        "output_dir": output_dir,
        "data": {"batch_size": 4},
        "model": SIZES,
        "decoder": TEXT,
        "train": {"epochs": 2, "log_every_steps": 1},
    }
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(tree.get(key), dict) else value
    return IntegrateConfig.model_validate(tree)


@pytest.fixture(scope="module")
def tables(processed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus without anything that was extracted."""
    root = tmp_path_factory.mktemp("tables") / "corpus"
    for name in ("index", "annotations"):
        shutil.copytree(processed_corpus / name, root / name)
    shutil.copy(processed_corpus / "meta.csv", root)
    return root


@pytest.fixture(scope="module")
def learned(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> IntegrateConfig:
    config = g2t(tables, tmp_path_factory.mktemp("g2t") / "run", optim={"lr": 5e-3}, train={"epochs": 30})
    run(config)
    return config


def weights(folder: Path, name: str = "best.pt") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / name)["model"]


def test_texts_are_learned_from_glosses_where_nothing_was_extracted(learned: IntegrateConfig) -> None:
    records = read_metrics(learned.output_dir / "metrics.jsonl")
    losses = [record["train/loss_translation"] for record in records if "train/loss_translation" in record]
    assert losses[-1] < losses[0] / 2
    assert max(record.get("val/bleu_4", 0.0) for record in records) > 0
    assert set(weights(learned.output_dir)) == {
        name
        for name in weights(learned.output_dir)
        if name.startswith(("decoder.", "fusion.encoder.", "fusion.glosses."))
    }


def test_it_is_scored_like_a_translation(learned: IntegrateConfig, tmp_path: Path) -> None:
    given = EvaluateSltConfig(checkpoint=learned.output_dir / "best.pt", output_dir=tmp_path)
    content = score(given)
    assert "baselines" not in content and "gloss" not in content
    best = checkpoint.load(learned.output_dir / "best.pt")
    assert content["val"]["losses"]["translation"] == pytest.approx(best["val"]["loss_translation"], rel=1e-4)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["first_frame"] for row in rows} == {""} and all(row["gloss_reference"] for row in rows)
    page = (tmp_path / "translations.html").read_text(encoding="utf-8")
    assert rows[-1]["clip_id"] in page and "<video" not in page
    assert json.loads((tmp_path / "scores.json").read_text())["bleu_4"] == content["bleu_4"]


def test_it_is_no_model_of_video(learned: IntegrateConfig) -> None:
    with pytest.raises(UserError, match=r"is of stage g2t, which reads glosses; name a model that was trained on"):
        load_trained_model(EvaluateSltConfig(checkpoint=learned.output_dir / "best.pt"))


def test_the_translation_starts_from_both_stages(
    learned: IntegrateConfig, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)
    # a stage without texts takes them of any length
    short = {"max_tokens": 1}
    first = tiny_config(stage="s2g", output_dir=tmp_path / "s2g", model=keys, decoder=short, train={"epochs": 1})
    run(first)
    # what a stage did not train does not overwrite what the other did, whatever their order
    starts = [learned.output_dir / "best.pt", first.output_dir / "best.pt"]
    changes: dict[str, Any] = {"optim": {"lr": 1e-12}, "train": {"epochs": 1, "init_checkpoint": starts}}
    config = tiny_config(output_dir=tmp_path / "slt", model=keys, **changes)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(config)
    assert "the checkpoint has other ones" not in caplog.text
    ours, text = weights(config.output_dir), weights(learned.output_dir)
    left = [name for name in ours if name not in text and name not in weights(first.output_dir)]
    (kept,) = [line for line in caplog.messages if "keep their initial weights" in line]
    assert kept == f"{len(left)} tensors keep their initial weights: {few(left)}"
    taken = {"mska.": weights(first.output_dir), "decoder.": text, "fusion.encoder.": text}
    for prefix, theirs in taken.items():
        names = [name for name in ours if name.startswith(prefix)]
        assert names
        for name in names:
            torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_a_stopped_run_resumes_to_the_same_weights(tables: Path, tmp_path: Path, crashed_at: CrashedAt) -> None:
    run(g2t(tables, tmp_path / "whole"))
    with crashed_at(4):
        run(g2t(tables, tmp_path / "parts"))
    run(g2t(tables, tmp_path / "parts", resume="must"))
    whole, parts = weights(tmp_path / "whole", "last.pt"), weights(tmp_path / "parts", "last.pt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_glosses_of_a_pretrained_model_begin_as_its_words(tables: Path, tmp_path: Path) -> None:
    folder = save_mbart(tmp_path / "mbart")
    decoder = {"model": str(folder), "target_language": "es_XX", "max_tokens": 64}
    config = g2t(tables, tmp_path / "run").model_copy(
        update={"model": ModelConfig(), "decoder": DecoderConfig.model_validate(decoder)}
    )
    run(config)
    bundle = load_trained_model(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt"), reads_video=False)
    assert bundle.vocabulary is not None
    pretrained = checkpoint.load(config.output_dir / "best.pt")["model"]
    glosses = pretrained["fusion.glosses.weight"]
    original = named_tokenizer(config.decoder)
    words = MBartForConditionalGeneration.from_pretrained(folder).get_input_embeddings().weight
    for number, name in enumerate(bundle.vocabulary.names[1:], start=1):
        tokens = [token for token in original.encode(gloss_words(name)) if token not in original.special.ids]
        torch.testing.assert_close(glosses[number], words[tokens].mean(dim=0).detach())
    assert not glosses[0].any()
    assert not bundle.model.get_parameter("fusion.glosses.weight").requires_grad


@pytest.mark.parametrize(
    ("cleanup", "labels", "ids"), [("none", ("A", "B", "loc-HAUS"), 4), ("phoenix2014t", ("A+B", "HAUS"), 3)]
)
def test_glosses_are_cleaned_before_they_are_read(
    tables: Path, tmp_path: Path, cleanup: str, labels: tuple[str, ...], ids: int
) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(tables, root)
    lines = (root / "annotations" / "gloss.csv").read_text(encoding="utf-8").splitlines()
    rows = [lines[0], *(f"{line.split(';')[0]};A B loc-HAUS;A B loc-HAUS" for line in lines[1:])]
    (root / "annotations" / "gloss.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    clips = load_sentences(g2t(root, tmp_path / "out", scoring={"gloss_cleanup": cleanup}))
    assert {entry.gloss for entry in clips.entries["val"]} == {labels}
    assert clips.vocabulary is not None and len(clips.vocabulary) == ids


def test_a_gloss_that_train_lacks_is_read_as_nothing_or_refused(tables: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(tables, root)
    path = root / "annotations" / "gloss.csv"
    val = (root / "index" / "val.csv").read_text(encoding="utf-8").split("\n")[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{val};NUEVO CASA;NUEVO CASA" if line.startswith(f"{val};") else line for line in lines]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    clips = load_sentences(g2t(root, tmp_path / "out"))
    assert clips.vocabulary is not None
    assert clips.entries["val"][0].gloss_ids == (0, clips.vocabulary.ids["CASA"])
    with pytest.raises(UserError, match=r"1 glosses of val are in no clip of train: 'NUEVO'"):
        load_sentences(g2t(root, tmp_path / "out", data={"unknown_gloss": "refuse"}))


def test_a_corpus_without_glosses_is_refused(tables: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(tables, root)
    (root / "annotations" / "gloss.csv").unlink()
    with pytest.raises(UserError, match=r"gloss.csv: has no glosses for the clips of train, expected some; stage g2t"):
        run(g2t(root, tmp_path / "out"))
    assert not (tmp_path / "out" / "best.pt").exists()


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("data", "frame_stride", 1),
        ("augmentation", "scale", 0.3),
        ("model", "use_pose", False),
        ("model", "face_backbone", "file::a.pt"),
        ("mska", "head_dim", 64),
        ("optim", "lr_mska", 0.1),
        ("scoring", "gloss_beams", 3),
        ("train", "sequence_checkpoint", "a.pt"),
    ],
)
def test_settings_of_video_have_no_effect(section: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{section}.{name} has no effect: stage g2t learns texts from glosses"):
        IntegrateConfig.model_validate({"stage": "g2t", section: {name: value}})


def test_only_what_it_reads_is_its_identity() -> None:
    identity = IntegrateConfig(stage="g2t").identity({})
    assert identity["stage"] == "g2t" and not {"mska", "augmentation"} & set(identity)
    assert set(identity["data"]) == {"batch_size", "subset_size", "unknown_gloss"}
