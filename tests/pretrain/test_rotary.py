"""Training of a network with rotary positions (DINOv3's) from its weights, to a file that timm reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from signstreams.backbones import weights as timm_weights
from signstreams.backbones.archs import ARCHS
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.engine.metrics import read_metrics
from signstreams.errors import UserError
from signstreams.pretrain.initial_weights import load_initial_weights
from signstreams.pretrain.run import architecture, pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import rate_factor

Make = Callable[..., PretrainConfig]
Pretend = Callable[[], AbstractContextManager[Any]]
NAME = "vit_small_patch16_dinov3.lvd1689m"
RECIPE: dict[str, Any] = {
    "epochs": 1,
    "algorithm": "ibot",
    "init": {"weights": f"timm::{NAME}", "head_only_steps": 2},
    "model": {"arch": "dinov3_vits16", "patch_px": None, "depth": None},
    "augmentation": {"global_px": 32, "local_px": 16, "num_local": 2},
    "optim": {"compile": False, "warmup_ratio": 0.0},
    "monitor": {"log_every_steps": 1, "probe_every_steps": 5, "probe_crops": 8, "pictures": True},
}


def network(**words: int) -> Any:
    """timm's network with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, pretrained=False, num_classes=0, **words).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                parameter.fill_(0.7)  # at 1e-5 every block would be next to nothing
    return model


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm's network with random weights, which stand in for the released ones in the cache."""
    model = network()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_weights, "cached_file", lambda _: tmp_path / "model.safetensors")
    return model


def test_a_run_goes_on_from_its_weights_to_a_file_of_the_same_kind(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend_cuda: Pretend
) -> None:
    monkeypatch.setitem(ARCHS, "dinov3_vits16", dataclasses.replace(ARCHS["dinov3_vits16"], depth=2))
    theirs = network(depth=2)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    recipe = RECIPE | {"init": {"weights": f"file::{tmp_path}/theirs.safetensors", "head_only_steps": 2}}
    config = make(**recipe)
    path = pretrain(config, "hand_r")
    found = load_dinov2_backbone(f"file::{path}:dinov3_vits16")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    words = {"pretrained_cfg_overlay": {"file": str(path)}, "global_pool": "token", "num_classes": 0, "depth": 2}
    again = timm.create_model("vit_small_patch16_dinov3_qkvb", pretrained=True, **words).eval()
    with torch.no_grad():
        began = theirs.forward_features(images)[:, 0]
        torch.testing.assert_close(again(images), found(images), rtol=0, atol=1e-4)
        moved = (found(images) - began).norm() / began.norm()
    assert 0 < moved < 0.5  # the average of a student that learned for three steps
    assert (path.parent / "attention.png").stat().st_size > 1000
    assert "vit_small_patch16_dinov3_qkvb" in (path.parent / "README.md").read_text()
    there = make(**recipe | {"device": "cuda", "output_dir": str(tmp_path / "cuda")})
    with pretend_cuda():  # one packed pass for views of both sizes
        pretrain(there, "hand_r")
    ours, packed = (read_metrics(one.output_dir / "metrics.jsonl") for one in (config, there))
    assert len(ours) == len(packed) == 5
    for record, other in zip(ours, packed, strict=True):
        for key in ("train/loss", "train/loss_patch", "teacher/entropy_batch"):
            assert record[key] == pytest.approx(other[key], rel=0.02), key


def test_student_and_teacher_start_with_the_weights(make: Make, theirs: Any) -> None:
    config = make(**RECIPE)
    weights = load_initial_weights(config, architecture(config))
    assert weights is not None and "mask_token new" in weights.report
    ours = VisionTransformer(architecture(config)).eval()
    assert ours.load_state_dict(weights.state, strict=False).missing_keys == ["mask_token"]
    images = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.forward_features(images)[:, 0], rtol=0, atol=1e-4)


def test_rates_fall_from_block_to_block() -> None:
    factors = {"depth": 12, "layer_decay": 0.9, "patch_embed_factor": 0.2}
    assert rate_factor("backbone.register_tokens", **factors) == pytest.approx(0.9**13)
    assert rate_factor("backbone.blocks.11.mlp.fc1_g.weight", **factors) == pytest.approx(0.9)


def test_weights_of_another_kind_name_the_architecture_to_give(make: Make, theirs: Any) -> None:
    config = make(init={"weights": f"timm::{NAME}"})
    with pytest.raises(UserError, match=r"rotary positions instead of a position table.*give --arch dinov3_vits16$"):
        load_initial_weights(config, architecture(config))
    other = make(init={"weights": f"timm::{NAME}"}, model={"arch": "vit_small", "patch_px": 16, "depth": 12})
    other = other.model_copy(update={"augmentation": other.augmentation.model_copy(update={"local_px": 16})})
    with pytest.raises(UserError, match=r"give --arch dinov3_vits16$"):
        load_initial_weights(other, architecture(other))


def test_rotary_positions_of_another_kind_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors of a file do not tell; timm's network does."""
    other = timm.create_model(NAME, pretrained=False, num_classes=0, depth=1, rope_temperature=10000.0)
    monkeypatch.setattr("signstreams.pretrain.initial_weights.load_timm", lambda *_, **__: other)
    config = make(init={"weights": f"timm::{NAME}"}, model={"arch": "dinov3_vits16", "patch_px": None, "depth": None})
    with pytest.raises(UserError, match="has rotary positions of another kind than DINOv3's"):
        load_initial_weights(config, ARCHS["dinov3_vits16"])
