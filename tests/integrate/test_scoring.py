"""Evaluation of a trained model, apart from its training: scores, the page for people, what is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.clips import load_clips, tokenize_clips
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecodingConfig, EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.text_scores import translation_scores
from signstreams.integrate.trained_model import load_trained_model

Build = Callable[..., IntegrateConfig]
Make = Callable[..., Path]


def given(config: IntegrateConfig, tmp_path: Path, **changes: object) -> EvaluateSltConfig:
    tree = {"checkpoint": config.output_dir / "best.pt", "output_dir": tmp_path / "out", "decoding": {"num_beams": 2}}
    return EvaluateSltConfig.model_validate(tree | changes)


def test_splits_are_scored_in_their_order_into_another_folder(trained: IntegrateConfig, tmp_path: Path) -> None:
    content = score(given(trained, tmp_path, splits=["train", "val"], blank_video=False))
    assert content["split"] == "val" and content["num_clips"] == 3 and content["train"]["num_clips"] == 10
    assert "baselines" not in content and content["decoding"]["num_beams"] == 2
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == content
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8"))))
    assert [row["split"] for row in rows] == ["train"] * 10 + ["val"] * 3
    assert not (trained.output_dir / "scores.json").exists()
    page = (tmp_path / "out" / "translations.html").read_text(encoding="utf-8")
    assert "Translations: train, val" in page and "All 13 clips" in page and page.count('data-split="train"') == 10


def test_blank_video_is_the_same_for_every_clip(trained: IntegrateConfig, tmp_path: Path) -> None:
    content = score(given(trained, tmp_path))
    blank = content["baselines"]["blank_video"]
    assert blank["num_clips"] == content["num_clips"] == 3
    assert blank["losses"]["translation"] != content["losses"]["translation"]
    for key, value in (("bleu_4", content["bleu_4"] - blank["bleu_4"]), ("chrf", content["chrf"] - blank["chrf"])):
        assert blank["difference"][key]["value"] == pytest.approx(value)
    assert blank["difference"]["wer"]["value"] == pytest.approx(content["gloss"]["wer"] - blank["gloss"]["wer"])


def test_a_folder_that_cannot_be_written_to_is_noticed_before_the_evaluation(
    trained: IntegrateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.integrate.scoring.evaluate", lambda *words, **more: pytest.fail("hours are lost"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UserError, match=r"file/out: cannot be written to \(Not a directory\); give another --output-dir"
    ):
        score(given(trained, tmp_path, output_dir=tmp_path / "file/out"))


def test_a_model_trained_on_blank_video_scores_the_same_with_it(tiny_config: Build, tmp_path: Path) -> None:
    keys = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...}
    config = tiny_config(output_dir=tmp_path / "run", model=keys, data={"blank_video": True}, train={"epochs": 1})
    run(config)
    content = score(given(config, tmp_path))
    assert content["baselines"]["blank_video"]["losses"] == content["losses"]


def test_batches_change_no_score(trained: IntegrateConfig, tmp_path: Path) -> None:
    one, three = (score(given(trained, tmp_path, batch_size=size)) for size in (1, 3))
    assert one["bleu_4"] == three["bleu_4"] and one["gloss"] == three["gloss"]
    assert one["losses"]["translation"] == pytest.approx(three["losses"]["translation"], rel=1e-4)


def test_a_reference_against_itself_has_a_bleu_of_100(trained: IntegrateConfig) -> None:
    texts = [entry.text for entries in load_clips(trained).entries.values() for entry in entries]
    texts = [f"{text} {text}" for text in texts]  # four words at least, as BLEU-4 needs
    scores = translation_scores(texts, texts)
    assert scores["bleu_4"] == pytest.approx(100) and scores["chrf"] == pytest.approx(100)
    assert scores["rouge_l"] == pytest.approx(100) and scores["length_ratio"] == 1


def test_a_gloss_the_model_never_learnt_is_an_error_in_wer_and_no_ctc(
    trained: IntegrateConfig, own_corpus: Path, tmp_path: Path
) -> None:
    layout = CorpusLayout(own_corpus)
    lines = layout.gloss.read_text(encoding="utf-8").splitlines()
    lines = ["test ñ0;NUEVA;NUEVA" if line.startswith("test ñ0;") else line for line in lines]
    layout.gloss.write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = score(given(trained, tmp_path, root=own_corpus, features_dir=tmp_path / "f", splits=["test"]))
    assert content["gloss"]["num_glosses"] == 1 and content["gloss"]["wer"] >= 100
    assert content["losses"]["ctc"] == 0


def test_gloss_ids_of_another_corpus_are_none_of_the_models(
    trained: IntegrateConfig, own_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With train among the splits clips come with ids of their own corpus, here above those of the model's glosses."""
    layout = CorpusLayout(own_corpus)
    lines = layout.gloss.read_text(encoding="utf-8").splitlines()
    lines = [f"{line.split(';')[0]};{'NUEVA' if n == 1 else f'N{n}'};x" for n, line in enumerate(lines) if n]
    layout.gloss.write_text("\n".join(["video_id;gloss;ctc_labels", *lines]) + "\n", encoding="utf-8")
    seen: list[object] = []
    monkeypatch.setattr(
        "signstreams.integrate.scoring.tokenize_clips",
        lambda entries, *args: seen.extend(e.gloss_ids for e in entries["train"]) or tokenize_clips(entries, *args),
    )
    content = score(given(trained, tmp_path, root=own_corpus, features_dir=tmp_path / "f", splits=["train"]))
    assert seen == [None] * 6
    assert content["losses"]["ctc"] == 0 and content["gloss"]["num_glosses"] == 6


