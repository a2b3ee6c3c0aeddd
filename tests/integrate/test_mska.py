"""MSKA: the formulas against a slow version, padding that changes nothing, what the optimiser holds from the start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from signstreams.integrate.mska import (
    HEADS,
    GlossHead,
    HeadMix,
    JointAttention,
    Mska,
    MskaBlock,
    num_steps,
    sinusoid,
    time_mask,
)
from signstreams.integrate.nodes import NUM_NODES, STREAM_NODES
from signstreams.integrate.settings import MskaConfig

SMALL = MskaConfig(channels=[8, 12, 16], num_heads=2, head_dim=16, head_ff_dim=24)


def nodes(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, frames, NUM_NODES, 3, generator=torch.Generator().manual_seed(seed)) + 0.01


def slow_attention(layer: JointAttention, x: Tensor) -> Tensor:
    """The paper's formulas for one clip (T, V, C), loop by loop."""
    frames, joints, channels = x.shape
    positioned = [[x[t, v] + sinusoid(joints, channels)[v] for v in range(joints)] for t in range(frames)]
    out = torch.zeros(frames, joints, layer.num_heads, channels)
    for head in range(layer.num_heads):
        rows = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
        for u in range(joints):
            for v in range(joints):
                score = torch.zeros(())
                for t in range(frames):
                    query = layer.query.weight[rows] @ positioned[t][u] + layer.query.bias[rows]
                    key = layer.key.weight[rows] @ positioned[t][v] + layer.key.bias[rows]
                    score = score + query @ key
                weight = torch.tanh(score / (layer.head_dim * frames)) * layer.alpha[head, 0, 0]
                weight = weight + layer.global_matrix[head, u, v]
                for t in range(frames):
                    out[t, v, head] += weight * x[t, u]
    return out.flatten(2)


def slow_block(block: MskaBlock, x: Tensor) -> Tensor:
    """One clip (T, V, C) through a block, frame by frame."""

    def leaky(value: Tensor) -> Tensor:
        return torch.where(value > 0, value, 0.1 * value)

    mix, norm = block.mix
    mixed = torch.nn.functional.linear(slow_attention(block.attention, x), mix.weight, mix.bias)
    y = leaky(block.mix_residual(x) + norm(mixed))
    y = leaky(block.feed_residual(x) + block.feed(y))
    kernel = block.time.weight[:, :, 0]  # (C', C', K)
    reach = kernel.shape[-1] // 2
    steps = []
    for centre in range(0, len(x), block.stride):
        total = block.time.bias.expand(x.shape[1], -1)
        for tap in range(kernel.shape[-1]):
            t = centre + tap - reach
            if 0 <= t < len(x):
                total = total + y[t] @ kernel[..., tap].T
        steps.append(leaky(block.time_residual(y[centre]) + block.time_norm(total)))
    return torch.stack(steps)


def test_attention_follows_the_papers_formulas() -> None:
    torch.manual_seed(0)
    layer = JointAttention(4, 2, 3, 5, dropout=0.1).eval()
    torch.nn.init.normal_(layer.global_matrix)
    torch.nn.init.normal_(layer.alpha)
    x = torch.randn(2, 4, 5, 4)
    fast = layer(x.transpose(1, 2), torch.ones(2, 4, dtype=torch.bool))  # (B, H, V, T, C)
    fast = fast.permute(0, 3, 2, 1, 4).flatten(3)
    torch.testing.assert_close(fast, torch.stack([slow_attention(layer, clip) for clip in x]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "stride", "kernel", "frames"), [(8, 1, 3, 4), (12, 2, 7, 5), (12, 2, 7, 2), (8, 2, 3, 1)]
)
def test_a_block_agrees_with_the_slow_version(channels: int, stride: int, kernel: int, frames: int) -> None:
    torch.manual_seed(1)
    block = MskaBlock(8, channels, stride=stride, kernel=kernel, num_heads=2, joints=4, drop=0.1).eval()
    x = torch.randn(1, frames, 4, 8)
    fast, lengths = block(x.transpose(1, 2), torch.tensor([frames]))
    fast = fast.transpose(1, 2)
    assert lengths.item() == math.ceil(frames / stride) == fast.shape[1]
    torch.testing.assert_close(fast[0], slow_block(block, x[0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [4, 6])
def test_heads_are_mixed_as_a_linear_layer_does_and_so_are_the_gradients(channels: int) -> None:
    torch.manual_seed(0)
    layer = HeadMix(3 * 4, channels).double()
    x = torch.randn(2, 3, 5, 7, 4, dtype=torch.float64, requires_grad=True)  # (B, H, V, T, C)
    together = x.permute(0, 2, 3, 1, 4).flatten(3)  # (B, V, T, H * C)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(together, layer.weight, layer.bias))
    assert torch.autograd.gradcheck(
        lambda x, weight, bias: torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,)),
        (x, layer.weight, layer.bias),
    )


@pytest.mark.filterwarnings("ignore:.*autocast.*")
@pytest.mark.parametrize("frames", [(16, 11), (4, 3), (2, 1), (1, 1)], ids=str)
def test_bf16_is_close_to_float32_forward_and_backward(frames: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Mska(SMALL.model_copy(update={"dropout": 0.0}), 5)
    clips, lengths = nodes(2, frames[0]), torch.tensor(frames)
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            _, logits, _ = model(clips, lengths)
        logits["fuse"].float().square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.encoders.parameters() if p.grad is not None])
        found.append((logits["fuse"].float(), gradient))
    (exact, exact_gradient), (rough, rough_gradient) = found
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert torch.cosine_similarity(rough_gradient, exact_gradient, dim=0) > 0.96


