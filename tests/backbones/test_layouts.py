"""Checkpoints that people hold: saved as their trainings save them, they give the features of the network they are."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.errors import UserError

State = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 4, "num_classes": 0}


def randomised(model: nn.Module) -> nn.Module:
    """Every weight shows in the output."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if parameter.ndim == 1 and "bias" not in name else 0.0
            parameter.normal_(generator=rng).mul_(0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
            parameter += scale
    return model.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return randomised(timm.create_model("vit_tiny_patch16_224", **SIZES))


@pytest.fixture(scope="module")
def expected(network: nn.Module) -> Tensor:
    with torch.no_grad():
        return network.forward_features(IMAGES)[:, 0]


def check(spec: str, expected: Tensor, atol: float = 1e-5) -> None:
    backbone = load_dinov2_backbone(spec)
    with torch.no_grad():
        torch.testing.assert_close(backbone(IMAGES), expected, rtol=0, atol=atol)


def prefixed(prefix: str, state: State, **changes: Tensor) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()} | changes


def dino(state: State) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_g": torch.ones(2, 1)}
    return {
        "student": prefixed("module.", {**prefixed("backbone.", {k: v + 1 for k, v in state.items()}), **head}),
        "teacher": {**prefixed("backbone.", state), **head},
        "optimizer": {
            "state": {0: {"step": 5, "exp_avg": torch.ones(3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", patch_size=8, lr=0.0005, data_path="/images", use_fp16=True),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def ibot(state: State) -> dict[str, Any]:
    content = dino({**state, "masked_embed": torch.ones(1, 192)})
    content["ibot_loss"] = content.pop("dino_loss")
    return content


def dinov2_teacher(state: State) -> dict[str, Any]:
    """In chunks of two blocks, whose numbers run on."""
    chunked = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // 2))
        chunked[".".join(parts)] = tensor
    chunked["mask_token"] = torch.ones(1, 192)
    heads = {f"{head}.mlp.0.weight": torch.ones(2, 2) for head in ("dino_head", "ibot_head")}
    return {"teacher": {**prefixed("backbone.", chunked), **heads}}


def dinov2_training(state: State) -> dict[str, Any]:
    other = {name: -tensor for name, tensor in state.items()}
    model = {**prefixed("student.backbone.", other), **prefixed("teacher.backbone.", state)}
    return {"model": {**model, "teacher.dino_head.mlp.0.weight": torch.ones(2, 2)}, "iteration": 7}


def mae(state: State) -> dict[str, Any]:
    decoder = {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 17, 64),
        "decoder_embed.weight": torch.zeros(64, 192),
        "decoder_blocks.0.norm1.weight": torch.zeros(64),
    }
    return {"model": {**state, **decoder}, "epoch": 3, "scaler": {}, "args": argparse.Namespace(norm_pix_loss=True)}


def moco(state: State) -> dict[str, Any]:
    """MoCo evaluates its base encoder."""
    other = {name: -tensor for name, tensor in state.items()}
    model = {**prefixed("module.base_encoder.", state), **prefixed("module.momentum_encoder.", other)}
    head = {"module.base_encoder.head.0.weight": torch.ones(2, 2), "module.predictor.0.weight": torch.ones(2, 2)}
    return {"epoch": 300, "arch": "vit_base", "state_dict": {**model, **head}}


@pytest.fixture
def foreign_classes() -> Iterator[dict[str, Any]]:
    """Classes of packages that are there while a checkpoint is saved, and not when it is read."""
    module = types.ModuleType("lightly_train_of_another")
    sys.modules[module.__name__] = module
    names: dict[str, Any] = {}
    for name, base in (("EmbeddingModel", nn.Module), ("AttributeDict", dict), ("Args", object)):
        names[name] = type(name, (base,), {"__module__": module.__name__})
        setattr(module, name, names[name])
    yield names
    sys.modules.pop(module.__name__, None)


LAYOUTS: list[Callable[[State], dict[str, Any]]] = [dino, ibot, dinov2_teacher, dinov2_training, mae, moco]


@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.__name__ for layout in LAYOUTS])
@pytest.mark.parametrize("new_format", [True, False], ids=["archive", "before 1.6"])
def test_checkpoints_of_trainings_give_the_features_of_their_network(
    layout: Callable[[State], dict[str, Any]], new_format: bool, network: nn.Module, expected: Tensor, tmp_path: Path
) -> None:
    torch.save(layout(network.state_dict()), tmp_path / "c.pth", _use_new_zipfile_serialization=new_format)
    check(f"file::{tmp_path}/c.pth", expected)
    if not layout.__name__.startswith("moco"):
        check(f"file::{tmp_path}/c.pth:vit_tiny", expected)


@pytest.mark.parametrize(
    "prefix",
    [
        "teacher.backbone.",
        "backbone.module.",
        "module._orig_mod.backbone.",
        "model._orig_mod.module.encoder.",
        "a.b.c.d.",
    ],
)
def test_prefixes_stand_in_any_order(prefix: str, network: nn.Module, expected: Tensor, tmp_path: Path) -> None:
    torch.save({"model": prefixed(prefix, network.state_dict())}, tmp_path / "c.pth")
    check(f"file::{tmp_path}/c.pth", expected)
    save_file(prefixed(prefix, network.state_dict()), tmp_path / "c.safetensors")
    check(f"file::{tmp_path}/c.safetensors", expected)


def test_a_block_that_was_compiled_or_sharded_keeps_its_name(
    network: nn.Module, expected: Tensor, tmp_path: Path
) -> None:
    state = {
        name.replace("blocks.1.", "blocks.1._orig_mod.").replace("blocks.2.", "blocks.2._fsdp_wrapped_module."): tensor
        for name, tensor in network.state_dict().items()
    }
    torch.save(state, tmp_path / "c.pth")
    check(f"file::{tmp_path}/c.pth", expected)


def test_lightly_trains_checkpoints_load_without_its_classes(
    network: nn.Module, expected: Tensor, tmp_path: Path, foreign_classes: dict[str, Any]
) -> None:
    """It pickles whole modules beside the weights; nothing of them is run."""
    state = network.state_dict()
    embedding_model = foreign_classes["EmbeddingModel"]()
    embedding_model._model = nn.Linear(2, 2)
    args = foreign_classes["Args"]()
    args.path, args.lr = Path("/somewhere"), 0.1
    content = {
        "epoch": 9,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {
            **prefixed("teacher_embedding_model_wrapper._model.", state),
            **prefixed("student_embedding_model_wrapper._model.", {name: -tensor for name, tensor in state.items()}),
            "teacher_dino_head._dino_head.layers.0.weight": torch.ones(2, 2),
        },
        "hyper_parameters": foreign_classes["AttributeDict"](lr=0.1, args=args),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0)}},
        "lightly_train": {
            "models": {"embedding_model": embedding_model},
            "normalize_args": {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)},
        },
    }
    torch.save(content, tmp_path / "last.ckpt")
    sys.modules.pop("lightly_train_of_another")
    check(f"file::{tmp_path}/last.ckpt", expected)
    backbone = load_dinov2_backbone(f"file::{tmp_path}/last.ckpt")
    assert (backbone.mean, backbone.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


HUGGING_FACE: dict[str, Any] = {
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}


def hugging_face(kind: str) -> nn.Module:
    if kind == "vit":
        return ViTModel(ViTConfig(**HUGGING_FACE, intermediate_size=768))
    if kind == "vit classifier":
        return ViTForImageClassification(ViTConfig(**HUGGING_FACE, intermediate_size=768))
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**HUGGING_FACE))
    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**HUGGING_FACE, num_register_tokens=3))