def test_scores_name_the_very_checkpoint(trained: IntegrateConfig, tmp_path: Path) -> None:
    content = score(given(trained, tmp_path, splits=["val"], blank_video=False))
    assert content["checkpoint_sha256"] == sha256_file(trained.output_dir / "best.pt")


def test_a_length_penalty_without_beams_is_refused() -> None:
    assert DecodingConfig(num_beams=2, length_penalty=2.0).length_penalty == 2.0
    with pytest.raises(ValueError, match="length_penalty has no effect: num_beams is 1"):
        DecodingConfig(num_beams=1, length_penalty=2.0)


def test_a_checkpoint_that_is_none_is_one_line(trained: IntegrateConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.pt: no such file, expected a trained model; train one"):
        load_trained_model(given(trained, tmp_path, checkpoint=tmp_path / "no.pt"))
    (tmp_path / "torn.pt").write_bytes((trained.output_dir / "best.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"torn\.pt.*; name the best\.pt of a run"):
        load_trained_model(given(trained, tmp_path, checkpoint=tmp_path / "torn.pt"))
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: is not a multistream v9 model"):
        load_trained_model(given(trained, tmp_path, checkpoint=tmp_path / "other.pt"))
    with pytest.raises(UserError, match=r"last\.pt: holds the state of a training, .*; name the best\.pt beside it"):
        load_trained_model(given(trained, tmp_path, checkpoint=trained.output_dir / "last.pt"))


def test_a_tokenizer_that_is_gone_or_another_is_one_line(trained: IntegrateConfig, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.copy(trained.output_dir / "best.pt", folder)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_trained_model(given(trained, tmp_path, checkpoint=folder / "best.pt"))


def test_backbones_are_found_where_they_are_now_and_no_other_is_taken(
    trained: IntegrateConfig, make_backbone: Make, tmp_path: Path
) -> None:
    known = trained.model.backbones["face"].removeprefix("file::").partition(":")[0]
    moved = tmp_path / "moved here.pt"
    shutil.copy(known, moved)
    bundle = load_trained_model(given(trained, tmp_path, face_backbone=f"file::{moved}"))
    assert bundle.config.model.face_backbone == f"file::{moved}"
    other = make_backbone(tmp_path / "other.pt", seed=9)
    with pytest.raises(UserError, match=r"face_backbone: its SHA-256 is .*, but .* was trained with .*; name that"):
        load_trained_model(given(trained, tmp_path, face_backbone=f"file::{other}"))


def test_a_stream_the_model_was_trained_without_is_named(tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config(output_dir=tmp_path / "run", model={"face_backbone": ...}, train={"epochs": 1})
    run(config)
    with pytest.raises(UserError, match=r"face_backbone: .* was trained without this stream; leave --face-backbone"):
        load_trained_model(given(config, tmp_path, face_backbone="timm::vit_tiny_patch16_224"))


def test_leave_to_fetch_weights_is_the_evaluations_own(
    trained: IntegrateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signstreams.backbones.weights.cached_file", lambda _: None)
    content = checkpoint.load(trained.output_dir / "best.pt")
    file = content["config"]["model"]["face_backbone"]
    content["config"]["model"] |= {"face_backbone": "timm::test_vit.r160_in1k", "download": True}
    shutil.copytree(trained.output_dir, tmp_path / "run")
    torch.save(content, tmp_path / "run" / "best.pt")
    path = tmp_path / "run" / "best.pt"
    with pytest.raises(UserError, match=r"not in the local cache; add --model-download"):
        load_trained_model(given(trained, tmp_path, checkpoint=path))
    bundle = load_trained_model(given(trained, tmp_path, checkpoint=path, face_backbone=file))
    assert not bundle.config.model.download
    with pytest.raises(UserError, match=r"download has no effect: no backbone of .*best\.pt is a timm:: model"):
        load_trained_model(given(trained, tmp_path, checkpoint=path, face_backbone=file, download=True))


def test_a_setting_that_no_version_knows_is_one_line(trained: IntegrateConfig, tmp_path: Path) -> None:
    content = checkpoint.load(trained.output_dir / "best.pt")
    content["config"]["model"]["fusion_kind"] = "sum"
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(UserError, match=r"does not fit this version of signstreams \(model\.fusion_kind"):
        load_trained_model(given(trained, tmp_path, checkpoint=tmp_path / "best.pt"))


def test_a_split_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="splits names one twice: val val"):
        EvaluateSltConfig(splits=["val", "val"])
    assert DecodingConfig().num_beams > 1


def test_a_model_that_went_astray_is_refused(trained: IntegrateConfig, tmp_path: Path) -> None:
    shutil.copytree(trained.output_dir, tmp_path / "run")
    path = tmp_path / "run" / "best.pt"
    content = checkpoint.load(path)
    for value, what in ((torch.nan, "weights"), (3e38, "losses")):
        content["model"]["fusion.fuse.1.weight"].fill_(value)
        torch.save(content, path)
        with pytest.raises(UserError, match=rf"best\.pt: its {what} are not finite.*lower optim\.lr"):
            score(given(trained, tmp_path, checkpoint=path))
    assert not (tmp_path / "out" / "scores.json").exists()