def test_weights_may_be_negative_and_do_not_sum_to_one() -> None:
    torch.manual_seed(0)
    layer = JointAttention(8, 4, 2, 6, dropout=0.0)
    weights = layer.weights(10 * torch.randn(1, 6, 3, 8), torch.ones(1, 3, dtype=torch.bool))
    assert weights.min() < 0
    assert not torch.allclose(weights.sum(-1), torch.ones(()))
    assert (weights - layer.global_matrix).abs().max() <= 1


def test_global_matrices_start_at_one_over_the_joints_and_get_a_gradient() -> None:
    model = Mska(SMALL, 5)
    matrices = {name: p for name, p in model.named_parameters() if name.endswith("global_matrix")}
    assert len(matrices) == len(STREAM_NODES) * len(SMALL.channels)
    _, logits, _ = model(nodes(2, 9), torch.tensor([9, 7]))
    sum(scores.sum() for scores in logits.values()).backward()
    for name, matrix in matrices.items():
        num_joints = len(STREAM_NODES[name.split(".")[1]])
        assert torch.equal(matrix.data, torch.full((2, num_joints, num_joints), 1 / num_joints))
        assert matrix.grad is not None and matrix.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 9])
def test_padding_and_batch_mates_change_no_stream_and_no_head(length: int, training: bool) -> None:
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"dropout": 0.0})
    model = Mska(config, 5).train(training)
    alone = nodes(1, length)
    padded = torch.cat((alone, 100 * torch.ones(1, 14 - length, NUM_NODES, 3)), dim=1)
    together = torch.cat((nodes(1, 14, seed=1), padded))
    streams, logits, fused = model(alone, torch.tensor([length]))
    streams_b, logits_b, fused_b = model(together, torch.tensor([14, length]))
    steps = math.ceil(length / 4)
    assert num_steps(torch.tensor([length])).item() == steps == logits["fuse"].shape[1]
    assert set(logits) == set(HEADS)
    for name in logits:
        torch.testing.assert_close(logits_b[name][1, :steps], logits[name][0], atol=1e-5, rtol=1e-5)
    for name in streams:
        torch.testing.assert_close(streams_b[name][1, :steps], streams[name][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused_b[1, :steps], fused[0], atol=1e-5, rtol=1e-5)


def test_the_last_frame_of_a_clip_matters() -> None:
    torch.manual_seed(0)
    model = Mska(SMALL, 5).eval()
    clip = nodes(1, 9)
    changed = clip.clone()
    changed[:, -1] += 0.5
    lengths = torch.tensor([9])
    assert not torch.allclose(model(clip, lengths)[1]["body"], model(changed, lengths)[1]["body"], atol=1e-4)


def test_hands_move_with_their_wrist_only_in_the_body_stream() -> None:
    torch.manual_seed(0)
    clip, lengths = nodes(1, 8), torch.tensor([8])
    moved = clip.clone()
    from signstreams.integrate.nodes import BODY_NODES

    hand = [row for row, node in enumerate(BODY_NODES) if node[0].startswith("hand_l.")]
    moved[:, :, hand, 0] += 0.3
    for relative in (True, False):
        model = Mska(SMALL.model_copy(update={"root_relative_hands": relative}), 5).eval()
        before, after = model(clip, lengths)[0], model(moved, lengths)[0]
        assert torch.allclose(before["left"], after["left"], atol=1e-4) == relative
        assert not torch.allclose(before["body"], after["body"], atol=1e-4)
        torch.testing.assert_close(before["right"], after["right"])


def test_without_glosses_only_the_fuse_heads_features_remain() -> None:
    _, logits, fused = Mska(SMALL, None)(nodes(1, 8), torch.tensor([8]))
    assert logits == {} and fused is not None
    alone = Mska(SMALL.model_copy(update={"gloss_fusion": "none"}), None)
    assert alone(nodes(1, 8), torch.tensor([8]))[2] is None and len(alone.heads) == 0


def test_the_papers_sizes_give_its_number_of_parameters() -> None:
    model = Mska(MskaConfig(), None)
    millions = {name: sum(p.numel() for p in encoder.parameters()) / 1e6 for name, encoder in model.encoders.items()}
    # 3.82, 3.82, 3.82 and 4.09 in sutwangyan/MSKA (mska_multistream.md, I.2)
    assert millions == pytest.approx({"left": 3.82, "right": 3.82, "face": 3.82, "body": 4.09}, rel=0.02)


def test_a_head_ignores_what_lies_in_padding() -> None:
    torch.manual_seed(0)
    head = GlossHead(6, 4, SMALL).eval()
    x = torch.randn(1, 7, 6)
    mask = time_mask(torch.tensor([4]), 7)
    other = x.clone()
    other[:, 4:] = 99.0
    torch.testing.assert_close(head(x, mask)[1][:, :4], head(other, mask)[1][:, :4])


def test_checkpointed_activations_give_the_same_gradients_from_less() -> None:
    clips, lengths = nodes(2, 24), torch.tensor([24, 17])
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Mska(SMALL, 5)
        for encoder in model.encoders.values():
            encoder.checkpoint_activations = again
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nelement()
            return tensor

        torch.manual_seed(1)  # dropout is drawn alike when a block is computed again
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            _, logits, _ = model(clips, lengths)
        logits["fuse"].square().mean().backward()
        found.append((kept, [p.grad for p in model.encoders.parameters()]))
    (plain, gradients), (checkpointed, again_gradients) = found
    assert checkpointed < plain / 4
    for one, other in zip(gradients, again_gradients, strict=True):
        torch.testing.assert_close(one, other)
