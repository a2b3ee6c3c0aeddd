"""Whole runs on a tiny corpus: artifacts, exact resume, refusals, runs with less than everything."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.distributed import World
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.files import sha256_file
from signstreams.formats.layout import EVALUATION_FILES, GLOSSES, TRAINING_FILES, CorpusLayout
from signstreams.integrate.ctc_decoding import ctc_greedy
from signstreams.integrate.results import PREDICTION_COLUMNS
from signstreams.integrate.run import _check_letters, run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecodingConfig, EvaluateSltConfig, IntegrateConfig

Build = Callable[..., IntegrateConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
FILES = [*TRAINING_FILES.values(), GLOSSES]


def greedy(folder: Path) -> EvaluateSltConfig:
    """As evaluations in training decode."""
    return EvaluateSltConfig(checkpoint=folder / "best.pt", decoding=DecodingConfig(num_beams=1))


@pytest.fixture(scope="module")
def finished(tiny_config: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[IntegrateConfig, dict]:
    config = tiny_config(
        output_dir=tmp_path_factory.mktemp("run") / "multi stream",
        train={"epochs": 14, "eval_every_epochs": 7},
        optim={"lr": 3e-3},
        experiment={"name": "007"},
    )
    run(config)
    return config, score(greedy(config.output_dir))


def test_a_run_leaves_every_artifact(finished: tuple[IntegrateConfig, dict]) -> None:
    config, scores = finished
    folder = config.output_dir
    expected = {*FILES, "predictions.csv", "scores.json"}
    assert {name for name in expected if (folder / name).is_file()} == expected
    assert json.loads((folder / "scores.json").read_text()) == scores
    assert scores["split"] == "test" and scores["num_clips"] == 3
    assert {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "rouge_l", "length_ratio"} <= set(scores)
    gloss = scores["gloss"]
    edits = gloss["substitutions"] + gloss["deletions"] + gloss["insertions"]
    assert gloss["wer"] == pytest.approx(100 * edits / gloss["num_glosses"]) and gloss["head"] in (
        "fuse",
        "left",
        "right",
        "body",
    )
    params = json.loads((folder / "config.json").read_text())
    assert params["experiment"]["name"] == "007" and len(params["backbone_sha256"]["face"]) == 64
    assert IntegrateConfig.model_validate({k: v for k, v in params.items() if k != "backbone_sha256"}) == config
    artifacts = json.loads((folder / "artifacts.json").read_text())
    assert artifacts["best"]["file"] == "best.pt" and artifacts["curves"]["bytes"] > 0


def test_predictions_hold_the_untouched_references(finished: tuple[IntegrateConfig, dict]) -> None:
    config, _ = finished
    with (config.output_dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PREDICTION_COLUMNS
    texts = dict(line.split(";") for line in CorpusLayout(config.root).meta.read_text(encoding="utf-8").splitlines())
    assert [row["reference"] for row in rows] == [texts[row["clip_id"]] for row in rows]
    assert [row["split"] for row in rows] == ["val"] * 3 + ["test"] * 3
    assert all(row["gloss_reference"] for row in rows)


def test_losses_of_training_fall_and_validation_has_every_term(finished: tuple[IntegrateConfig, dict]) -> None:
    config, _ = finished
    records = read_metrics(config.output_dir / "metrics.jsonl")
    train = [record for record in records if "train/loss" in record]
    assert train[-1]["train/loss_translation"] < train[0]["train/loss_translation"]
    assert train[-1]["train/loss_ctc"] < train[0]["train/loss_ctc"]
    val = [record for record in records if "val/loss" in record]
    assert [record["step"] for record in val] == [21, 42]
    for term in ("translation", "ctc", "distillation", "ctc_left", "ctc_fuse"):
        assert math.isfinite(val[0][f"val/loss_{term}"]), term
    terms = sum(val[0][f"val/loss_{term}"] for term in ("translation", "ctc", "distillation"))
    assert val[0]["val/loss"] == pytest.approx(terms)
    assert {"val/bleu_4", "val/chrf", "val/wer_fuse", "val/ctc_skipped"} <= set(val[0])


def test_the_best_checkpoint_is_of_the_best_evaluation(finished: tuple[IntegrateConfig, dict]) -> None:
    config, scores = finished
    best = checkpoint.load(config.output_dir / "best.pt")
    val = [r for r in read_metrics(config.output_dir / "metrics.jsonl") if "val/loss" in r]
    chosen = max(val, key=lambda r: (r["val/bleu_4"], -r["val/loss_translation"]))
    assert best["step"] == chosen["step"] == scores["best_step"]
    assert scores["val"]["bleu_4"] == pytest.approx(chosen["val/bleu_4"])
    assert scores["val"]["losses"]["translation"] == pytest.approx(chosen["val/loss_translation"], rel=1e-5)
    assert not any(name.startswith("backbones.") for name in best["model"])  # frozen: only their features are used


def test_a_finished_run_started_again_writes_what_was_deleted(finished: tuple[IntegrateConfig, dict]) -> None:
    config, scores = finished
    before = (config.output_dir / "metrics.jsonl").read_bytes()
    predictions = (config.output_dir / "predictions.csv").read_bytes()
    for name in (*FILES, "predictions.csv"):
        (config.output_dir / name).unlink()  # as Snakemake does before a job
    run(config)
    assert score(greedy(config.output_dir)) == scores
    assert {name for name in FILES if (config.output_dir / name).is_file()} == set(FILES)
    assert (config.output_dir / "metrics.jsonl").read_bytes() == before
    assert (config.output_dir / "predictions.csv").read_bytes() == predictions


def timeless(records: list[dict]) -> list[dict]:
    """Without what a clock says."""
    clocked = ("train/clips_per_s", "train/data_wait_share")
    return [{name: value for name, value in record.items() if name not in clocked} for record in records]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "last.pt")["model"]


def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(
    tiny_config: Build, tmp_path: Path, stopped_at: StoppedAt
) -> None:
    settings = {"data": {"subset_size": 8}, "train": {"epochs": 3, "log_every_steps": 2}}
    whole = tiny_config(output_dir=tmp_path / "whole", **settings)
    run(whole)
    broken = tiny_config(output_dir=tmp_path / "broken", **settings)
    with stopped_at(3) as left:  # in the second epoch
        run(broken)
    assert left.value.code == 75
    assert checkpoint.load(broken.output_dir / "last.pt")["state"]["step"] == 3
    run(broken.model_copy(update={"resume": "must"}))
    ours, theirs = weights(broken.output_dir), weights(whole.output_dir)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first, second = (timeless(read_metrics(config.output_dir / "metrics.jsonl")) for config in (broken, whole))
    assert first == second
    first, second = (checkpoint.load(config.output_dir / "best.pt")["model"] for config in (broken, whole))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_of_a_broken_checkpoint_the_one_before_is_used(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(output_dir=tmp_path / "run", data={"subset_size": 8}, train={"epochs": 3})
    run(config)
    expected = weights(config.output_dir)
    last = config.output_dir / "state" / "last.pt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[:1000])
    (config.output_dir / "last.pt").unlink()
    run(config)
    assert "last.pt: is truncated" in caplog.text and "the one before it" in caplog.text
    found = weights(config.output_dir)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_experiment_in_the_folder_is_refused_or_archived(tiny_config: Build, tmp_path: Path) -> None:
    settings = {"output_dir": tmp_path / "out", "train": {"epochs": 1, "max_train_steps": 1}}
    small = {"model": dict.fromkeys(("hand_left_backbone", "hand_right_backbone"), ...)}
    run(tiny_config(**settings, **small))
    other = tiny_config(**settings, **small, optim={"lr": 1e-4})
    with pytest.raises(UserError, match=r"optim\.lr is 0\.0005 there, 0\.0001 here"):
        run(other)
    run(other.model_copy(update={"on_conflict": "archive"}))
    (before,) = (tmp_path / "out" / "previous").iterdir()
    assert (before / "best.pt").is_file()
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        run(tiny_config(**{**settings, "output_dir": tmp_path / "new", "resume": "must"}, **small))


def test_scores_go_with_the_model_that_they_are_of(tiny_config: Build, tmp_path: Path) -> None:
    settings = {"output_dir": tmp_path / "out", "train": {"epochs": 1, "max_train_steps": 1}}
    small = {"model": dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"), ...)}
    run(tiny_config(**settings, **small))
    score(greedy(tmp_path / "out"))
    shown = {name: (tmp_path / "out" / name).read_bytes() for name in EVALUATION_FILES.values()}
    run(tiny_config(**settings, **small, optim={"lr": 1e-4}, on_conflict="archive"))
    assert [name for name in EVALUATION_FILES.values() if (tmp_path / "out" / name).exists()] == []
    (before,) = (tmp_path / "out" / "previous").iterdir()
    assert {name: (before / name).read_bytes() for name in EVALUATION_FILES.values()} == shown
    assert json.loads(shown["scores.json"])["checkpoint_sha256"] == sha256_file(before / "best.pt")


def test_a_checkpoint_of_another_architecture_is_refused(tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config(output_dir=tmp_path / "out", train={"epochs": 1})
    run(config)
    path = config.output_dir / "state" / "last.pt"
    content = checkpoint.load(path)
    content["model"] = {name: tensor[:1] for name, tensor in content["model"].items()}
    checkpoint.save(path, content)
    with pytest.raises(UserError, match=r"last\.pt: does not fit this model"):
        run(config)


def test_data_and_backbone_problems_come_together(tiny_config: Build, own_corpus: Path, tmp_path: Path) -> None:
    CorpusLayout(own_corpus).index("test").write_text("")
    config = tiny_config(
        root=own_corpus,
        output_dir=tmp_path / "out",
        model={"face_backbone": f"file::{tmp_path}/absent.pt", "hand_left_backbone": "nonsense"},
    )
    with pytest.raises(UserError) as error:
        run(config)
    text = "\n".join(error.value.problems)
    assert "index/test.csv: no clip" in text and "absent.pt: no such file" in text and "'nonsense': expected" in text
    assert not (tmp_path / "out" / "state").exists()


def test_a_text_that_is_too_long_is_named(tiny_config: Build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its text has \d+ tokens, expected at most 3"):
        run(tiny_config(output_dir=tmp_path / "out", decoder={"max_tokens": 3}))


def test_a_loss_that_is_not_finite_ends_the_run(
    tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from signstreams.integrate import training

    monkeypatch.setattr(training, "total_loss", lambda terms, weights, counts: terms["translation"].total * math.nan)
    with pytest.raises(UserError, match="3 losses in a row were not finite"):
        run(tiny_config(output_dir=tmp_path / "out", train={"epochs": 5}))


def test_without_glosses_the_run_says_so_and_has_no_gloss_scores(
    own_corpus: Path, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    CorpusLayout(own_corpus).gloss.unlink()
    caplog.set_level("INFO")
    run(tiny_config(root=own_corpus, output_dir=tmp_path / "out", train={"epochs": 1}))
    scores = score(greedy(tmp_path / "out"))
    assert "CTC and self-distillation are off" in caplog.text
    assert "clips cannot teach translation; some thousands do" in caplog.text
    assert "gloss" not in scores and "ctc" not in scores["losses"]
    assert not (tmp_path / "out" / "gloss_vocabulary.json").exists()


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        (["mana"] * 47, "all kept"),
        (["mana"] * 46 + ["maña"], "said"),
        (["mana"] * 18 + ["¿mana?"] + ["mana"], "said"),
        (["mana"] * 8 + ["maña", "mamá"], "refused"),
        (["maña"], "refused"),
    ],
)
def test_letters_that_a_tokenizer_loses_are_counted_before_training(
    texts: list[str], outcome: str, tiny_config: Build, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = SimpleNamespace(lost=lambda text: "".join(set(text) - set("man")))
    clips = SimpleNamespace(entries={"train": [SimpleNamespace(text=text) for text in texts]})
    said = r"its tokenizer loses (ñ|á ñ|\? ¿), in \d of \d+ texts \(\d+%\)"
    arguments = (tiny_config(), clips, tokenizer, World(0, 1, torch.device("cpu")))
    if outcome == "refused":
        with pytest.raises(UserError, match=rf"{said}, expected at most 10%; take a multilingual model"):
            _check_letters(*arguments)
    else:
        _check_letters(*arguments)
    assert bool(re.search(said, caplog.text)) == (outcome == "said")


@pytest.mark.parametrize("split", ["train", "val"])
def test_glosses_alone_need_some_to_learn_and_to_choose_by(
    own_corpus: Path, tiny_config: Build, tmp_path: Path, split: str
) -> None:
    path = CorpusLayout(own_corpus).gloss
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if not line.startswith(split)), encoding="utf-8")
    settings = {"mska": {"translation_weight": 0}, "data": {"unknown_gloss": "count"}}
    with pytest.raises(UserError, match=rf"gloss\.csv: has no glosses for the clips of {split}, expected some"):
        run(tiny_config(root=own_corpus, output_dir=tmp_path / "out", **settings))
    assert not (tmp_path / "out" / "state").exists()


def test_without_glosses_nothing_is_left_to_learn_but_the_text(
    own_corpus: Path, tiny_config: Build, tmp_path: Path
) -> None:
    CorpusLayout(own_corpus).gloss.unlink()
    with pytest.raises(UserError, match="no loss is left; annotate them, or give the translation a weight"):
        run(tiny_config(root=own_corpus, output_dir=tmp_path / "out", mska={"translation_weight": 0}))


def test_images_alone_with_a_backbone_in_training(own_corpus: Path, tiny_config: Build, tmp_path: Path) -> None:
    config = tiny_config(
        root=own_corpus,
        output_dir=tmp_path / "out",
        model={"use_mska": False, "use_pose": False, "freeze_hand_left_backbone": False, "face_backbone": ...},
        train={"epochs": 1},
    )
    run(config)
    model = weights(config.output_dir)
    start = checkpoint.load(Path(config.model.hand_left_backbone.split("::")[1].rpartition(":")[0]))["model"]
    name = "backbones.hand_l.model.patch_embed.proj.weight"
    assert not torch.equal(model[name], start["patch_embed.proj.weight"])
    assert not any(name.startswith(("mska.", "backbones.hand_r")) for name in model)
    scores = score(greedy(config.output_dir))  # also with every stream hidden, where no crop is left to encode
    assert math.isfinite(scores["baselines"]["blank_video"]["bleu_4"])


def test_greedy_ctc_merges_repeats_drops_blanks_and_stops_at_the_clips_end() -> None:
    labels = torch.tensor([[0, 2, 2, 0, 2, 1, 1, 3]])
    logits = torch.nn.functional.one_hot(labels, 4).float()
    assert ctc_greedy(logits, [8]) == [[2, 2, 1, 3]]
    assert ctc_greedy(logits, [5]) == [[2, 2]]
    assert ctc_greedy(logits, [1]) == [[]]


def test_the_script_ends_with_code_2_and_lines_for_a_user(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(project / "scripts" / "train_slt_multistream_v9.py"), "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "error: " in done.stderr and "meta.csv" in done.stderr and "Traceback" not in done.stderr
