"""The whole model: what may change its output and what may not, and its learning-rate groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.integrate.batches import Batch, Sample, collate
from signstreams.integrate.model import Encoded, MultistreamModel
from signstreams.integrate.settings import DecodingConfig, IntegrateConfig
from signstreams.integrate.training import make_optimizer
from signstreams.streams import STREAMS

from .models import DIM, decoder_of, model_of, sample

Build = Callable[..., IntegrateConfig]
GREEDY = DecodingConfig(num_beams=1)


def outputs(model: MultistreamModel, batch: Batch) -> tuple[Encoded, torch.Tensor]:
    with torch.no_grad():
        encoded = model.encode(batch)
        return encoded, model.text_logits(encoded, batch.tokens)


def changed(clip: Sample, stream: str, frames: slice, value: float) -> Sample:
    features = clip.features[stream].copy()
    features[frames] = value
    return replace(clip, features={**clip.features, stream: features})


@pytest.mark.parametrize("fusion", ["add", "concat", "none"])
def test_a_present_hand_changes_the_output_and_a_missing_one_never_does(tiny_config: Build, fusion: str) -> None:
    model = model_of(tiny_config(mska={"gloss_fusion": fusion}))
    clip = sample(11)
    before = outputs(model, collate([clip]))[1]
    for stream in STREAMS:
        after = outputs(model, collate([changed(clip, stream, slice(0, 3), 2.0)]))[1]
        assert not torch.allclose(before, after, atol=1e-5), stream
    for value in (0.0, 99.0, float("nan")):
        after = outputs(model, collate([changed(clip, "hand_l", slice(11 // 2, None), value)]))[1]
        assert torch.equal(before, after)


def test_pose_and_keypoints_change_the_output_of_both_decoders(tiny_config: Build) -> None:
    model = model_of(tiny_config())
    clip = sample(9)
    encoded, text = outputs(model, collate([clip]))
    nodes = replace(clip, nodes=clip.nodes + np.float32(0.2))
    encoded_b, text_b = outputs(model, collate([nodes]))
    assert not torch.allclose(text, text_b, atol=1e-5)
    assert not torch.allclose(encoded.gloss_logits["fuse"], encoded_b.gloss_logits["fuse"], atol=1e-5)
    pose = replace(clip, pose=clip.pose[:, ::-1].copy())
    assert not torch.allclose(text, outputs(model, collate([pose]))[1], atol=1e-5)


@pytest.mark.parametrize("length", [1, 4, 7])
@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_a_clip_alone_and_padded_in_a_batch_give_equal_logits(tiny_config: Build, length: int, fusion: str) -> None:
    model = model_of(tiny_config(mska={"gloss_fusion": fusion}))
    clip = sample(length, tokens=3)
    alone, text = outputs(model, collate([clip]))
    together, text_b = outputs(model, collate([sample(17, seed=1, tokens=7), clip]))
    steps = alone.memory.shape[1]
    assert together.mask.sum(dim=1)[1] == alone.mask.sum() == steps
    torch.testing.assert_close(together.memory[1, :steps], alone.memory[0], atol=1e-5, rtol=1e-5)
    assert not together.memory[1, steps:].any()
    torch.testing.assert_close(text_b[1, : text.shape[1]], text[0], atol=1e-5, rtol=1e-5)
    for head, logits in alone.gloss_logits.items():
        torch.testing.assert_close(together.gloss_logits[head][1, :steps], logits[0], atol=1e-5, rtol=1e-5)
    assert model.translate(together, GREEDY)[1][:5] == model.translate(alone, GREEDY)[0][:5]


def test_the_tail_of_a_short_clip_matters(tiny_config: Build) -> None:
    model = model_of(tiny_config())
    clip = sample(9, missing="face")
    batch = [sample(30, seed=1), clip]
    tail = changed(clip, "hand_r", slice(8, 9), 3.0)
    before, after = (outputs(model, collate([batch[0], other]))[1][1] for other in (clip, tail))
    assert not torch.allclose(before, after, atol=1e-5)


def test_every_trainable_parameter_gets_a_gradient(tiny_config: Build) -> None:
    model = model_of(tiny_config(mska={"gloss_fusion": "concat"}))
    batch = collate([sample(9), sample(6, seed=2)])
    encoded = model.encode(batch)
    loss = model.text_logits(encoded, batch.tokens).square().sum()
    loss = loss + sum(scores.square().sum() for scores in encoded.gloss_logits.values())
    loss.backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # only the left hand is missing anywhere in these clips
    assert without == {f"fusion.projectors.{stream}.missing" for stream in ("face", "hand_r", "pose")}


def test_a_trained_backbone_sees_present_crops_only_and_learns(
    tiny_config: Build, backbone_specs: dict[str, str]
) -> None:
    config = tiny_config(model={"freeze_hand_left_backbone": False})
    backbone = load_dinov2_backbone(backbone_specs["hand_left_backbone"])
    torch.manual_seed(0)
    dims = {"face": DIM, "hand_l": backbone.embed_dim, "hand_r": DIM, "pose": 21}
    model = MultistreamModel(
        config, feature_dims=dims, backbones={"hand_l": backbone}, num_glosses=5, decoder=decoder_of(config)
    ).train()
    clip = sample(6)
    clip = replace(
        clip, features={s: v for s, v in clip.features.items() if s != "hand_l"}, crops={"hand_l": [None] * 6}
    )
    images = torch.randint(0, 255, (3, 16, 16, 3), dtype=torch.uint8)
    batch = replace(collate([clip]), images={"hand_l": images}, image_rows={"hand_l": torch.arange(3)})
    encoded = model.encode(batch)
    encoded.memory.square().sum().backward()
    assert backbone.model.patch_embed.proj.weight.grad.abs().sum() > 0
    assert {group["name"] for group in make_optimizer(config, model).param_groups} == {
        "backbone",
        "mska",
        "encoder",
        "decoder",
    }


def test_greedy_decoding_agrees_with_picking_the_best_token_each_time(tiny_config: Build) -> None:
    model = model_of(tiny_config(decoder={"max_tokens": 6}))
    encoded = model.encode(collate([sample(9)]))
    tokens: list[int] = []
    while len(tokens) < 6 and 1 not in tokens:
        logits = model.text_logits(encoded, torch.tensor([[*tokens, 0]]))[0, len(tokens)]
        logits[[0, 2]] = -torch.inf
        tokens.append(int(logits.argmax()))
    assert model.translate(encoded, GREEDY)[0] == tokens


def test_streams_are_hidden_at_random_in_training_alone(tiny_config: Build) -> None:
    config = tiny_config(model={"dropout": 0, "stream_dropout": 0.5}, mska={"dropout": 0})
    model = model_of(config)
    batch = collate([sample(16, seed) for seed in range(12)])
    whole, again = (outputs(model, batch)[0].memory for _ in range(2))
    assert torch.equal(whole, again)
    model.train()
    torch.manual_seed(3)
    first, second = (outputs(model, batch)[0].memory for _ in range(2))
    changed = (first != second).flatten(1).any(dim=1)
    assert changed.any()
    for name in ("face", "hand_r", "pose"):  # what is hidden cannot matter, what is seen must
        moved = replace(batch, features=batch.features | {name: -batch.features[name]})
        torch.manual_seed(3)
        differs = (outputs(model, moved)[0].memory != first).flatten(1).any(dim=1)
        assert 0 < differs.sum() < len(differs), name
    never = model_of(tiny_config(model={"dropout": 0, "stream_dropout": 0}, mska={"dropout": 0})).train()
    torch.testing.assert_close(outputs(never, batch)[0].memory, whole)


@pytest.mark.parametrize("fusion", ["add", "concat", "none"])
def test_hidden_keypoints_do_not_reach_the_text(fusion: str, tiny_config: Build) -> None:
    """MSKA is one stream: whatever of it enters the memory, all of it is hidden from a clip or none."""
    settings = {"model": {"dropout": 0, "stream_dropout": 0.5}, "mska": {"dropout": 0, "gloss_fusion": fusion}}
    model = model_of(tiny_config(decoder={"dropout": 0}, **settings)).train()
    batch = collate([sample(16, seed) for seed in range(24)])
    moved = replace(batch, nodes=-batch.nodes)

    torch.manual_seed(3)
    kept = model.fusion.draw_kept(batch.lengths)["mska"].flatten()
    torch.manual_seed(3)  # the same streams are drawn again
    first = outputs(model, batch)[1]
    torch.manual_seed(3)
    differs = (outputs(model, moved)[1] != first).flatten(1).any(dim=1)
    assert 0 < kept.sum() < len(kept) and torch.equal(differs, kept)
