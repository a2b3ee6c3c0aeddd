"""Starting from weights: what fits is taken, the rest is resampled or refused; the new head learns alone first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from signstreams.backbones import weights as timm_weights
from signstreams.backbones.archs import ViTArch, resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.engine.distributed import World
from signstreams.errors import UserError
from signstreams.pretrain.derived_settings import derive_settings
from signstreams.pretrain.initial_weights import load_initial_weights
from signstreams.pretrain.run import architecture, pretrain
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.trainer import Trainer

Make = Callable[..., PretrainConfig]
ALONE = World(0, 1, torch.device("cpu"))


def _exported(path: Path, **shape: Any) -> tuple[str, VisionTransformer]:
    """A backbone with random weights on disk: its spec and the model."""
    arch = resolve("vit_tiny", **{"image_px": 16, "patch_px": 8, "depth": 1, **shape})
    model = VisionTransformer(arch)
    model.init_weights(torch.Generator().manual_seed(7))
    export_backbone(path, arch, model.state_dict(), {"image_px": arch.table_px, "mean": [0.5] * 3})
    return f"file::{path}", model.eval()


def _trainer(config: PretrainConfig, arch: ViTArch, total_steps: int = 20) -> Trainer:
    derived = derive_settings(config, num_crops=8 * total_steps // config.epochs, global_batch=8)
    trainer = Trainer(config, derived, arch, ALONE)
    weights = load_initial_weights(config, arch)
    assert weights is not None
    for network in (trainer.student, trainer.teacher):
        network.backbone.load_state_dict(weights.state, strict=False)
    return trainer


def _views(seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 256, (2, 8, 16, 16, 3), dtype=torch.uint8, generator=rng),
        torch.randint(0, 256, (2, 8, 8, 8, 3), dtype=torch.uint8, generator=rng),
    )


def test_equal_shapes_give_equal_features_in_student_and_teacher(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, model = _exported(tmp_path / "mis pesos ñ.pt")
    config = make(init={"weights": spec})
    with caplog.at_level(logging.INFO):
        trainer = _trainer(config, architecture(config))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for network in (trainer.student, trainer.teacher):
            torch.testing.assert_close(network.eval().backbone(images), model(images))
    lines = [line for line in caplog.messages if "tensors taken" in line]
    assert len(lines) == 1
    assert lines[0].endswith("mask_token new")
    assert "set augmentation.mean" in caplog.text


def test_another_image_size_and_another_patch_are_resampled(make: Make, tmp_path: Path) -> None:
    spec, _ = _exported(tmp_path / "b.pt", image_px=16, patch_px=4)
    config = make(init={"weights": spec})
    weights = load_initial_weights(config, architecture(config))
    assert weights is not None
    assert "patch embedding from 4 to 8 px" in weights.report
    assert "position table from 4x4 to 2x2" in weights.report
    assert weights.state["patch_embed.proj.weight"].shape == (192, 3, 8, 8)
    assert weights.state["pos_embed"].shape == (1, 5, 192)


@pytest.mark.parametrize(
    ("shape", "changes", "expected"),
    [
        ({"depth": 2}, {}, "2 blocks instead of 1; add --depth 2"),
        ({"num_heads": 6}, {}, "6 heads instead of 3; add --model-num-heads 6"),
        ({"num_registers": 2}, {}, "2 registers instead of 0; add --model-num-registers 2"),
        ({"layer_scale_init": 0.1}, {}, "LayerScale; add --layer-scale-init 1e-5"),
        ({}, {"arch": "vit_small"}, "192 wide instead of 384; give an --arch of its shape"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(
    make: Make, tmp_path: Path, shape: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    spec, _ = _exported(tmp_path / "b.pt", **shape)
    config = make(init={"weights": spec}, model=changes)
    with pytest.raises(UserError, match=expected) as caught:
        load_initial_weights(config, architecture(config))
    assert len(caught.value.problems) == 1


def test_missing_and_extra_tensors_are_named(make: Make, tmp_path: Path) -> None:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=1)
    state = VisionTransformer(arch).state_dict()
    del state["norm.weight"]
    torch.save({"model": state | {"norm_pre.weight": torch.ones(192)}}, tmp_path / "b.pt")
    config = make(init={"weights": f"file::{tmp_path}/b.pt"})
    with pytest.raises(UserError, match=r"lacks norm\.weight; has norm_pre\.weight; expected a plain"):
        load_initial_weights(config, arch)


def test_new_parts_keep_what_the_weights_know(make: Make, tmp_path: Path) -> None:
    """LayerScale that the weights lack becomes 1, not its small first value."""
    spec, model = _exported(tmp_path / "b.pt")
    config = make(init={"weights": spec}, model={"layer_scale_init": 1e-5})
    trainer = _trainer(config, architecture(config))
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(trainer.teacher.backbone(images), model(images))


@pytest.mark.parametrize("name", ["vit_small_patch16_224.dino", "vit_small_patch14_reg4_dinov2.lvd142m"])
def test_timms_weights_come_from_the_cache_and_from_nowhere_else(
    make: Make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dinov2 = "dinov2" in name
    arch = "dinov2_vits14_reg" if is_dinov2 else "vit_small"
    side_px = 28 if is_dinov2 else 32
    config = make(
        init={"weights": f"timm::{name}"},
        model={"arch": arch, "patch_px": None, "depth": None},
        augmentation={"global_px": side_px, "num_local": 0, "local_px": 48},
    )
    monkeypatch.setattr(timm_weights, "cached_file", lambda _: None)
    with pytest.raises(UserError, match="not in the local cache; add --init-download"):
        load_initial_weights(config, architecture(config))
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_weights, "cached_file", lambda _: tmp_path / "model.safetensors")
    weights = load_initial_weights(config, architecture(config))
    assert weights is not None
    ours = VisionTransformer(architecture(config)).eval()
    ours.load_state_dict(weights.state, strict=False)
    small = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    small.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, side_px, side_px)
    with torch.no_grad():
        expected = small.forward_features(images)[:, 0]
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)


def test_the_heads_of_the_weights_are_kept(make: Make, tmp_path: Path) -> None:
    """A network of 6 heads, from a file that does not say so, trains on with its features."""
    spec, model = _exported(tmp_path / "b.pt", num_heads=6)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for given in (spec, f"file::{tmp_path}/plain.pt:num_heads=6"):
        config = make(init={"weights": given}, model={"num_heads": 6})
        trainer = _trainer(config, architecture(config))
        with torch.no_grad():
            torch.testing.assert_close(trainer.teacher.eval().backbone(images), model(images))


def test_timms_own_number_of_heads_counts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shape shows it."""
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, patch_size=8, depth=1, num_heads=12)
    monkeypatch.setattr("signstreams.pretrain.initial_weights.load_timm", lambda *_, **__: theirs)
    config = make(init={"weights": "timm::vit_tiny_patch16_224"})
    with pytest.raises(UserError, match="12 heads instead of 3; add --model-num-heads 12"):
        load_initial_weights(config, architecture(config))


