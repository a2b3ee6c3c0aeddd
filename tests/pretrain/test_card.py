"""The model card: its facts, and its own code, run as a reader would: every loader gives the same class token."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from signstreams.backbones.archs import ViTArch, resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.backbones.weights import export_backbone
from signstreams.engine.model_card import read_card
from signstreams.engine.settings import ExperimentConfig
from signstreams.pretrain.outputs import model_card
from signstreams.pretrain.run import pretrain
from signstreams.pretrain.settings import PretrainConfig

HUB = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
NOT_CACHED = f"torch.hub's DINOv2 code is not in {HUB}, and fetching it needs the network"
ARCHS = {
    "vit": resolve("vit_tiny", image_px=32, patch_px=8, depth=2),
    "vit with registers": resolve("vit_tiny", image_px=32, patch_px=8, depth=1, num_registers=2, layer_scale_init=0.1),
    "dinov2": resolve("dinov2_vits14", image_px=518),
    "dinov2 with registers": resolve("dinov2_vits14_reg", image_px=98),
    "dinov3": resolve("dinov3_vits16", image_px=64),
}
IMAGE_PX = {"vit": 32, "vit with registers": 32, "dinov2": 98, "dinov2 with registers": 98, "dinov3": 64}
METADATA: dict[str, Any] = {
    "stream": "hand_r",
    "algorithm": "dino",
    "step": 20,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "chirality": "one side, never flipped",
    "train_crops": 1000,
    "data_digest": "abc",
}
ABOUT = ExperimentConfig(tags=["a|b"])


def _written(arch: ViTArch, image_px: int, folder: Path) -> tuple[VisionTransformer, list[str]]:
    """The network with random weights, exported into ``folder``, and the card's pieces of code."""
    model = VisionTransformer(arch).eval()
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)  # at DINOv2's 1e-5 every block would be next to nothing
            elif name == "mask_token":
                parameter.fill_(0.5)
    metadata = METADATA | {"image_px": image_px}
    export_backbone(
        folder / "backbone.pt", arch, model.state_dict(), metadata, safetensors=folder / "backbone.safetensors"
    )
    records = [{"step": 20, "train/kl": 0.5}, {"step": 40, "train/kl": 0.1}]
    numbers = {"num_videos": 3, "num_probe_crops": 8}
    card = model_card(arch, metadata, records, {"seed": 0}, ABOUT, weights="backbone.pt", **numbers)
    assert "0.5 (KL of teacher and student)" in card  # at the exported step, not the last one
    photos = model_card(arch, {**metadata, "train_crops": 3}, [], {}, ABOUT, weights="backbone.pt", **numbers)
    assert "| 3 images; 8 held out |" in photos  # photos are no videos
    return model, re.findall(r"```python\n(.*?)```", card, flags=re.S)


def _run(code: str) -> nn.Module:
    """The model that a piece of code loads; its own last line has used it."""
    space: dict[str, Any] = {}
    exec(code, space)
    assert tuple(space["features"].shape) == (2, space["model"].embed_dim)
    return space["model"].eval()


def _class_token(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if not hasattr(model, "forward_features") or hasattr(model, "rope"):
            return model(images)
        tokens = model.forward_features(images)
        return tokens["x_norm_clstoken"] if isinstance(tokens, dict) else tokens[:, 0]


@pytest.mark.parametrize("name", ARCHS)
def test_the_cards_own_code_gives_the_same_class_token(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_px = IMAGE_PX[name]
    model, (ours, timm, *_) = _written(ARCHS[name], image_px, tmp_path)
    monkeypatch.chdir(tmp_path)
    images = torch.randn(2, 3, image_px, image_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    for code in (ours, ours.replace("backbone.pt", "backbone.safetensors"), timm, timm.replace(".safetensors", ".pt")):
        torch.testing.assert_close(_class_token(_run(code), images), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not HUB.is_dir(), reason=NOT_CACHED)
@pytest.mark.parametrize("name", [name for name in ARCHS if name != "dinov3"])
def test_torch_hubs_code_gives_the_same_class_token(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_px = IMAGE_PX[name]
    model, (_, _, hub) = _written(ARCHS[name], image_px, tmp_path)
    monkeypatch.chdir(tmp_path)
    images = torch.randn(1, 3, image_px, image_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(_class_token(_run(hub), images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "image_px", "said"),
    [
        ("dinov2", 98, "At 98 px its class token is then another one"),
        ("dinov2", 518, "At 518 px this makes no difference"),
        ("dinov2 with registers", 98, None),
        ("vit", 32, None),
    ],
)
def test_the_card_says_where_the_hubs_constructor_alone_gives_another_token(
    name: str, image_px: int, said: str | None
) -> None:
    numbers = {"num_videos": 3, "num_probe_crops": 8}
    metadata = METADATA | {"image_px": image_px}
    card = model_card(ARCHS[name], metadata, [], {}, ABOUT, weights="backbone.pt", **numbers)
    assert ("interpolate_antialias=True, interpolate_offset=0.0)" in card.split("torch.hub.load")[-1]) == (
        said is not None
    )
    assert said is None or said in card


def test_the_card_of_a_run_tells_what_it_is(make: Callable[..., PretrainConfig]) -> None:
    config = make(experiment={"name": "manos", "notes": "Primer | intento.", "tags": ["a", "b"]})
    folder = pretrain(config, "hand_r").parent
    card = (folder / "README.md").read_text(encoding="utf-8")
    metadata = torch.load(folder / "backbone.pt", weights_only=True)["metadata"]
    for text in (
        "# manos: hand_r, vit_tiny (192 wide, 1 blocks, patch 8)",
        "42 of 3 videos; 6 held out",
        metadata["data_digest"],
        "right hand: one side, never flipped",
        "0.485, 0.456, 0.406",
        "random weights",
        "`probe/rankme`",
        "Licence of the weights: **none was given.**",
        "Primer | intento.",
    ):
        assert text in card, text
    assert str(folder) not in card
    data, _ = read_card(card)
    assert (data["license"], data["license_name"], data["library_name"]) == ("other", "none-given", "signstreams")
    assert {"hand_r", "sign-language", "a", "b"} <= set(data["tags"])
