"""Networks of timm come from the local cache, and from the network only where they may."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from signstreams.backbones.weights import cached_file, load_dinov2_backbone, load_timm
from signstreams.errors import UserError

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