@pytest.mark.parametrize("kind", ["vit", "vit classifier", "dinov2", "dinov2 with registers"])
def test_hugging_faces_networks_give_their_features(kind: str, tmp_path: Path) -> None:
    theirs = randomised(hugging_face(kind))
    body = getattr(theirs, "vit", theirs)
    with torch.no_grad():
        expected = body(IMAGES).last_hidden_state[:, 0]
    theirs.save_pretrained(tmp_path)
    check(f"file::{tmp_path}/model.safetensors", expected)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")  # names of modules, since transformers 5
    check(f"file::{tmp_path}/pytorch_model.bin", expected)


def test_what_hugging_face_writes_beside_the_weights_is_read(tmp_path: Path) -> None:
    theirs = randomised(ViTModel(ViTConfig(**{**HUGGING_FACE, "num_attention_heads": 6}, intermediate_size=768)))
    with torch.no_grad():
        expected = theirs(IMAGES).last_hidden_state[:, 0]
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    check(f"file::{tmp_path}/model.safetensors", expected)
    backbone = load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")
    assert (backbone.mean, backbone.std, backbone.model.arch.num_heads) == ((0.5,) * 3, (0.25,) * 3, 6)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "quick_gelu"}))
    with pytest.raises(UserError, match=r"has the activation quick_gelu \(config\.json\), expected gelu"):
        load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")
    (tmp_path / "config.json").write_text('{"num_attention_heads": -3}')
    with pytest.raises(UserError, match=r"its metadata\.num_heads is -3: input should be greater than"):
        load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")


