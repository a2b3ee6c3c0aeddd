"""Training, embedding and evaluation on a pretended GPU: tensors in their places, and the CPU hardly ever waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from signstreams.engine.metrics import read_metrics
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import DecodingConfig, EvaluateSltConfig, IntegrateConfig

Build = Callable[..., IntegrateConfig]

RECIPES: dict[str, dict[str, Any]] = {
    "frozen": {"train": {"ema_decay": 0.9}},
    "trained": {
        "model": {"freeze_face_backbone": False, "freeze_hand_left_backbone": False},
        "optim": {"accumulate_steps": 2, "checkpoint_activations": True},
    },
    "bf16": {
        "optim": {"precision": "bf16"},
        "mska": {"gloss_fusion": "concat"},
        "model": {"stream_dropout": 0.2},
        "data": {"blank_video": True},
    },
    "images": {"model": {"use_mska": False, "use_pose": False, "freeze_face_backbone": False}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_on_cuda_is_the_run_on_the_cpu(
    name: str, tiny_config: Build, tmp_path: Path, pretend_cuda: Callable[[], AbstractContextManager[Any]]
) -> None:
    recipe = RECIPES[name]
    changes = {"decoder": {"max_tokens": 12}, **recipe, "train": {**recipe.get("train", {}), "epochs": 1}}
    configs = {d: tiny_config(output_dir=tmp_path / d, device=d, **changes) for d in ("cpu", "cuda")}
    results = {}
    for device, config in configs.items():
        scoring = EvaluateSltConfig(
            checkpoint=config.output_dir / "best.pt", device=device, decoding=DecodingConfig(num_beams=2)
        )
        if device == "cpu":
            run(config)
            scores = score(scoring)
        else:
            with pretend_cuda() as gpu:
                run(config)
                trained = dict(gpu.waits)
                assert torch.get_float32_matmul_precision() == "high"
                scores = score(scoring)
        records = read_metrics(config.output_dir / "metrics.jsonl")
        losses = [{k: v for k, v in record.items() if "loss" in k} for record in records]
        results[device] = losses, scores["losses"]["total"]
    assert len(results["cpu"][0]) >= 2
    for ours, theirs in zip(*(losses for losses, _ in results.values()), strict=True):
        # attention in bfloat16 is another one on a CPU
        assert ours == pytest.approx(theirs, rel=1e-2 if name == "bf16" else 1e-6)
    assert results["cuda"][1] == pytest.approx(results["cpu"][1], rel=1e-2 if name == "bf16" else 1e-6)
    steps = read_metrics(configs["cuda"].output_dir / "metrics.jsonl")[-1]["step"]
    assert trained.pop("training.py:train_step tolist") == steps  # one look a step, at loss and norms together
    # transformers checks whether a mask may be left out; the others wait once per run, video or evaluation
    rest = ("decoder.py", "features.py", "run.py", "evaluate.py:evaluate", "ctc_decoding.py", "checkpoint.py")
    assert [place for place in trained if not place.startswith(rest)] == []


def test_two_gpus_give_what_one_gives_with_the_joint_batch(
    tiny_config: Build,
    tmp_path: Path,
    project: Path,
    pretend_cuda: Callable[[], AbstractContextManager[Any]],
    run_two: Callable[..., None],
) -> None:
    calm = {
        "device": "cuda",
        "model": {"dropout": 0.0, "freeze_face_backbone": False},
        "mska": {"dropout": 0.0},
        "decoder": {"dropout": 0.0, "max_tokens": 12},
        "train": {"epochs": 1},
        "augmentation": {"scale": 0, "rotate_deg": 0, "translate": 0, "time_scale": [1, 1]},
    }
    one = tiny_config(output_dir=tmp_path / "one", data={"batch_size": 4}, **calm)
    two = tiny_config(output_dir=tmp_path / "two", data={"batch_size": 2}, distributed=True, **calm)
    with pretend_cuda():
        run(one)
    settings = tmp_path / "two.json"
    settings.write_text(two.model_dump_json(exclude_defaults=True))
    script = str(project / "scripts" / "train_slt_multistream_v9.py")
    run_two(tmp_path, project / "tests" / "pretend_cuda.py", script, "--config", str(settings))
    ours, theirs = (read_metrics(config.output_dir / "metrics.jsonl")[-1] for config in (two, one))
    losses = [key for key in theirs if "loss" in key]
    assert "val/loss_ctc" in losses
    assert {key: ours[key] for key in losses} == pytest.approx({key: theirs[key] for key in losses}, rel=1e-3)
