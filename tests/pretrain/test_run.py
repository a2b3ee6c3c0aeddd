"""Whole runs: artifacts, going on after SIGKILL bit for bit, refusals, two processes against one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.engine.metrics import read_metrics
from signstreams.engine.training_run import TrainingRun
from signstreams.errors import UserError
from signstreams.pretrain.health import CollapseWatch
from signstreams.pretrain.run import Pretraining, pretrain
from signstreams.pretrain.settings import PretrainConfig

Make = Callable[..., PretrainConfig]
StoppedAt = Callable[..., AbstractContextManager[Any]]
STREAM = "hand_r"
ARTIFACTS = [
    "README.md",
    "artifacts.json",
    "backbone.pt",
    "backbone.safetensors",
    "checkpoint_best.pt",
    "checkpoint_last.pt",
    "curves.png",
    "metrics.jsonl",
    "params.json",
]


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def test_a_run_leaves_its_artifacts_and_nothing_else(make: Make, tmp_path: Path) -> None:
    config = make(output_dir=str(tmp_path / "mis pruebas 'ñ'"), experiment={"notes": "sin más", "tags": ["a"]})
    target = pretrain(config, STREAM)
    folder = config.output_dir
    assert _visible(folder) == ARTIFACTS
    assert target == folder / "backbone.pt"
    params = json.loads((folder / "params.json").read_text())
    assert params["config"]["experiment"]["notes"] == "sin más"
    assert params["chosen"]["total_steps"] == 10
    assert (params["data"]["train_crops"], params["data"]["probe_crops"]) == (42, 6)
    listed = json.loads((folder / "artifacts.json").read_text())
    assert {entry["file"] for entry in listed.values()} == set(ARTIFACTS) - {"artifacts.json"}
    records = read_metrics(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10]
    assert {"train/loss", "teacher/entropy_sample", "schedule/lr", "time/data_s"} <= set(records[0])
    assert "probe/assignment_information" in records[-1]
    backbone = load_dinov2_backbone(f"file::{target}:vit_tiny")
    assert backbone.image_px == 16
    assert backbone.metadata["stream"] == STREAM
    assert backbone.metadata["chirality"] == "one side, never flipped"
    with torch.no_grad():
        assert backbone(torch.randn(2, 3, 16, 16)).shape == (2, 192)


def test_a_finished_run_is_exported_again_without_training(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    target = pretrain(config, STREAM)
    weights, history = target.read_bytes(), (config.output_dir / "metrics.jsonl").read_bytes()
    for name in ARTIFACTS:
        (config.output_dir / name).unlink()  # as Snakemake does before it runs the job again

    def no_training(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Pretraining, "train_step", no_training)
    pretrain(config, STREAM)
    assert _visible(config.output_dir) == ARTIFACTS
    assert target.read_bytes() == weights
    assert (config.output_dir / "metrics.jsonl").read_bytes() == history


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_run_stopped_by_a_signal_goes_on_bit_for_bit(
    number: int, make: Make, tmp_path: Path, stopped_at: StoppedAt
) -> None:
    changes = {"model": {"drop_path_prob": 0.2, "depth": 2}, "koleo": {"weight": 0.1}}
    straight = pretrain(make(output_dir=str(tmp_path / "straight"), **changes), STREAM)
    config = make(output_dir=str(tmp_path / "stopped"), **changes)
    with stopped_at(5, number) as left:
        pretrain(config, STREAM)
    assert left.value.code == 75
    assert not (config.output_dir / "backbone.pt").exists()
    assert pretrain(config, STREAM).read_bytes() == straight.read_bytes()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("straight", "stopped"))
    for a, b in zip(ours, theirs, strict=True):
        assert {k: v for k, v in a.items() if "time/" not in k} == {k: v for k, v in b.items() if "time/" not in k}


def test_a_run_goes_on_from_a_given_checkpoint_in_another_folder(make: Make, tmp_path: Path) -> None:
    straight = pretrain(make(), STREAM)
    middle = make(output_dir=str(tmp_path / "middle"), resume=str(straight.parent / "checkpoint_best.pt"))
    assert pretrain(middle, STREAM).read_bytes() == straight.read_bytes()
    ended = make(output_dir=str(tmp_path / "ended"), resume=str(straight.parent / "checkpoint_last.pt"))
    assert pretrain(ended, STREAM).read_bytes() == straight.read_bytes()
    assert _visible(ended.output_dir) == ARTIFACTS
    with pytest.raises(UserError, match="no training state; give a checkpoint_last"):
        pretrain(make(output_dir=str(tmp_path / "x"), resume=str(straight)), STREAM)
    with pytest.raises(UserError, match="no such file"):
        pretrain(make(output_dir=str(tmp_path / "x"), resume="absent.pt"), STREAM)
    with pytest.raises(UserError, match="seed is 0 there, 1 here"):
        pretrain(
            make(output_dir=str(tmp_path / "x"), seed=1, resume=str(straight.parent / "checkpoint_last.pt")), STREAM
        )


def test_another_config_is_refused_or_archived(make: Make) -> None:
    first = pretrain(make(), STREAM)
    weights = first.read_bytes()
    with pytest.raises(UserError, match=r"optim\.learning_rate is 0\.0005 there, 0\.001 here"):
        pretrain(make(optim={"learning_rate": 1e-3}), STREAM)
    assert first.read_bytes() == weights
    pretrain(make(optim={"learning_rate": 1e-3}, on_conflict="archive"), STREAM)
    (archive,) = (first.parent / "previous").iterdir()
    assert (archive / "backbone.pt").read_bytes() == weights
    assert first.read_bytes() != weights


def test_a_short_run_that_ends_flat_says_so_in_its_last_line_and_its_card(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(dino={"standardize_head": False})
    with caplog.at_level("INFO"):
        pretrain(config, STREAM)
    assert "learned next to nothing by step 10" in caplog.records[-1].getMessage()
    assert "learned next to nothing by step 10" in (config.output_dir / "README.md").read_text()


def test_the_length_is_told_in_views_before_the_start_and_in_hours_after_the_first_steps(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        pretrain(make(epochs=None, budget={"views": 80}), STREAM)
    assert "10 steps of 8 crops: 80 views, 1.9 passes over 42 crops" in caplog.text
    assert caplog.text.count("s per step: about") == 1 and "h for the 6 steps left" in caplog.text


def test_the_card_gives_the_blur_in_pixels_of_each_view(make: Make) -> None:
    """A deviation from DINO, whose sigma is the same for views of any size."""
    config = make(augmentation={"global_px": 16, "local_px": 8, "num_local": 2})
    pretrain(config, STREAM)
    card = (config.output_dir / "README.md").read_text()
    assert "| `blur` | sigma 0.0071 to 0.14 px of 16 px with p 1 and 0.1; sigma 0.0036 to 0.071 px of 8 px" in card


def test_turned_blurred_and_recompressed_views_train_on_either_device_path_and_the_card_says_so(make: Make) -> None:
    moved = {"turn_deg": 20.0, "motion_blur_prob": 0.2, "recompress_prob": 0.3}
    cards = []
    for folder, changes in (("plain", {}), ("loader", moved), ("device", {**moved, "on_device": True})):
        config = make(augmentation={"global_px": 16, "local_px": 8, "num_local": 2, **changes})
        config = config.model_copy(update={"output_dir": config.output_dir / folder})
        pretrain(config, STREAM)
        cards.append((config.output_dir / "README.md").read_text())
    rows = (
        "| `turns` | up to 20 degrees to either side |",
        "| `motion_blur` | 4 to 24 px of 224 px with p 0.2 |",
        "| `recompression` | JPEG of quality 20 to 70 with p 0.3 |",
    )
    assert not any(row in cards[0] for row in rows)
    assert all(row in card for card in cards[1:] for row in rows)


def test_loader_names_and_logging_are_no_other_experiment(make: Make) -> None:
    pretrain(make(), STREAM)
    pretrain(
        make(dataset={"persistent_workers": False}, experiment={"name": "b"}, monitor={"log_every_steps": 5}), STREAM
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"augmentation": {"local_px": 9}}, "local_px = 9: does not divide into patches of 8 px; next is 8"),
        ({"model": {"arch": "vit_huge"}}, "architecture 'vit_huge' is unknown"),
        ({"dataset": {"batch_size": 64}}, "42 crops do not fill a batch of 64"),
        ({"train_dir": ["/no/such/folder"]}, "no such folder"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(make: Make, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        pretrain(make(**changes), STREAM)
    assert len(caught.value.problems) == 1


def test_three_losses_in_a_row_that_are_not_finite_end_the_run(make: Make) -> None:
    config = make(optim={"learning_rate": 1e38, "learning_rate_scaling": "none", "warmup_ratio": 0.0}, epochs=6)
    with pytest.raises(UserError, match=r"losses in a row were not finite.*--learning-rate"):
        pretrain(config, STREAM)


def test_collapse_ends_the_run_with_a_diagnosis(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CollapseWatch, "judge", lambda self, record, step: "collapsed by step 2: ...")
    with pytest.raises(UserError, match="collapsed by step 2"):
        pretrain(make(), STREAM)
    pretrain(make(output_dir=str(make().output_dir) + "2", monitor={"stop_on_collapse": False}), STREAM)


def test_of_a_broken_checkpoint_the_one_before_is_used(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = make(checkpointing={"every_steps": 3})
    backbone = pretrain(config, STREAM)
    expected = backbone.read_bytes()
    history = read_metrics(config.output_dir / "metrics.jsonl")
    last = config.output_dir / "state" / "checkpoint_last.pt"
    whole = last.read_bytes()
    last.unlink()  # its second name, which is published, stays whole
    last.write_bytes(whole[: len(whole) // 2])
    backbone.unlink()
    pretrain(config, STREAM)
    assert "checkpoint_last.pt: is truncated" in caplog.text and "the one before it" in caplog.text
    assert backbone.read_bytes() == expected
    assert last.samefile(config.output_dir / "checkpoint_last.pt")
    again = read_metrics(config.output_dir / "metrics.jsonl")
    assert [record["train/loss"] for record in again] == [record["train/loss"] for record in history]


def test_a_broken_checkpoint_is_named_when_the_one_before_is_broken_too(make: Make) -> None:
    config = make()
    pretrain(config, STREAM)
    for name in ("checkpoint_last.pt", "checkpoint_last.pt.previous"):
        (config.output_dir / "state" / name).unlink(missing_ok=True)
        (config.output_dir / "state" / name).write_bytes(b"PK")
    with pytest.raises(UserError, match=r"checkpoint_last\.pt: is .*--resume never --on-conflict archive"):
        pretrain(config, STREAM)


def test_the_best_can_be_exported_elsewhere(make: Make, tmp_path: Path) -> None:
    config = make(export_backbone=str(tmp_path / "otro" / "b.pt"), checkpointing={"export": "best"})
    assert pretrain(config, STREAM) == tmp_path / "otro" / "b.pt"
    best = torch.load(config.output_dir / "checkpoint_best.pt", weights_only=True)
    exported = torch.load(tmp_path / "otro" / "b.pt", weights_only=True)
    assert exported["metadata"]["step"] == best["trainer"]["step"]
    assert torch.equal(exported["model"]["norm.weight"], best["trainer"]["teacher"]["backbone.norm.weight"])
    assert "backbone.pt" not in _visible(config.output_dir)


def _arguments(project: Path, config: PretrainConfig) -> list[str]:
    """Command line of a run, by the config printed and read back."""
    path = config.output_dir.parent / f"{config.output_dir.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config.model_dump_json(exclude_none=True, exclude_defaults=True))
    return [str(project / "scripts" / "pretrain_dino_hands.py"), "--config", str(path)]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(make: Make, project: Path, tmp_path: Path) -> None:
    """SIGKILL, at a random moment after the first checkpoint, then the same command again."""
    length = {"epochs": 8, "checkpointing": {"every_steps": 3}}
    straight = pretrain(make(output_dir=str(tmp_path / "straight"), **length), STREAM)
    config = make(output_dir=str(tmp_path / "killed"), **length)
    command = [sys.executable, *_arguments(project, config)]
    run = subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL)
    checkpoint = config.output_dir / "state" / "checkpoint_last.pt"
    waited_until = time.monotonic() + 120
    while not checkpoint.exists():
        assert run.poll() is None
        assert time.monotonic() < waited_until
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.6))
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (config.output_dir / "artifacts.json").exists()
    (config.output_dir / "metrics.jsonl").unlink()  # Snakemake deletes what the rule declares
    subprocess.run(command, env=_environment(), check=True, timeout=120, capture_output=True)
    assert (config.output_dir / "backbone.pt").read_bytes() == straight.read_bytes()
    steps = [record["step"] for record in read_metrics(config.output_dir / "metrics.jsonl")]
    assert steps == list(range(2, 41, 2))


@pytest.mark.parametrize(
    "changes",
    [{}, {"sinkhorn": {"use": True}}, {"dino": {"batch_norm": None}, "sinkhorn": {"use": None}}],
    ids=["centre", "sinkhorn", "small corpus"],
)
def test_two_processes_equal_one_with_the_joint_batch(
    make: Make, project: Path, tmp_path: Path, changes: dict[str, Any], run_two: Callable[..., None]
) -> None:
    one = make(output_dir=str(tmp_path / "one"), epochs=1, **changes)
    pretrain(one, STREAM)
    two = make(output_dir=str(tmp_path / "two"), epochs=1, distributed=True, dataset={"batch_size": 4}, **changes)
    run_two(tmp_path, *_arguments(project, two))
    states = [
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["trainer"] for name in ("one", "two")
    ]
    torch.testing.assert_close(states[0]["centre"]["value"], states[1]["centre"]["value"], rtol=1e-4, atol=1e-6)
    for a, b in zip(*(state["optimizer"]["state"].values() for state in states), strict=True):
        # batch norm takes off what the last norm's bias adds: its gradient is 0, and rounding here
        scale = max(1e-6, float(a["exp_avg"].abs().max()))
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=1e-3, atol=1e-3 * scale)  # the gradients
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for a, b in zip(ours, theirs, strict=True):
        for key in ("train/loss", "train/grad_norm", "teacher/entropy_sample", "teacher/entropy_batch"):
            assert a[key] == pytest.approx(b[key], rel=1e-3), key


def test_the_wrong_script_folder_or_flip_is_refused_before_torch_is_loaded(
    crops_dir: Path, project: Path, tmp_path: Path
) -> None:
    cases = {
        ("pretrain_dino_face.py", str(crops_dir)): "use scripts/pretrain_dino_hands.py",
        ("pretrain_dino_hands.py", str(crops_dir), "--augmentation-flip-prob", "0.5"): "is the other hand",
        ("pretrain_dino_hands.py", str(tmp_path)): "add --stream",
        ("pretrain_dino_hands.py", str(crops_dir), "--ibot-patch-weight", "2"): "no effect: algorithm is 'dino'",
        ("pretrain_dino_hands.py", str(crops_dir), "--batchsize", "3"): "did you mean '--batch-size'",
    }
    for (script, folder, *flags), expected in cases.items():
        started = [sys.executable, "-X", "importtime", str(project / "scripts" / script)]
        command = [*started, "--train-dir", folder, "--output-dir", str(tmp_path / "out"), *flags]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert answer.returncode == 2, answer.stderr[-500:]
        errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert expected in errors[0]
        assert not any(line.rstrip().endswith("| torch") for line in answer.stderr.splitlines())
    assert not (tmp_path / "out").exists()


def test_an_interrupted_claim_leaves_the_folder_free(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    config = make()
    monkeypatch.setattr(TrainingRun, "write_params", full_disk)
    with pytest.raises(OSError, match="no space left"):
        pretrain(config, STREAM)
    monkeypatch.undo()
    assert pretrain(config, STREAM).exists()


def test_a_folder_that_cannot_be_written_to_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to|is a file"):
        pretrain(make(output_dir=str(tmp_path / "file" / "run")), STREAM)