def sines(grid: int, dim: int) -> Tensor:
    """MoCo v3's fixed table, (1, 1 + P, D)."""
    omega = 1 / 10000 ** (torch.arange(dim // 4) / (dim // 4))
    at = torch.arange(grid).float()
    columns, rows = (part.flatten()[:, None] * omega for part in torch.meshgrid(at, at, indexing="ij"))
    table = torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)
    return torch.cat([torch.zeros(1, dim), table])[None]


def test_heads_that_are_not_64_wide_are_refused_until_their_number_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = randomised(timm.create_model("vit_small_patch16_224", **{**SIZES, "depth": 2}, num_heads=12))
    with torch.no_grad():
        theirs.pos_embed.copy_(sines(4, 384))
        expected = theirs.forward_features(IMAGES)[:, 0]
    torch.save(moco(theirs.state_dict()), tmp_path / "c.pth.tar")
    for named in ("", ":vit_small"):
        with pytest.raises(UserError, match=r"MoCo v3's ViT-S has 12, others 6; name them, .*c\.pth\.tar:num_heads=12"):
            load_dinov2_backbone(f"file::{tmp_path}/c.pth.tar{named}")
        check(f"file::{tmp_path}/c.pth.tar{named}:num_heads=12", expected)
    six = load_dinov2_backbone(f"file::{tmp_path}/c.pth.tar:num_heads=6")
    with torch.no_grad():
        assert (six(IMAGES) - expected).abs().max() > 0.1
    with pytest.raises(UserError, match="is 384 wide, which does not divide into 7 heads"):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth.tar:num_heads=7")
    with pytest.raises(UserError, match=r"expected dinov2_vits14: .*12 heads instead of 6"):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth.tar:dinov2_vits14:num_heads=12")
    with caplog.at_level(logging.INFO):
        torch.save(theirs.state_dict() | {"pos_embed": torch.ones(1, 17, 384)}, tmp_path / "plain.pth")
        load_dinov2_backbone(f"file::{tmp_path}/plain.pth")
    assert "plain.pth: does not say how many heads it has: 6, each 64 wide" in caplog.text


@pytest.mark.parametrize(("width", "heads"), [(1280, 16), (1152, 16), (1408, 16)])
def test_widths_with_other_heads_are_known(width: int, heads: int, tmp_path: Path) -> None:
    """MAE's ViT-H, SigLIP's SO400M, ViT-g."""
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(width, 3, 2, 2)}}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=rf"is {width} wide and .* usually {heads}, and not {width // 64}; name them"):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")


def test_what_a_file_does_not_say_is_said(network: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(network.state_dict(), tmp_path / "c.pth")
    with caplog.at_level(logging.INFO):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")
    assert "c.pth: does not say with which mean and std it was trained: ImageNet's are used" in caplog.text
    caplog.clear()
    torch.save({"model": network.state_dict(), "metadata": {"mean": [0.5] * 3, "std": [0.2] * 3}}, tmp_path / "c.pth")
    with caplog.at_level(logging.INFO):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")
    assert "mean and std" not in caplog.text


def test_networks_that_are_not_here_are_named(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    for more, message in (
        ({"blocks.0.mlp.w12.weight": torch.ones(2, 2)}, r"SwiGLU layers \(DINOv2 ViT-g\)"),
        ({"rope_embed.periods": torch.ones(2)}, "rotary positions beside a position table"),
        ({"blocks.0.attn.relative_position_bias_table": torch.ones(2)}, r"relative positions \(BEiT, Swin\)"),
        ({"teacher._flat_param": torch.ones(2)}, "sharded over processes"),
        ({"fc_norm.weight": torch.ones(192)}, r"does not fit vit \(.*also holds fc_norm\.weight"),
    ):
        torch.save({"model": state | more}, tmp_path / "c.pth")
        with pytest.raises(UserError, match=message) as caught:
            load_dinov2_backbone(f"file::{tmp_path}/c.pth")
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_a_file_that_does_not_say_which_of_its_networks_is_meant_is_refused(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    torch.save({**prefixed("left.", state), **prefixed("right.", state)}, tmp_path / "c.pth")
    with pytest.raises(
        UserError, match=r"holds several vision transformers \(left\.\*, right\.\*\); save the state dict"
    ):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")


def test_the_state_of_a_training_of_ours_is_no_backbone(network: nn.Module, tmp_path: Path) -> None:
    """The exported file alone knows mean and deviation of the images."""
    trainer = {"teacher": prefixed("backbone.", network.state_dict())}
    torch.save({"trainer": trainer, "fingerprint": {"config": {}, "data": ""}}, tmp_path / "checkpoint_last.pt")
    with pytest.raises(UserError, match=r"is the state of a training, .*; name the backbone\.pt beside it"):
        load_dinov2_backbone(f"file::{tmp_path}/checkpoint_last.pt")


def test_a_whole_pickled_network_is_said_for_what_it_is(tmp_path: Path, foreign_classes: dict[str, Any]) -> None:
    torch.save(foreign_classes["EmbeddingModel"](), tmp_path / "c.pth")
    sys.modules.pop("lightly_train_of_another")
    message = r"holds a whole pickled object \(lightly_train_of_another\.EmbeddingModel\), expected its state dict"
    with pytest.raises(UserError, match=message):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")
