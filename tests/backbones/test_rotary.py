"""DINOv3's networks, whose positions are rotary: files of timm, of its own and of Hugging Face, and what we export."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from signstreams.backbones import weights
from signstreams.backbones.archs import ARCHS
from signstreams.backbones.rotary import rotated, rotations
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone, load_dinov2_backbone
from signstreams.errors import UserError
from signstreams.pretrain.pictures import class_attention

SIZES: dict[str, Any] = {"depth": 2, "embed_dim": 128, "num_heads": 2}
SMALL = dataclasses.replace(ARCHS["dinov3_vits16"], name="vit", embed_dim=128, depth=2, num_heads=2)
KINDS = ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3_qkvb")
IMAGES = [torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(5)) for sides in ((32, 32), (80, 48))]


def randomised(model: nn.Module) -> Any:
    """Every weight shows in the output."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(generator=rng).mul_(0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
            parameter += 1.0 if parameter.ndim == 1 and "bias" not in name else 0.0
    return model.eval()


def small(kind: str = KINDS[1]) -> Any:
    """A small network of timm."""
    return randomised(timm.create_model(kind, num_classes=0, **SIZES))


@torch.no_grad()
def check(model: Any, expected: list[Tensor]) -> None:
    """Class token and patches of all images, both, are those that are expected: (B, 1 + R + P, D)."""
    for images, tokens in zip(IMAGES, expected, strict=True):
        classes, patches = model.forward_features(images)
        torch.testing.assert_close(classes, tokens[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(patches, tokens[:, 5:], rtol=0, atol=1e-5)
        assert (tokens[:, 5] - tokens[:, 6]).abs().max() > 0.1


@torch.no_grad()
def features_of(theirs: Any) -> list[Tensor]:
    return [theirs.forward_features(images) for images in IMAGES]


@pytest.mark.parametrize("kind", KINDS)
def test_timms_networks_give_their_tokens_at_every_size(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    found = load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")
    check(found.model, features_of(theirs))
    assert (found.image_px, found.patch_size, found.embed_dim) == (256, 16, 128)
    assert found.model.arch.gated_dim == (512 if "plus" in kind else None)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_gives_its_class_token_in_timm_and_here(kind: str, tmp_path: Path) -> None:
    theirs = small(kind)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = load_dinov2_backbone(f"file::{tmp_path}/model.safetensors").model
    file, other = tmp_path / "b.pt", tmp_path / "b.safetensors"
    about = {"image_px": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    export_backbone(file, ours.arch, ours.state_dict(), about, safetensors=other)
    again = kind if kind.endswith("_qkvb") else f"{kind}_qkvb"
    for path in (file, other):
        check(load_dinov2_backbone(f"file::{path}").model, features_of(theirs))
        words = {"pretrained_cfg_overlay": {"file": str(path)}, "global_pool": "token", "num_classes": 0}
        of_timm = timm.create_model(again, pretrained=True, **words, **SIZES).eval()
        with torch.no_grad():
            torch.testing.assert_close(of_timm(IMAGES[0]), ours(IMAGES[0]), rtol=0, atol=1e-5)
    written = torch.load(file, weights_only=True)
    assert set(written["model"]) == set(timm.create_model(again, num_classes=0, **SIZES).state_dict())
    assert written["metadata"]["is_rotary"] is True and written["metadata"]["image_px"] == 32


def of_its_own(ours: VisionTransformer) -> dict[str, Tensor]:
    """The tensors as DINOv3's own training names them: with periods, and a bias of keys that its mask takes away."""
    state = {}
    for name, tensor in ours.state_dict().items():
        if name.endswith("attn.qkv.bias"):
            of_q, of_k, of_v = tensor.chunk(3)
            state[f"{name}_mask"] = torch.cat((torch.ones_like(of_q), torch.zeros_like(of_k), torch.ones_like(of_v)))
            tensor = torch.cat((of_q, torch.full_like(of_k, 7.0), of_v))
        name = name.replace("register_tokens", "storage_tokens").replace("fc1_g", "w1").replace("fc1_x", "w2")
        state[name.replace("fc2", "w3") if ours.arch.gated_dim else name] = tensor
    state["rope_embed.periods"] = torch.ones(16, dtype=torch.bfloat16)
    return state


@pytest.mark.parametrize("gated_dim", [None, 192])
def test_files_of_its_own_training_are_read(gated_dim: int | None, tmp_path: Path) -> None:
    ours = randomised(VisionTransformer(dataclasses.replace(SMALL, gated_dim=gated_dim)))
    with torch.no_grad():
        expected = ours(IMAGES[0])
        for prefix in ("", "teacher.backbone."):
            torch.save({f"{prefix}{name}": value for name, value in of_its_own(ours).items()}, tmp_path / "c.pth")
            found = load_dinov2_backbone(f"file::{tmp_path}/c.pth")
            torch.testing.assert_close(found(IMAGES[0]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_gated", [False, True])
def test_hugging_faces_networks_give_their_tokens(is_gated: bool, tmp_path: Path) -> None:
    config = DINOv3ViTConfig(
        hidden_size=128,
        intermediate_size=192 if is_gated else 512,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_register_tokens=4,
        use_gated_mlp=is_gated,
        hidden_act="silu" if is_gated else "gelu",
    )
    theirs = randomised(DINOv3ViTModel(config))
    theirs.save_pretrained(tmp_path)
    found = load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")
    with torch.no_grad():
        check(found.model, [theirs(images).last_hidden_state for images in IMAGES])
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"hidden_act": "relu"}))
    with pytest.raises(UserError, match=f"activation relu .* expected {'silu' if is_gated else 'gelu'}"):
        load_dinov2_backbone(f"file::{tmp_path}/model.safetensors")


def test_a_backbone_of_timm_gives_the_class_token_and_not_the_mean_of_its_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "vit_small_patch16_dinov3.lvd1689m"
    theirs = randomised(timm.create_model(name, pretrained=False, num_classes=0))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "cached_file", lambda _: tmp_path / "model.safetensors")
    found = load_dinov2_backbone(f"timm::{name}")
    with torch.no_grad():
        tokens = theirs.forward_features(IMAGES[0])
        torch.testing.assert_close(found(IMAGES[0]), tokens[:, 0], rtol=0, atol=1e-4)
        both = found.features(IMAGES[0], "last_and_patches")
    torch.testing.assert_close(both, torch.cat((tokens[:, 0], tokens[:, 5:].mean(dim=1)), dim=1), rtol=0, atol=1e-4)
    assert (found.num_layers, found.feature_shape("weighted"), found.image_px) == (12, (12, 384), 256)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_training_computes_the_same_tokens_as_one_image_size_at_a_time(packed: bool, is_checkpointed: bool) -> None:
    model = randomised(VisionTransformer(SMALL, checkpoint_activations=is_checkpointed))
    large, small_views = torch.randn(3, 3, 48, 48), torch.randn(5, 3, 32, 32)
    masks = torch.rand(3, 9, generator=torch.Generator().manual_seed(3)) < 0.4
    rows = masks.flatten().nonzero().squeeze(1)
    drawn = [torch.randn(8, 128), torch.randn(len(rows), 128)]

    def gradients(*outputs: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        sum((output * weight).sum() for output, weight in zip(outputs, drawn, strict=True)).backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    (class_large, patches), (class_small, _) = (
        model.forward_features(large, masks),
        model.forward_features(small_views),
    )
    expected = torch.cat((class_large, class_small)), patches.flatten(0, 1)[rows]
    found = model.forward_tokens([large, small_views], masks, rows, packed=packed)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    ours = gradients(*found)
    torch.testing.assert_close(ours, gradients(*expected), rtol=1e-4, atol=1e-3)
    assert ours["blocks.0.attn.qkv.bias"].chunk(3)[1].count_nonzero() == 0  # keys have no bias, and get none
    assert ours["blocks.0.attn.qkv.bias"].chunk(3)[0].count_nonzero() > 0


def test_attention_follows_the_distance_of_patches_alone() -> None:
    """A turned query meets a turned key by the difference of their places; class token and registers are not turned."""
    turns = rotations(5, 5, 64, torch.device("cpu"))
    query, key = torch.randn(1, 1, 1, 64), torch.randn(1, 1, 1, 64)
    q, k = (rotated(x.expand(-1, -1, 5 + 25, -1), turns)[0, 0] for x in (query, key))
    assert torch.equal(q[:5], query[0, 0].expand(5, -1))
    scores = (q[5:] @ k[5:].T).unflatten(0, (5, 5)).unflatten(2, (5, 5))  # by row and column of both
    torch.testing.assert_close(scores[1, 2, 3, 3], scores[0, 0, 2, 1], rtol=0, atol=1e-4)
    assert (scores[1, 2, 3, 3] - scores[1, 2, 3, 2]).abs() > 1e-3


def test_the_picture_of_attention_turns_as_the_network_does() -> None:
    """Without the turns, a class token of equal patches would look at all of them alike."""
    model = randomised(VisionTransformer(SMALL))
    maps = class_attention(model, torch.randn(1, 3, 48, 48))
    seen: list[Tensor] = []
    last = model.blocks[-1].attn
    original = last.by_head
    last.by_head = lambda *args: seen.append(original(*args)) or seen[-1]  # type: ignore[method-assign]
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model(images)
    q, k, _ = seen[0]
    weights_of = (q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)[:, :, 0, 5:]
    found = class_attention(model, images)
    torch.testing.assert_close(found.flatten(2), weights_of)
    assert found.shape == maps.shape == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (":dinov2_vits14", r"128 wide instead of 384.*rotary positions instead of a position table"),
        (":vit_tiny", "rotary positions instead of a position table"),
        (":dinov3_vits16plus", "plain MLPs instead of gated MLPs 1536 wide"),
    ],
)
def test_another_architecture_than_named_is_refused(spec: str, message: str, tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "c.pth")
    with pytest.raises(UserError, match=message):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth{spec}")


def test_rotary_networks_of_others_are_refused(tmp_path: Path) -> None:
    """They turn otherwise; none of their tensors says so."""
    for name, message in (
        ("vit_small_patch16_rope_224", r"holds no vision transformer in DINOv2's layout"),
        ("vit_small_patch16_rope_mixed_224", r"learned rotary positions \(ViT of Naver AI\)"),
        ("eva02_tiny_patch14_224", "does not fit vit"),
    ):
        theirs = timm.create_model(name, num_classes=0, depth=1)
        torch.save(theirs.state_dict(), tmp_path / "c.pth")
        with pytest.raises(UserError, match=message):
            load_dinov2_backbone(f"file::{tmp_path}/c.pth")
    message = r"is 4096 wide .*usually 32, and not 64; name them, such as file::.*:num_heads=32"
    shapes = {"cls_token": (1, 1, 1), "storage_tokens": (1, 4, 1), "blocks.0.ls1.gamma": (1,)}
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save(state | {"patch_embed.proj.weight": torch.zeros(4096, 3, 1, 1)}, tmp_path / "c.pth")
    with pytest.raises(UserError, match=re.compile(message)):
        load_dinov2_backbone(f"file::{tmp_path}/c.pth")
