"""Backbones from files and from timm: what is adapted and said, and what is refused in one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch

from signstreams.backbones.archs import ARCHS
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone, load_dinov2_backbone, read_file
from signstreams.errors import UserError

from .models import make_model


def test_another_architecture_than_named_is_refused_in_one_line(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=2)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
    with pytest.raises(UserError) as caught:
        load_dinov2_backbone(f"file::{tmp_path}/b.pt:dinov2_vits14")
    assert len(caught.value.problems) == 1
    assert "192 wide instead of 384" in str(caught.value)
    assert "2 blocks instead of 12" in str(caught.value)
    with pytest.raises(UserError, match="192 wide instead of 384"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt:vit_small")
    assert load_dinov2_backbone(f"file::{tmp_path}/b.pt:vit_tiny").model.arch.depth == 2


def test_a_table_of_another_size_is_resized_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = VisionTransformer(ARCHS["dinov2_vits14"]).state_dict()
    state["pos_embed"] = torch.randn(1, 257, 384)  # SHuBERT's released files: a 224 px table
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "b.pt")
    with caplog.at_level(logging.INFO):
        backbone = load_dinov2_backbone(f"file::{tmp_path}/b.pt:dinov2_vits14")
    assert "resized from 16x16 to 37x37" in caplog.text
    assert backbone.model.pos_embed.shape == (1, 1370, 384)


@pytest.mark.parametrize("content", [{"model": {}}, {"model": {"fc.weight": torch.zeros(2, 2)}}, [1, 2], torch.ones(3)])
def test_a_file_without_a_transformer_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt: holds no"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")


def test_an_absent_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_dinov2_backbone(f"file::{tmp_path}/absent.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(UserError, match="truncated"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")


def test_an_unknown_timm_model_is_named() -> None:
    with pytest.raises(UserError, match="no_such_model"):
        load_dinov2_backbone("timm::no_such_model")


def test_a_broken_safetensors_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"\x10" + bytes(30))
    with pytest.raises(UserError, match=r"b\.safetensors: is truncated or no safetensors file"):
        load_dinov2_backbone(f"file::{tmp_path}/b.safetensors")


@pytest.mark.parametrize("prefixes", ["module.", "_orig_mod.backbone.", "module.backbone."])
@pytest.mark.parametrize("key", ["model", "state_dict", "teacher"])
def test_wrappers_and_heads_are_taken_off(tmp_path: Path, prefixes: str, key: str) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    state = {f"{prefixes}{name}": value for name, value in model.state_dict().items()}
    state |= {f"{prefix}mlp.0.weight": torch.ones(2, 2) for prefix in ("head.", "dino_head.", "ibot_head.")}
    torch.save({key: state, "epoch": 3}, tmp_path / "b.pt")
    backbone = load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(images), model(images))
    assert (backbone.image_px, backbone.mean) == (224, (0.485, 0.456, 0.406))  # ImageNet's, where nothing is said


def test_weights_of_timm_with_registers_are_read_as_ours(tmp_path: Path) -> None:
    """There the class token's position is summed into the token, and the table has an entry less."""
    theirs = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, img_size=28, depth=1).eval()
    torch.nn.init.normal_(theirs.reg_token)
    torch.save(theirs.state_dict(), tmp_path / "b.pt")
    ours = load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    assert ours.model.arch.num_registers == 4
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.forward_features(images)[:, 0], rtol=0, atol=1e-5)


def test_tensors_that_do_not_fit_their_own_shape_are_one_line(tmp_path: Path) -> None:
    state = make_model("vit_tiny", 32, patch_px=8, depth=1).state_dict()
    torch.save({"model": {**state, "norm.weight": torch.ones(7)}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"b\.pt: does not fit vit \(192 wide, 1 blocks, patch 8\)") as caught:
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    assert "norm.weight" in str(caught.value) and "\n" not in str(caught.value)


def test_the_named_architecture_is_checked_while_reading_alone(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {"stream": "face"})
    state, metadata, found = read_file(tmp_path / "b.pt", "vit_tiny")
    assert (metadata["stream"], found) == ("face", model.arch)
    assert set(state) == set(model.state_dict()) - {"mask_token"}
    with pytest.raises(UserError, match="expected vit_base: 192 wide instead of 768"):
        read_file(tmp_path / "b.pt", "vit_base")


def test_images_are_normalised_with_the_statistics_of_the_file(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=2)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {"mean": mean, "std": std})
    backbone = load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[0, 4, 7] = torch.tensor([255, 51, 0])
    found = backbone.normalize(images)
    assert (found.shape, found.dtype) == ((1, 3, 32, 32), torch.float32)
    torch.testing.assert_close(found[0, :, 4, 7], torch.tensor([(1 - 0.1) / 0.5, 0.0, -0.3 / 0.125]))
    assert (backbone.num_layers, backbone.layer_tokens(found).shape) == (2, (1, 2, 192))