def test_a_number_of_heads_is_another_experiment_and_none_is_what_it_was(make: Make) -> None:
    assert "num_heads" not in make().identity()["model"]
    assert make(model={"num_heads": 6}).identity()["model"]["num_heads"] == 6
    with pytest.raises(UserError, match="vit_tiny is 192 wide, which does not divide into 5 heads"):
        architecture(make(model={"num_heads": 5}))


def test_an_unknown_model_of_timm_is_named(make: Make) -> None:
    for name in ("no_such_model", "vit_small_patch16_224.no_such_tag"):
        config = make(init={"weights": f"timm::{name}"})
        with pytest.raises(UserError, match=f"'timm::{name}': timm has no such model"):
            load_initial_weights(config, architecture(config))


def test_the_head_learns_alone_and_then_the_backbone_from_its_end(make: Make, tmp_path: Path) -> None:
    spec, _ = _exported(tmp_path / "b.pt", depth=2)
    config = make(
        init={"weights": spec, "head_only_steps": 3},
        model={"depth": 2},
        optim={"layer_decay": 0.5, "warmup_ratio": 0.1},
        dino={"freeze_prototypes_ratio": 0.0},
    )
    trainer = _trainer(config, architecture(config))
    first = {name: value.clone() for name, value in trainer.student.state_dict().items()}
    for step in range(3):
        trainer.train_step(*_views(step))
        now = trainer.student.state_dict()
        assert all(torch.equal(now[name], first[name]) == name.startswith("backbone.") for name in first)
    trainer.train_step(*_views(3))
    now = trainer.student.state_dict()
    moved = {name for name in first if not torch.equal(now[name], first[name])}
    assert any(name.startswith("backbone.blocks.0.") for name in moved)
    assert any(name.startswith("backbone.patch_embed") for name in moved)
    # AdamW's first update is lr times the sign of the gradient: the rates can be read off
    rate = trainer.scheduled(3)["lr_backbone"]
    for name, share in (
        ("backbone.norm.bias", 1.0),
        ("backbone.blocks.1.mlp.fc2.bias", 0.5),
        ("backbone.blocks.0.mlp.fc2.bias", 0.25),
        ("backbone.patch_embed.proj.bias", 0.125 * 0.2),
    ):
        change = (now[name] - first[name]).abs().max()
        assert float(change) == pytest.approx(rate * share, rel=0.02), name


def test_the_backbone_warms_up_after_the_head(make: Make, tmp_path: Path) -> None:
    spec, _ = _exported(tmp_path / "b.pt")
    config = make(init={"weights": spec, "head_only_steps": 4}, optim={"warmup_ratio": 0.1})
    trainer = _trainer(config, architecture(config))
    shares = [trainer.scheduled(step)["lr_backbone"] / trainer.scheduled(step)["lr"] for step in range(8)]
    assert shares == pytest.approx([0, 0, 0, 0, 0.5, 1, 1, 1])


def test_other_weights_are_another_experiment(make: Make, tmp_path: Path) -> None:
    spec, _ = _exported(tmp_path / "a.pt")
    config = make(init={"weights": spec, "head_only_steps": 2}, epochs=1)
    pretrain(config, "hand_r")
    moved = f"file::{(tmp_path / 'a.pt').rename(tmp_path / 'b.pt')}"
    pretrain(make(init={"weights": moved, "head_only_steps": 2}, epochs=1, resume="must"), "hand_r")
    other, _ = _exported(tmp_path / "other.pt", patch_px=4)
    with pytest.raises(UserError, match=r"init\.weights is '[0-9a-f]+' there, '[0-9a-f]+' here"):
        pretrain(make(init={"weights": other, "head_only_steps": 2}, epochs=1), "hand_r")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"weights": "backbone.pt"}, "expected file::PATH"),
        ({"head_only_steps": 3}, "head_only_steps has no effect"),
        ({"weights": "file::a.pt", "download": True}, "download has no effect"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Make, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(init=settings)
