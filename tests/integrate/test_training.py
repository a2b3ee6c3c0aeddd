"""The training loop's promises: any number of processes and passes is one joint batch, and every option matters."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from signstreams.engine import checkpoint
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.integrate import run as run_module
from signstreams.integrate.model import build_model
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.stream_backbones import load_backbones
from signstreams.integrate.text_scores import WordErrors
from signstreams.integrate.tokenizer import Tokenizer
from signstreams.integrate.training import Trainer

Build = Callable[..., IntegrateConfig]
KEYS_ONLY = {"face_backbone": ..., "hand_left_backbone": ..., "hand_right_backbone": ...}
STILL = {"scale": 0, "rotate_deg": 0, "translate": 0, "time_scale": [1, 1]}


def calm(tiny_config: Build, output_dir: Path, **changes: dict) -> IntegrateConfig:
    """Nothing is drawn that depends on how a batch is divided: no dropout."""
    settings: dict = {
        "output_dir": output_dir,
        "model": {**KEYS_ONLY, "dropout": 0, "stream_dropout": 0},
        "mska": {"dropout": 0},
        "decoder": {"dropout": 0},
        "augmentation": STILL,
        "train": {"epochs": 2, "log_every_steps": 1},
        "optim": {},
    }
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return tiny_config(**settings)


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / name)["model"]


def assert_close(ours: Path, theirs: Path) -> None:
    first, second = weights(ours), weights(theirs)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if name.endswith("in_proj_bias"):
            # a bias of the keys moves all scores of a query alike, which softmax takes out: its gradient is rounding,
            # and Adam makes steps of rounding
            keys = slice(len(tensor) // 3, 2 * len(tensor) // 3)
            tensor[keys] = second[name][keys] = 0
        torch.testing.assert_close(tensor, second[name], atol=2e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    first_log, second_log = (read_metrics(folder / "metrics.jsonl") for folder in (ours, theirs))
    for one, other in zip(first_log, second_log, strict=True):
        for key in set(one) & set(other) - {"train/clips_per_s", "train/data_wait_share"}:
            assert one[key] == pytest.approx(other[key], rel=2e-3, abs=1e-4), key


def torchrun(config: IntegrateConfig, project: Path, tmp_path: Path, script: Path | None = None, code: int = 0) -> None:
    """Two processes over gloo."""
    script = script or project / "scripts" / "train_slt_multistream_v9.py"
    settings = tmp_path / f"{config.output_dir.name}.json"
    settings.write_text(config.model_copy(update={"distributed": True}).model_dump_json(exclude_defaults=True))
    command = [sys.executable, str(project / "scripts" / "launch.py"), "--cpu-processes", "2", "--"]
    command += [str(script), "--config", str(settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr[-3000:]


@pytest.fixture(scope="module")
def joint(tiny_config: Build, tmp_path_factory: pytest.TempPathFactory) -> IntegrateConfig:
    """One process, the whole batch at once: 10 clips as 4, 4 and 2."""
    config = calm(tiny_config, tmp_path_factory.mktemp("joint") / "out", data={"batch_size": 4})
    run(config)
    return config


def test_two_processes_give_what_one_gives_with_the_joint_batch(
    joint: IntegrateConfig, tiny_config: Build, project: Path, tmp_path: Path
) -> None:
    config = calm(tiny_config, tmp_path / "two", data={"batch_size": 2})
    torchrun(config, project, tmp_path)
    assert_close(config.output_dir, joint.output_dir)


def test_two_processes_align_what_one_does_with_the_joint_batch(
    tiny_config: Build, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """Stage vlp compares the clips of all: 9 of them as 4, 4 and 1, of which the second process has none."""
    alone = calm(tiny_config, tmp_path / "one", stage="vlp", data={"batch_size": 4, "subset_size": 9})
    run(alone)
    shared = calm(tiny_config, tmp_path / "two", stage="vlp", data={"batch_size": 2, "subset_size": 9})
    settings = tmp_path / "two.json"
    settings.write_text(shared.model_copy(update={"distributed": True}).model_dump_json(exclude_defaults=True))
    run_two(tmp_path, project / "scripts" / "train_slt_multistream_v9.py", "--config", str(settings))
    assert_close(shared.output_dir, alone.output_dir)


def gradients(folder: Path) -> list[torch.Tensor]:
    """Those of a run's only step: what SGD's momentum begins with."""
    states = checkpoint.load(folder / "last.pt")["optimizer"]["state"]
    return [state["momentum_buffer"] for state in states.values()]


@pytest.mark.parametrize("reduction", ["item", "clip"])
def test_two_processes_have_the_gradients_of_the_joint_batch_whatever_losses_are_averaged_over(
    reduction: str, tiny_config: Build, project: Path, tmp_path: Path, run_two: Callable[..., None]
) -> None:
    """Three clips of other lengths: two in one process, one in the other."""
    per_clip: dict = {"mska": {"dropout": 0, "distillation_warmup_ratio": 0}, "optim": {"translation_loss": "token"}}
    if reduction == "clip":
        per_clip["mska"]["distillation"] = "batch"
        per_clip["optim"]["translation_loss"] = "sentence"
    per_clip["optim"] |= {"optimizer": "sgd", "lr": 1e-6, "weight_decay": 0, "clip_grad_norm": None}
    train = {"epochs": 1, "max_train_steps": 1}
    data = {"subset_size": 3}
    alone = calm(tiny_config, tmp_path / "one", data=data | {"batch_size": 4}, train=train, **per_clip)
    run(alone)
    shared = calm(tiny_config, tmp_path / "two", data=data | {"batch_size": 2}, train=train, **per_clip)
    settings = tmp_path / "two.json"
    settings.write_text(shared.model_copy(update={"distributed": True}).model_dump_json(exclude_defaults=True))
    run_two(tmp_path, project / "scripts" / "train_slt_multistream_v9.py", "--config", str(settings))
    ours, theirs = gradients(shared.output_dir), gradients(alone.output_dir)
    assert len(ours) == len(theirs) and sum(float(g.abs().sum()) for g in theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    if reduction == "clip":  # and these are others than the default's
        default = {**per_clip, "mska": {"dropout": 0, "distillation_warmup_ratio": 0}}
        default["optim"] = per_clip["optim"] | {"translation_loss": "token"}
        plain = calm(tiny_config, tmp_path / "plain", data=data | {"batch_size": 4}, train=train, **default)
        run(plain)
        pairs = zip(gradients(plain.output_dir), theirs, strict=True)
        assert any(not torch.allclose(one, other, rtol=0.1) for one, other in pairs)


SLOW_TO_SAVE = """
import os, signal, sys, time
from pathlib import Path
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.run import run
from signstreams.engine.training_run import TrainingRun
from signstreams.integrate.training import Trainer
config = IntegrateConfig.model_validate_json(Path(sys.argv[2]).read_text())
rank, save, step = os.environ["RANK"], TrainingRun.save_last, Trainer.train_step
def slow_save(self, stage):
    if rank == "0":
        time.sleep(3)
        save(self, stage)
        (config.output_dir / "saved").write_text(str(time.monotonic()))
