"""Backbone files: what is exported loads here, in timm and in the hub's models; what does not fit is refused."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import load_checkpoint
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from signstreams.backbones.archs import ARCHS, resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import (
    Backbone,
    cached_file,
    export_backbone,
    load_dinov2_backbone,
    load_timm,
    read_file,
    read_safetensors,
)
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
    found = read_file(tmp_path / "b.pt", "vit_tiny")
    assert (found.metadata["stream"], found.arch) == ("face", model.arch)
    assert set(found.state) == set(model.state_dict()) - {"mask_token"}
    with pytest.raises(UserError, match="expected vit_base: 192 wide instead of 768"):
        read_file(tmp_path / "b.pt", "vit_base")


def test_images_are_normalised_with_the_statistics_of_the_file(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=2)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {"mean": mean, "std": std})
    backbone = load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[0, 4, 7] = torch.tensor([255, 51, 0])
    found = backbone.inputs(images, None)
    assert (found.shape, found.dtype) == ((1, 3, 32, 32), torch.float32)
    torch.testing.assert_close(found[0, :, 4, 7], torch.tensor([(1 - 0.1) / 0.5, 0.0, -0.3 / 0.125]))
    assert (backbone.num_layers, backbone.layer_tokens(found).shape) == (2, (1, 2, 192))


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


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"image_px": -5}, r"its metadata\.image_px is -5: input should be greater than or equal to 1"),
        ({"image_px": 10**9}, r"its metadata\.image_px is 1000000000: input should be less than"),
        ({"image_px": "32"}, r"its metadata\.image_px is '32': input should be a valid integer"),
        ({"image_px": True}, r"its metadata\.image_px is True: input should be a valid integer"),
        ({"image_px": 33}, r"metadata\.image_px is 33, expected a multiple of its patches of 8 px"),
        ({"std": [0, 0, 0]}, r"its metadata\.std\.0 is 0: input should be greater than or equal to 0\.001"),
        ({"std": [0.2, float("nan"), 0.2]}, r"its metadata\.std\.1 is nan: input should be"),
        ({"std": [0.2, 0.2]}, r"its metadata\.std is \[0\.2, 0\.2\]: list should have at least 3 items"),
        ({"mean": [123.7, 116.3, 103.5]}, r"its metadata\.mean\.0 is 123\.7: input should be less than or equal to 1"),
        ({"mean": [0.5, float("inf"), 0.5]}, r"its metadata\.mean\.1 is inf: input should be"),
        ({"mean": 0.5}, r"its metadata\.mean is 0\.5: input should be a valid list"),
        ({"mean": [0.5, None, 0.5]}, r"its metadata\.mean\.1 is None: input should be a valid number"),
        ({"num_heads": 10**6}, r"its metadata\.num_heads is 1000000: input should be less than"),
        ({"num_heads": 5}, "is 192 wide, which does not divide into 5 heads"),
        ({"architecture": 7}, r"its metadata\.architecture is 7: input should be a valid string"),
    ],
)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_metadata_that_cannot_be_is_one_line(tmp_path: Path, metadata: dict[str, Any], message: str, kind: str) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {}, safetensors=tmp_path / "b.safetensors")
    if kind == "pt":
        content = torch.load(tmp_path / "b.pt", weights_only=True)
        content["metadata"] |= metadata
        torch.save(content, tmp_path / "b.pt")
    else:
        described = read_safetensors(tmp_path / "b.safetensors")["metadata"] | metadata
        save_file(model.state_dict(), tmp_path / "b.safetensors", {"signstreams": json.dumps(described)})
    with pytest.raises(UserError, match=message) as caught:
        load_dinov2_backbone(f"file::{tmp_path}/b.{kind}")
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Rate limit exceeded", r"is a text \('Rate limit exceeded'\), expected a checkpoint; download it again"),
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body>", "is a web page, as a failed download leaves"),
        (b"\n\n<HTML>404", "is a web page, as a failed download leaves"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 88\n", "is a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "is compressed with gzip"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "is truncated or no checkpoint"),
        (b"\x80\x04K\x01.", "is truncated or no checkpoint"),
        (b"\x60\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}', r"is a safetensors file, .* end in \.safetensors"),
    ],
)
@pytest.mark.parametrize("name", ["b.pt", "b.ckpt"])
def test_what_is_no_checkpoint_is_said_for_what_it_is(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_dinov2_backbone(f"file::{tmp_path}/{name}")
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.pt")
    for path in (tmp_path / "b.pt", Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a regular file, expected a checkpoint file"):
            load_dinov2_backbone(f"file::{path}")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=1)
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[3, 5] = torch.nan
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), {}, safetensors=tmp_path / "b.safetensors")
    for kind in ("pt", "safetensors"):
        with pytest.raises(UserError, match=r"holds blocks\.0\.mlp\.fc1\.weight with values that are not finite"):
            load_dinov2_backbone(f"file::{tmp_path}/b.{kind}")


def test_tensors_that_claim_more_than_they_hold_take_no_memory(tmp_path: Path) -> None:
    state = make_model("vit_tiny", 32, patch_px=8, depth=1).state_dict()
    huge = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"model": {**state, "blocks.0.mlp.fc1.weight": huge}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"mlp\.fc1\.weight, which claims \(1000000, 1000000\) values but has fewer"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    torch.save({"model": {**state, "patch_embed.proj.weight": torch.zeros(64 * 10**5, 3, 1, 1)}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"does not fit vit \(6400000 wide"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    torch.save({"model": {name: value.int() for name, value in state.items()}}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"as torch\.int32, expected float16"):
        load_dinov2_backbone(f"file::{tmp_path}/b.pt")


NAME = "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub client; one of torch.hub lies beside it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path / "hub"


def _cached(cache: Path) -> nn.Module:
    """A network whose weights the hub client has fetched, as it lays them down."""
    torch.manual_seed(0)
    model = timm.create_model(NAME, pretrained=False).eval()
    repository = cache / f"models--timm--{NAME}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    save_file(model.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    model.reset_classifier(0)
    return model


def _no_network(*args: Any, **kwargs: Any) -> NoReturn:
    raise ConnectionError("no route\nto the hub")


@pytest.mark.parametrize("download", [False, True])
def test_weights_in_the_cache_are_taken_with_and_without_permission(
    cache: Path, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _cached(cache)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", _no_network)
    backbone = load_dinov2_backbone(f"timm::{NAME}", download=download)
    assert (backbone.embed_dim, backbone.patch_size, backbone.image_px, backbone.num_layers) == (64, 16, 160, 1)
    assert not backbone.model.training and backbone.metadata == {"architecture": NAME}
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), expected(images))


def test_without_permission_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", _no_network)
    error = f"backbone 'timm::{NAME}': is not in the local cache; add --model-download to fetch it, or give a file::"
    with pytest.raises(UserError, match=re.escape(error)):
        load_dinov2_backbone(f"timm::{NAME}")
    with pytest.raises(UserError, match=r"init\.weights 'timm::.*; add --init-download to fetch it"):
        load_timm(NAME, download=False, setting="init.weights", flag="--init-download")


def test_with_permission_timm_fetches_and_what_goes_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._hub.hf_hub_download", _no_network)
    with pytest.raises(UserError, match=rf"'timm::{NAME}': cannot be fetched \(ConnectionError: no route to the hub\)"):
        load_dinov2_backbone(f"timm::{NAME}", download=True)


def test_a_broken_file_of_the_cache_is_named(cache: Path) -> None:
    _cached(cache)
    (file,) = cache.rglob("model.safetensors")
    file.write_bytes(b"half")
    with pytest.raises(UserError, match=rf"cannot be read from {re.escape(str(file))} "):
        load_dinov2_backbone(f"timm::{NAME}")


@pytest.mark.parametrize("name", ["no_such_model", "vit_small_patch16_224.no_such_tag", "test_vit4"])
def test_a_name_without_weights_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"'timm::{name}': timm has no such model with weights"):
        load_dinov2_backbone(f"timm::{name}", download=True)


def test_the_cache_of_torch_hub_counts_too(tmp_path: Path) -> None:
    config = timm.get_pretrained_cfg("vit_small_patch16_224.dino")
    assert cached_file(config) is None
    path = tmp_path / "torch" / "checkpoints" / Path(config.url).name
    path.parent.mkdir(parents=True)
    path.touch()
    assert cached_file(config) == path


def test_the_mean_of_the_patches_is_the_same_here_and_in_timm(tmp_path: Path) -> None:
    model = make_model("vit_tiny", 32, patch_px=8, depth=2)
    metadata = {"image_px": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    export_backbone(tmp_path / "b.pt", model.arch, model.state_dict(), metadata)
    ours = load_dinov2_backbone(f"file::{tmp_path}/b.pt")
    images = torch.randn(2, 3, 32, 32)
    words = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 0}
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, **words).eval()
    load_checkpoint(theirs, str(tmp_path / "b.pt"), filter_fn=checkpoint_filter_fn, weights_only=True)
    with torch.no_grad():
        expected = theirs.forward_features(images)  # (2, 1 + P, D)
        found = ours.features(images, "last_and_patches")
        of_timm = Backbone(
            theirs, embed_dim=192, patch_size=8, image_px=32, mean=ours.mean, std=ours.std, metadata={}
        ).features(images, "last_and_patches")
    torch.testing.assert_close(found, torch.cat((expected[:, 0], expected[:, 1:].mean(dim=1)), dim=1))
    torch.testing.assert_close(of_timm, found)
    assert found.shape[1:] == ours.feature_shape("last_and_patches") == (384,)
    assert ours.feature_shape("weighted") == (2, 192)
