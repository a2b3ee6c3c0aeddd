"""Exported weights: read alike by timm and by us, and equal bytes for equal weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import load_checkpoint
from timm.models.vision_transformer import checkpoint_filter_fn

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone, load_dinov2_backbone

from .models import make_model


@pytest.mark.parametrize(
    ("name", "timm_name", "image_px"),
    [
        ("vit_tiny", "vit_tiny_patch16_224", 32),
        ("dinov2_vits14", "vit_small_patch14_dinov2", 98),
        ("dinov2_vits14_reg", "vit_small_patch14_reg4_dinov2", 98),
    ],
)
def test_exported_weights_give_the_same_class_token_in_timm_and_here(
    tmp_path: Path, name: str, timm_name: str, image_px: int
) -> None:
    changes = {"patch_px": 8, "depth": 2} if name == "vit_tiny" else {}
    model = make_model(name, image_px, **changes)
    path = tmp_path / "mi carpeta: ñ" / "backbone.pt"
    export_backbone(path, model.arch, model.state_dict(), {"image_px": image_px, "mean": [0.5] * 3, "std": [0.2] * 3})
    ours = load_dinov2_backbone(f"file::{path}:{name}")
    theirs = timm.create_model(
        timm_name, num_classes=0, img_size=image_px, **({"patch_size": 8, "depth": 2} if changes else {})
    ).eval()
    load_checkpoint(theirs, str(path), filter_fn=checkpoint_filter_fn)
    images = torch.randn(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)  # (2, D)
        assert (expected[0] - expected[1]).abs().max() > 0.01
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.forward_features(images)[:, 0], expected, rtol=0, atol=1e-5)
    assert (ours.embed_dim, ours.patch_size, ours.image_px) == (model.embed_dim, model.patch_size, image_px)
    assert ours.mean == (0.5, 0.5, 0.5)


def test_small_architectures_export_the_very_keys_of_timm(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=2)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, depth=2)
    content = torch.load(tmp_path / "b.pt", weights_only=True)
    assert set(content["model"]) == set(theirs.state_dict())
    theirs.load_state_dict(content["model"])


def test_dinov2_exports_its_table_of_1370_entries_and_its_mask_token(tmp_path: Path) -> None:
    for name, count in (("dinov2_vits14", 175), ("dinov2_vits14_reg", 176)):
        model = VisionTransformer(resolve(name, image_px=98))
        export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {})
        state = torch.load(tmp_path / "b.pt", weights_only=True)["model"]
        assert state["pos_embed"].shape == (1, 1370, 384)
        assert "mask_token" in state
        assert len(state) == count


def test_both_formats_hold_the_same_tensors_and_metadata(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1, num_registers=2, layer_scale_init=0.1)
    torch.nn.init.constant_(model.mask_token, 0.5)  # a reader looks for it where there are registers
    metadata = {"image_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "stream": "señas"}
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), metadata, safetensors=tmp_path / "b.safetensors")
    a, b = (load_dinov2_backbone(f"file::{tmp_path}/b.{kind}") for kind in ("pt", "safetensors"))
    assert a.metadata == b.metadata
    assert metadata.items() <= a.metadata.items()
    assert (b.image_px, b.mean, b.std) == (32, (0.5,) * 3, (0.25,) * 3)
    for loaded in (a, b):
        tensors, expected = loaded.model.state_dict(), model.state_dict()
        assert set(tensors) == set(expected)
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_equal_weights_export_equal_bytes_in_both_formats(tmp_path: Path) -> None:
    """Of the metadata's two keys the safetensors library writes either one first, as it comes."""
    model = make_model("vit_tiny", 32, depth=1)
    found = set()
    for number in range(8):
        paths = [tmp_path / f"{number}.{kind}" for kind in ("pt", "safetensors")]
        export_backbone(paths[0], model.arch, model.state_dict(), {"stream": "face"}, safetensors=paths[1])
        found.add(tuple(path.read_bytes() for path in paths))
    assert len(found) == 1


def test_what_is_exported_is_a_copy_of_its_own(tmp_path: Path) -> None:
    """Of a part of a larger tensor that part alone is written."""
    model = make_model("vit_tiny", 32, depth=1)
    large = torch.randn(1000, *model.cls_token.shape)
    export_backbone(tmp_path / "whole.pt", model.arch, model.state_dict(), {})
    export_backbone(tmp_path / "part.pt", model.arch, {**model.state_dict(), "cls_token": large[3]}, {})
    assert torch.equal(torch.load(tmp_path / "part.pt", weights_only=True)["model"]["cls_token"], large[3])
    assert (tmp_path / "part.pt").stat().st_size == (tmp_path / "whole.pt").stat().st_size