def asked(self, batch):
    if rank == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    step(self, batch)
TrainingRun.save_last, Trainer.train_step = slow_save, asked
try:
    run(config)
finally:
    (config.output_dir / f"left_{rank}").write_text(str(time.monotonic()))
"""


def test_no_process_leaves_before_the_first_has_saved(tiny_config: Build, project: Path, tmp_path: Path) -> None:
    """On two nodes srun would end the step, and the saving in it, with the first process that leaves."""
    config = calm(tiny_config, tmp_path / "out", data={"batch_size": 2})
    (tmp_path / "slow.py").write_text(SLOW_TO_SAVE)
    torchrun(config, project, tmp_path, tmp_path / "slow.py", code=75)
    saved_s, *left_s = (float((tmp_path / "out" / name).read_text()) for name in ("saved", "left_0", "left_1"))
    assert min(left_s) >= saved_s


def test_passes_before_a_step_give_what_one_pass_gives_with_the_joint_batch(
    joint: IntegrateConfig, tiny_config: Build, tmp_path: Path
) -> None:
    config = calm(tiny_config, tmp_path / "passes", data={"batch_size": 1}, optim={"accumulate_steps": 4})
    run(config)
    assert_close(config.output_dir, joint.output_dir)


def saving_each_step(config: IntegrateConfig) -> IntegrateConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_steps": 1})})


def test_an_interrupted_run_of_everything_goes_on_to_the_same_bits(
    tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Average, passes, dropout and augmentation: all of it comes back."""
    settings: dict = {
        "data": {"batch_size": 2, "subset_size": 8},
        "optim": {"accumulate_steps": 2, "precision": "bf16"},
        "train": {"epochs": 3, "ema_decay": 0.9},
        "model": KEYS_ONLY,
    }
    whole = saving_each_step(tiny_config(output_dir=tmp_path / "whole", **settings))
    run(whole)
    broken = saving_each_step(tiny_config(output_dir=tmp_path / "broken", **settings))
    save = checkpoint.save

    def die_after_the_third_step(path: Path, state: dict, **options: bool) -> None:
        save(path, state, **options)
        if path.name == "last.pt" and state["state"]["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", die_after_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    run(broken)
    for name in ("last.pt", "best.pt"):
        ours, theirs = weights(broken.output_dir, name), weights(whole.output_dir, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_an_average_is_what_is_evaluated_and_kept(tiny_config: Build, tmp_path: Path) -> None:
    settings: dict = {"train": {"epochs": 2, "ema_decay": 0.99}, "model": KEYS_ONLY}
    run(tiny_config(output_dir=tmp_path / "average", **settings))
    last = checkpoint.load(tmp_path / "average" / "last.pt")
    best = weights(tmp_path / "average", "best.pt")
    name = "fusion.fuse.1.weight"
    assert not torch.equal(best[name], last["model"][name])
    assert not torch.equal(last["average"][f"average.{name}"], last["model"][name])


def test_a_run_that_gets_no_better_ends_early(
    tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings: dict = {
        "model": KEYS_ONLY,
        "optim": {"lr": 1e-12},
        "train": {"epochs": 30, "patience_evals": 2},
    }
    config = tiny_config(output_dir=tmp_path / "out", **settings)
    run(config)
    steps = [record["step"] for record in read_metrics(tmp_path / "out" / "metrics.jsonl") if "val/loss" in record]
    assert len(steps) < 10
    assert "the last 2 evaluations brought nothing better" in caplog.text
    run(config)  # it is over: nothing is trained any more
    again = [record["step"] for record in read_metrics(tmp_path / "out" / "metrics.jsonl") if "val/loss" in record]
    assert again == steps


def test_weights_of_another_run_that_fit_are_loaded(
    joint: IntegrateConfig, tiny_config: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    start = joint.output_dir / "best.pt"
    changes: dict = {"train": {"epochs": 1, "init_checkpoint": start}, "optim": {"lr": 1e-12}}
    config = calm(tiny_config, tmp_path / "warm", mska={"head_ff_dim": 12}, **changes)
    run(config)
    ours, theirs = weights(config.output_dir), weights(joint.output_dir, "best.pt")
    torch.testing.assert_close(ours["fusion.fuse.1.weight"], theirs["fusion.fuse.1.weight"])
    assert ours["mska.heads.fuse.conv_in.weight"].shape != theirs["mska.heads.fuse.conv_in.weight"].shape
    assert "tensors keep their initial weights: mska.heads." in caplog.text


def test_of_several_starts_the_last_that_has_a_weight_counts(
    joint: IntegrateConfig, tiny_config: Build, tmp_path: Path
) -> None:
    first = joint.output_dir / "best.pt"
    content = torch.load(first, weights_only=True)
    content["model"] = {"fusion.fuse.1.bias": content["model"]["fusion.fuse.1.bias"] + 1}
    second = tmp_path / "second.pt"
    torch.save(content, second)
    changes: dict = {"train": {"epochs": 1, "init_checkpoint": [first, second]}, "optim": {"lr": 1e-12}}
    config = calm(tiny_config, tmp_path / "warm", **changes)
    run(config)
    ours, theirs = weights(config.output_dir), weights(joint.output_dir, "best.pt")
    torch.testing.assert_close(ours["fusion.fuse.1.weight"], theirs["fusion.fuse.1.weight"])
    torch.testing.assert_close(ours["fusion.fuse.1.bias"], theirs["fusion.fuse.1.bias"] + 1)


@pytest.mark.parametrize("content", ["absent", "foreign", "other"])
def test_a_start_that_is_no_start_is_refused(tiny_config: Build, tmp_path: Path, content: str) -> None:
    path = tmp_path / "start.pt"
    if content == "foreign":
        path.write_bytes(b"no checkpoint")
    if content == "other":
        checkpoint.save(path, {"model": {"a": torch.zeros(3)}})
    with pytest.raises(UserError, match=r"train\.init_checkpoint: .*start\.pt"):
        run(calm(tiny_config, tmp_path / "out", train={"init_checkpoint": path}))


def test_glosses_alone_are_chosen_by_wer_and_waited_for(
    tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MSKA's own first stage. The decoder learns nothing, and says nothing."""
    evaluate, heard = run_module.evaluate, iter(range(9, 0, -1))

    def better_glosses(*args: Any, **kwargs: Any) -> Any:
        found = evaluate(*args, **kwargs)
        wrong = next(heard)
        found.word_errors = {"left": WordErrors(10, num_words=10), "fuse": WordErrors(wrong, num_words=10)}
        assert "translation" not in found.losses
        return found

    monkeypatch.setattr(run_module, "evaluate", better_glosses)
    settings: dict = {"train": {"epochs": 4, "patience_evals": 2}, "mska": {"translation_weight": 0}}
    config = tiny_config(output_dir=tmp_path / "out", model=KEYS_ONLY, **settings)
    run(config)
    best, last = (checkpoint.load(config.output_dir / name) for name in ("best.pt", "last.pt"))
    assert best["step"] == last["state"]["step"] == 12 and not last["state"]["is_over"]
    assert best["val"]["gloss_wer"] == 60.0 and best["gloss_head"] == "fuse"
    monkeypatch.undo()
    scores = score(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt", splits=["val"], blank_video=False))
    assert "lowest gloss WER" in scores["selection"] and scores["gloss"]["head"] == "fuse"


def test_a_stage_without_text_leaves_all_but_mska_alone(
    own_corpus: Path, tiny_config: Build, make_backbone: Callable[..., Path], tmp_path: Path
) -> None:
    """There is nothing else: no decoder in memory, in the optimiser or in a checkpoint, no text in validation."""
    config = tiny_config(
        root=own_corpus,
        output_dir=tmp_path / "out",
        model={
            "face_backbone": ...,
            "hand_right_backbone": ...,
            "hand_left_backbone": f"file::{make_backbone(tmp_path / 'left.pt')}",
            "freeze_hand_left_backbone": False,
        },
        mska={"translation_weight": 0},
        data={"unknown_gloss": "count"},
        optim={"weight_decay": 1.0, "lr": 1e-2},
        train={"epochs": 4},
    )
    run(config)
    backbones = load_backbones(config)
    tokenizer = Tokenizer.load(config.output_dir / "tokenizer.json")
    glosses = json.loads((config.output_dir / "gloss_vocabulary.json").read_text(encoding="utf-8"))["glosses"]
    start = build_model(config, backbones, tokenizer, num_glosses=len(glosses)).state_dict()
    last = checkpoint.load(config.output_dir / "last.pt")
    assert last["model"].keys() == start.keys() and all(name.startswith("mska.") for name in start)
    assert any(not torch.equal(tensor, start[name]) for name, tensor in last["model"].items())
    assert last["decoder"] is None
    held = [moment.numel() for state in last["optimizer"]["state"].values() for moment in state.values()]
    assert sum(held) < 2.1 * sum(start[name].numel() for name in start if name.startswith("mska."))
    records = read_metrics(config.output_dir / "metrics.jsonl")
    assert not [key for record in records for key in record if "translation" in key or "bleu" in key]
    scores = score(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt", splits=["val"]))
    assert not {"baselines", "bleu_4", "few_clips"} & scores.keys() and "wer" in scores["gloss"]
    rows = list(csv.DictReader((config.output_dir / "predictions.csv").open(encoding="utf-8")))
    assert [row["hypothesis"] for row in rows] == [""] and rows[0]["reference"]
    page = (config.output_dir / "translations.html").read_text(encoding="utf-8")
    assert "By gloss WER" in page and "BLEU-4" not in page


def test_a_stage_without_text_of_an_earlier_version_is_scored_and_goes_on(
    own_corpus: Path, tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had a decoder and a fusion encoder that nothing trained."""
    config = tiny_config(root=own_corpus, output_dir=tmp_path / "out", model=KEYS_ONLY, stage="s2g")
    step = Trainer.train_step

    def stopped(self: Trainer, batch: Any) -> None:
        if self.step == 2:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    tokenizer = Tokenizer.load(config.output_dir / "tokenizer.json")
    whole = build_model(tiny_config(model=KEYS_ONLY), load_backbones(config), tokenizer, num_glosses=None)
    untrained = {name: value for name, value in whole.state_dict().items() if not name.startswith("mska.")}
    for name in ("state/last.pt", "best.pt"):
        content = checkpoint.load(config.output_dir / name)
        content["model"] |= untrained
        content["decoder"] = whole.decoder.net.config.to_json_string(use_diff=False)
        checkpoint.save(config.output_dir / name, content)
    assert "wer" in score(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt", splits=["val"]))["gloss"]
    run(config)
    assert all(name.startswith("mska.") for name in weights(config.output_dir))


def test_only_the_last_blocks_are_trained_where_that_is_asked(
    own_corpus: Path, tiny_config: Build, make_backbone: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_backbone(tmp_path / "deep.pt", depth=3)
    settings: dict = {
        "root": own_corpus,
        "train": {"epochs": 1, "max_train_steps": 1},
        "model": {
            "face_backbone": ...,
            "hand_right_backbone": ...,
            "hand_left_backbone": f"file::{path}",
            "freeze_hand_left_backbone": False,
        },
    }
    settings["model"]["trainable_blocks"] = 1
    run(tiny_config(output_dir=tmp_path / "out", **settings))
    start, after = checkpoint.load(path)["model"], weights(tmp_path / "out")
    changed = {
        name for name, tensor in start.items() if not torch.equal(tensor, after[f"backbones.hand_l.model.{name}"])
    }
    assert changed and all(name.startswith(("blocks.2.", "norm.")) for name in changed)
    settings["model"]["trainable_blocks"] = 4
    with pytest.raises(UserError, match=r"model\.trainable_blocks: the backbone has 3 blocks, expected at least 4"):
        run(tiny_config(output_dir=tmp_path / "more", **settings))


def test_bf16_stays_close_to_fp32_and_differs(joint: IntegrateConfig, tiny_config: Build, tmp_path: Path) -> None:
    config = calm(tiny_config, tmp_path / "bf16", data={"batch_size": 4}, optim={"precision": "bf16"})
    run(config)
    ours, theirs = (read_metrics(c.output_dir / "metrics.jsonl") for c in (config, joint))
    for key in ("train/loss_translation", "train/loss_ctc"):
        assert ours[0][key] == pytest.approx(theirs[0][key], rel=0.03)
        assert ours[0][key] != theirs[0][key]


def test_metrics_say_how_fast_it_goes_and_how_long_it_waits(joint: IntegrateConfig) -> None:
    records = [r for r in read_metrics(joint.output_dir / "metrics.jsonl") if "train/loss" in r]
    assert all(record["train/clips_per_s"] > 0 and 0 <= record["train/data_wait_share"] <= 1 for record in records)


def test_checkpointed_activations_change_memory_not_results(
    own_corpus: Path, tiny_config: Build, tmp_path: Path
) -> None:
    settings: dict = {
        "root": own_corpus,
        "model": {"face_backbone": ..., "hand_right_backbone": ..., "freeze_hand_left_backbone": False},
        "train": {"epochs": 1, "max_train_steps": 1},
    }
    folders = []
    for again in (False, True):
        config = tiny_config(output_dir=tmp_path / str(again), optim={"checkpoint_activations": again}, **settings)
        run(config)
        folders.append(config.output_dir)
    first, second = map(weights, folders)
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"trainable_blocks": 1}}, "trainable_blocks has no effect"),
        (
            {"optim": {"checkpoint_activations": True}, "model": {"use_mska": False}},
            "checkpoint_activations has no effect",
        ),
    ],
)
def test_an_option_without_effect_is_refused(tiny_config: Build, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_a_run_whose_every_evaluation_is_astray_says_so(
    tiny_config: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(output_dir=tmp_path / "out", train={"epochs": 1}, model=KEYS_ONLY)
    evaluate = run_module.evaluate

    def astray(*args: Any, **kwargs: Any) -> Any:
        found = evaluate(*args, **kwargs)
        found.losses["translation"] = math.nan
        return found

    monkeypatch.setattr(run_module, "evaluate", astray)
    with pytest.raises(UserError, match=r"no evaluation had a finite loss.*lower optim\.lr"):
        run(config)
    assert not (config.output_dir / "best.pt").exists()


def test_the_wait_for_data_is_part_of_a_step_and_counted() -> None:
    notes: list[tuple[str, float, int]] = []
    stage = SimpleNamespace(step=0, total_steps=1, is_over=False)
    stage._read = lambda step: time.sleep(0.2) or [None]
    stage._note = lambda *note: notes.append(note)
    with contextlib.closing(Trainer.batches(stage)) as batches:  # type: ignore[arg-type]
        assert next(batches) == [None]
    assert [name for name, _, _ in notes] == ["step_s", "wait_s"]
    assert all(waited_s > 0.1 for _, waited_s, _ in notes)
