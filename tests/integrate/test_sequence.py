"""Sequence pretraining on a tiny corpus, and a training that starts from its encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.formats.layout import SEQUENCE_FILES, CorpusLayout
from signstreams.integrate.run import run
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.training import Trainer
from signstreams.sequence.run import pretrain_sequence
from signstreams.sequence.settings import SequenceConfig
from signstreams.sequence.windows import load_windows

Build = Callable[..., IntegrateConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
MODEL = {"projection_dim": 16, "d_model": 32, "num_layers": 1, "ff_dim": 32}
MSKA = {"channels": [8, 12, 16], "num_heads": 2}


@pytest.fixture(scope="module")
def corpus(make_corpus: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of which one clip of train has a text: videos that no text names are footage too."""
    root = make_corpus(
        tmp_path_factory.mktemp("footage") / "corpus",
        sizes={"train": 8, "val": 2, "test": 2},
        signs=(10, 12),
        frames_each=8,  # two steps: what is hidden is seen in other streams rather than next to it
    )
    layout = CorpusLayout(root)
    rows = layout.meta.read_text(encoding="utf-8").splitlines()
    of_train = [row for row in rows if row.startswith("train")]
    silent = [row.partition(";")[0] + ";" for row in of_train[1:4]]  # no text
    kept = [rows[0], of_train[0], *silent, *(row for row in rows[1:] if not row.startswith("train"))]
    layout.meta.write_text("\n".join(kept) + "\n", encoding="utf-8")  # the other videos are not even named
    layout.index("train").write_text("train ñ0\ntrain ñ1\n", encoding="utf-8")
    gloss = layout.gloss.read_text(encoding="utf-8").splitlines()
    named = {row.partition(";")[0] for row in kept}
    layout.gloss.write_text("\n".join([gloss[0], *(g for g in gloss[1:] if g.partition(";")[0] in named)]) + "\n")
    return root


