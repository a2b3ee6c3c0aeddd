"""Groups of parameters: which decay, how fast each layer learns, and what a step writes into them."""

from __future__ import annotations

from typing import Any

import pytest

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer
from signstreams.pretrain.network import DinoHead, MultiCropNet
from signstreams.pretrain.trainer import backbone_ramp, parameter_groups, rate_factor, set_rates


def _network(depth: int = 3) -> MultiCropNet:
    arch = resolve("vit_tiny", image_px=16, patch_px=8, depth=depth, layer_scale_init=0.1, num_registers=2)
    head = DinoHead(192, 8, hidden_dim=16, bottleneck_dim=8, batch_norm=True)
    return MultiCropNet(VisionTransformer(arch), head)


def test_norms_biases_and_tokens_have_no_weight_decay() -> None:
    network = _network()
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, depth=3)
    decayed, free = (
        {names[id(p)] for group in groups if group["is_decayed"] == is_decayed for p in group["params"]}
        for is_decayed in (True, False)
    )
    assert all(name.endswith(("weight", "weight_v")) and "norm" not in name for name in decayed)
    for part in ("cls_token", "pos_embed", "register_tokens", "gamma", "bias", "norm1.weight"):
        assert any(name.endswith(part) for name in free), part
    assert "head.mlp.1.weight" in free  # the scale of a batch norm
    assert {*decayed, *free} == set(names.values()) - {"backbone.mask_token"}  # which is frozen


def test_rates_are_those_of_dinov2() -> None:
    """Twelve blocks, decay .9: embeddings .254, patch embedding .051, heads 1 (ssl_pretraining.md)."""
    known = {"depth": 12, "layer_decay": 0.9, "patch_embed_factor": 0.2}
    assert rate_factor("backbone.pos_embed", **known) == pytest.approx(0.254, abs=1e-3)
    assert rate_factor("backbone.patch_embed.proj.weight", **known) == pytest.approx(0.051, abs=1e-3)
    assert rate_factor("head.mlp.0.weight", **known) == rate_factor("backbone.norm.weight", **known) == 1.0


def test_each_block_learns_at_a_share_of_the_next_ones_rate() -> None:
    known = {"depth": 4, "layer_decay": 0.5, "patch_embed_factor": 0.1}
    blocks = [rate_factor(f"backbone.blocks.{i}.mlp.fc1.weight", **known) for i in range(4)]
    assert blocks == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    for name in ("cls_token", "pos_embed", "register_tokens", "mask_token"):
        assert rate_factor(f"backbone.{name}", **known) == 1 / 32, name
    assert rate_factor("backbone.patch_embed.proj.bias", **known) == pytest.approx(0.1 / 32)
    assert rate_factor("patch_head.prototypes.weight_v", **known) == 1.0


def test_every_parameter_is_in_the_one_group_of_its_treatment() -> None:
    network = _network()
    groups = parameter_groups(network, depth=3, layer_decay=0.5, patch_embed_factor=0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    treatments = [(group["is_backbone"], group["is_decayed"], group["factor"]) for group in groups]
    assert len(set(treatments)) == len(treatments)
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            group = of[id(parameter)]
            expected = rate_factor(name, depth=3, layer_decay=0.5, patch_embed_factor=0.1)
            assert (group["factor"], group["is_backbone"]) == (expected, name.startswith("backbone.")), name


def test_the_backbone_rests_and_then_warms_up() -> None:
    found = [backbone_ramp(step, head_only_steps=3, warmup_steps=4) for step in range(9)]
    assert found == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [backbone_ramp(step, head_only_steps=2, warmup_steps=0) for step in range(4)] == [0, 0, 1, 1]
    assert backbone_ramp(0, head_only_steps=0, warmup_steps=4) == 1  # the schedule of the rate has its own


def test_a_step_writes_its_rates_into_every_group() -> None:
    groups: list[dict[str, Any]] = [
        {"is_backbone": is_backbone, "is_decayed": is_decayed, "factor": factor}
        for is_backbone, is_decayed, factor in ((True, True, 0.5), (True, False, 0.25), (False, True, 1.0))
    ]
    set_rates(groups, {"lr": 8.0, "lr_backbone": 4.0, "weight_decay": 0.3})
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(2.0, 0.3), (1.0, 0.0), (8.0, 0.3)]