@pytest.fixture(scope="module")
def sequence_config(
    corpus: Path, backbone_specs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., SequenceConfig]:
    """Builds a config whose features are computed once; ``section={...}`` changes keys of a section."""
    features = tmp_path_factory.mktemp("features")

    def build(**changes: object) -> SequenceConfig:
        tree: dict[str, object] = {
            "root": corpus,
            "features_dir": features,
            "data": {"frame_stride": 1, "window_frames": 48, "batch_size": 8},
            "model": MODEL | backbone_specs,
            "mska": MSKA,
            "train": {"epochs": 3, "log_every_steps": 2},
        }
        for key, value in changes.items():
            old = tree.get(key)
            tree[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        return SequenceConfig.model_validate(tree)

    return build


@pytest.fixture(scope="module")
def finished(
    sequence_config: Callable[..., SequenceConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SequenceConfig, dict[str, float]]:
    config = sequence_config(
        output_dir=tmp_path_factory.mktemp("run") / "sequence", train={"epochs": 16}, optim={"lr": 3e-3}
    )
    return config, pretrain_sequence(config)


def test_windows_are_of_every_video_but_those_of_test_with_a_text_or_without(
    sequence_config: Callable[..., SequenceConfig],
) -> None:
    config = sequence_config()
    windows = load_windows(config, config.as_training())
    of = {split: {entry.video.video_id for entry in entries} for split, entries in windows.entries.items()}
    assert of == {"train": {f"train ñ{number}" for number in range(8)}, "val": {"val ñ0", "val ñ1"}}


def test_a_corpus_without_texts_and_splits_holds_some_videos_out(
    sequence_config: Callable[..., SequenceConfig], corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "processed").symlink_to(corpus / "processed")
    config = sequence_config(root=tmp_path / "corpus")
    windows = load_windows(config, config.as_training())
    of = {split: {entry.video.video_id for entry in entries} for split, entries in windows.entries.items()}
    assert len(of["train"] | of["val"]) == 12 and len(of["val"]) == 1 and not of["train"] & of["val"]
    with pytest.raises(UserError, match=r"holds no extracted video"):
        pretrain_sequence(sequence_config(root=tmp_path / "nowhere", output_dir=tmp_path / "out"))


def test_hidden_steps_are_predicted_better_than_by_guessing(
    finished: tuple[SequenceConfig, dict[str, float]],
) -> None:
    config, scores = finished
    assert scores["accuracy"] > max(scores["majority"], scores["repeat"]) + 0.1, scores
    assert {"loss_face", "accuracy_hand_l", "repeat_hand_r", "majority_pose"} <= set(scores)
    lines = [line for line in read_metrics(config.output_dir / "metrics.jsonl") if "val/loss" in line]
    best = checkpoint.load(config.output_dir / "best.pt")
    chosen = min(lines, key=lambda line: line["val/loss"])
    assert (best["step"], best["val"]["loss"]) == (chosen["step"], chosen["val/loss"])
    assert {name for name in SEQUENCE_FILES.values() if not (config.output_dir / name).is_file()} == set()
    assert {"best", "clusters", "metrics"} <= set(json.loads((config.output_dir / "artifacts.json").read_text()))


def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(
    sequence_config: Callable[..., SequenceConfig], tmp_path: Path, stopped_at: StoppedAt
) -> None:
    whole, broken = (sequence_config(output_dir=tmp_path / name) for name in ("whole", "broken"))
    pretrain_sequence(whole)
    with stopped_at(4) as left:
        pretrain_sequence(broken)
    assert left.value.code == 75
    pretrain_sequence(broken.model_copy(update={"resume": "must"}))
    for name in ("last.pt", "best.pt"):
        ours, theirs = (checkpoint.load(config.output_dir / name)["model"] for config in (broken, whole))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    logs = [read_metrics(config.output_dir / "metrics.jsonl") for config in (broken, whole)]
    first, second = ([{k: v for k, v in r.items() if k != "train/windows_per_s"} for r in log] for log in logs)
    assert first == second
    with pytest.raises(UserError, match=r"another experiment: prediction\.mask_ratio is 0\.5 there, 0\.3 here"):
        pretrain_sequence(sequence_config(output_dir=whole.output_dir, prediction={"mask_ratio": 0.3}))


# -- A training that starts from it


def training(
    tiny_config: Build, finished: tuple[SequenceConfig, dict], output: Path, **changes: object
) -> IntegrateConfig:
    config, _ = finished
    tree: dict[str, object] = {
        "root": config.root,
        "features_dir": config.features_dir,
        "output_dir": output,
        "data": {"frame_stride": 1, "unknown_gloss": "count"},
        "decoder": {"max_tokens": 200},
        "train": {"epochs": 1, "sequence_checkpoint": config.output_dir / "best.pt"},
    }
    return tiny_config(
        **{k: {**tree.get(k, {}), **v} if isinstance(v, dict) else v for k, v in (tree | changes).items()}
    )


def first_weights(config: IntegrateConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights of a training before its first step."""
    seen: dict[str, torch.Tensor] = {}
    train_step = Trainer.train_step

    def keep(self: Trainer, batch: list) -> None:
        if self.step == 0:
            seen.update({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        train_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", keep)
        run(config)
    return seen


def test_a_training_starts_from_the_whole_encoder_and_from_its_own_weights_elsewhere(
    tiny_config: Build,
    finished: tuple[SequenceConfig, dict],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="signstreams")
    pretrained = checkpoint.load(finished[0].output_dir / "best.pt")["model"]
    with_it = first_weights(training(tiny_config, finished, tmp_path / "with"), monkeypatch)
    without = training(tiny_config, finished, tmp_path / "without", train={"sequence_checkpoint": None})
    from_scratch = first_weights(without, monkeypatch)
    taken = {name for name in with_it if name.startswith(("fusion.", "mska.encoders."))}
    assert taken == {name for name in pretrained if not name.startswith("predict.")}
    assert all(torch.equal(with_it[name], pretrained[name]) for name in taken)
    rest = with_it.keys() - taken
    assert any(name.startswith("decoder.") for name in rest) and any(name.startswith("mska.heads.") for name in rest)
    assert all(torch.equal(with_it[name], from_scratch[name]) for name in rest)
    assert f"best.pt: {len(taken)} tensors of the encoder loaded" in caplog.text
    resumed = training(tiny_config, finished, tmp_path / "with", resume="must")
    run(resumed)  # the same experiment: nothing is loaded a second time
    assert caplog.text.count("tensors of the encoder loaded") == 1


def test_an_encoder_that_does_not_fit_is_one_line(
    tiny_config: Build,
    finished: tuple[SequenceConfig, dict],
    make_backbone: Callable[..., Path],
    trained: IntegrateConfig,
    tmp_path: Path,
) -> None:
    other = make_backbone(tmp_path / "other.pt", seed=9)
    cases: list[tuple[dict[str, object], str]] = [
        ({"model": {"projection_dim": 8}}, r"its encoder is another one \(fusion\..* instead of .*; pretrain it again"),
        ({"model": {"use_pose": False}}, r"its encoder is another one \(.*fusion\..*\), expected that of the sections"),
        ({"model": {"face_backbone": f"file::{other}:vit_tiny"}}, r"saw features of another face backbone \(SHA-256"),
        ({"model": {"num_heads": 1}}, r"model\.num_heads was 4, expected 1; pretrain it again with that"),
        ({"mska": {"root_relative_hands": False}}, r"mska\.root_relative_hands was True, expected False; pretrain"),
        ({"data": {"frame_stride": 2}}, r"data\.frame_stride was 1, expected 2; pretrain it again with that"),
        (
            {"train": {"sequence_checkpoint": trained.output_dir / "best.pt"}},
            r"cannot be read as one \(.*is not a sequence pretraining\); name the best\.pt of a run of signstreams",
        ),
        (
            {"train": {"sequence_checkpoint": tmp_path / "absent.pt"}},
            r"absent\.pt: No such file or directory, expected the best\.pt of a sequence pretraining; name one",
        ),
        ({"train": {"sequence_checkpoint": other}}, r"is not a sequence pretraining"),
    ]
    for number, (changes, said) in enumerate(cases):
        tree = {"train": {"sequence_checkpoint": finished[0].output_dir / "best.pt"}} | changes
        with pytest.raises(UserError, match=rf"train\.sequence_checkpoint: .*{said}") as caught:
            run(training(tiny_config, finished, tmp_path / str(number), **tree))
        assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]
    with pytest.raises(ValidationError, match="init_checkpoint and sequence_checkpoint both give the first weights"):
        training(tiny_config, finished, tmp_path, train={"init_checkpoint": other})


def test_it_is_part_of_the_experiment_by_content_and_absent_from_those_without_it(
    tiny_config: Build, finished: tuple[SequenceConfig, dict], tmp_path: Path
) -> None:
    plain = tiny_config(train={"epochs": 2})
    assert not {"sequence", "sequence_checkpoint"} & set(plain.identity({})["train"])
    config = training(tiny_config, finished, tmp_path / "run", train={"max_train_steps": 1})
    run(config)
    shutil.copy(finished[0].output_dir / "best.pt", tmp_path / "moved.pt")
    run(
        training(
            tiny_config,
            finished,
            tmp_path / "run",
            train={"max_train_steps": 1, "sequence_checkpoint": tmp_path / "moved.pt"},
        )
    )
    with pytest.raises(UserError, match=r"another experiment: train\.sequence is '.* there, absent here"):
        run(
            training(tiny_config, finished, tmp_path / "run", train={"max_train_steps": 1, "sequence_checkpoint": None})
        )


def test_points_alone_are_enough(sequence_config: Callable[..., SequenceConfig], tmp_path: Path) -> None:
    keys = dict.fromkeys(("face_backbone", "hand_left_backbone", "hand_right_backbone"))
    scores = pretrain_sequence(
        sequence_config(output_dir=tmp_path / "run", model=keys, train={"epochs": 2}, prediction={"num_clusters": 3})
    )
    assert {"accuracy_face", "accuracy_hand_l", "accuracy_pose"} <= set(scores)
    pose_alone = sequence_config(
        output_dir=tmp_path / "pose",
        model=keys | {"use_mska": False},
        mska={"channels": [64, 64, 128, 128, 256, 256, 256, 256], "num_heads": 6},
        train={"epochs": 1},
    )
    assert {name for name in pretrain_sequence(pose_alone) if name.startswith("accuracy_")} == {"accuracy_pose"}
