"""MSKA: the formulas against a slow version, padding that changes nothing, what the optimiser holds from the start."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from torch import Tensor

from signstreams.integrate.mska import (
    HEADS,
    GlossHead,
    HeadMix,
    JointAttention,
    MaskedBatchNorm,
    Mska,
    MskaBlock,
    Normed,
    num_steps,
    sinusoid,
    time_mask,
)
from signstreams.integrate.mska_settings import MskaLayers, MskaNorm
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


@pytest.mark.parametrize("layers", ["published", "reduced"])
@pytest.mark.parametrize(
    ("channels", "stride", "kernel", "frames"),
    [(8, 1, 3, 4), (12, 1, 3, 4), (12, 2, 7, 5), (12, 2, 7, 2), (8, 2, 3, 1)],
)
def test_a_block_agrees_with_the_slow_version(
    channels: int, stride: int, kernel: int, frames: int, layers: MskaLayers
) -> None:
    torch.manual_seed(1)
    sizes = {"stride": stride, "kernel": kernel, "num_heads": 2, "joints": 4}
    block = MskaBlock(8, channels, **sizes, drop=0.1, layers=layers).eval()
    residuals = block.mix_residual, block.feed_residual, block.time_residual
    widens, slows = channels != 8, stride != 1
    expected = [widens or slows] * 3 if layers == "published" else [widens, widens, slows]
    assert [isinstance(residual, Normed) for residual in residuals] == expected
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
# with BatchNorm not of two steps in all, of which a head makes -1 and 1, however little they differ
@pytest.mark.parametrize(
    ("frames", "norm"),
    [*(((t, n), "layer") for t, n in [(16, 11), (4, 3), (2, 1), (1, 1)]), ((16, 11), "batch"), ((12, 3), "batch")],
    ids=str,
)
def test_bf16_is_close_to_float32_forward_and_backward(frames: tuple[int, int], norm: MskaNorm) -> None:
    torch.manual_seed(0)
    model = Mska(SMALL.model_copy(update={"dropout": 0.0, "norm": norm}), 5)
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


PUBLISHED = {"left": 3_820_576, "right": 3_820_576, "face": 3_818_032, "body": 4_085_152}
"""Parameters of the encoders of sutwangyan/MSKA by configs/phoenix-2014t_s2g.yaml."""


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_papers_sizes_give_its_number_of_parameters(norm: MskaNorm) -> None:
    """LayerNorm learns as many values as BatchNorm: a weight and a bias per channel."""
    model = Mska(MskaConfig(norm=norm), None)
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in model.encoders.items()} == PUBLISHED
    # the embedding's norm; three projections of a residual, with their norms
    reduced = Mska(MskaConfig(layers="reduced"), None)
    fewer = 2 * 64 + 2 * (64 * 64 + 3 * 64) + (128 * 128 + 3 * 128)
    assert fewer == 25_472
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in reduced.encoders.items()}
    assert counts == {name: count - fewer for name, count in PUBLISHED.items()}


def test_a_model_of_an_earlier_version_computes_what_it_did() -> None:
    """Recorded with the code of before there were more layers (a0c2c8e)."""
    model = Mska(MskaConfig(channels=[8, 8, 12, 12], num_heads=2, head_dim=16, head_ff_dim=24, layers="reduced"), 5)
    layout = json.dumps([[name, list(tensor.shape)] for name, tensor in model.state_dict().items()])
    assert hashlib.sha256(layout.encode()).hexdigest()[:16] == "079e27e780376fb7"
    with torch.no_grad():
        for number, (_, p) in enumerate(model.named_parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=torch.float64) + number).view(p.shape) * 0.3)
    clips = torch.sin(torch.arange(2 * 11 * NUM_NODES * 3, dtype=torch.float64)).view(2, 11, NUM_NODES, 3).float()
    _, logits, _ = model.eval()(clips, torch.tensor([11, 6]))
    found = {head: scores[0, 1] for head, scores in logits.items()}
    recorded = {
        "fuse": [0.55678, -0.19714, -0.31392, -0.02214, -0.39562],
        "left": [0.19644, -0.47807, -0.17948, 0.34633, -0.09899],
        "right": [0.08436, -0.2069, 0.20088, 0.51266, -0.32558],
        "body": [0.59143, -0.02033, 0.31584, 0.07974, -0.61901],
    }
    torch.testing.assert_close(found, {head: torch.tensor(row) for head, row in recorded.items()}, atol=2e-5, rtol=0)


# -- BatchNorm


def test_batch_norm_is_pytorchs_over_the_frames_that_are_not_padding() -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(6).double(), torch.nn.BatchNorm1d(6).double()
    mask = time_mask(torch.tensor([5, 2, 4]), 5)  # (B, T)
    for step in range(3):
        x = torch.randn(3, 4, 5, 6, dtype=torch.float64) * (step + 1) + step  # (B, V, T, C)
        ours.train(), theirs.train()
        keep = mask[:, None].expand(3, 4, 5)
        torch.testing.assert_close(ours(x, mask)[keep], theirs(x[keep]))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        ours.eval(), theirs.eval()
        torch.testing.assert_close(ours(x, mask).flatten(0, 2), theirs(x.flatten(0, 2)))
    frames = x[:, 0]  # (B, T, C), as in the heads
    torch.testing.assert_close(ours.train()(frames, mask)[mask], theirs.train()(frames[mask]))
    torch.testing.assert_close(ours(frames)[mask], theirs(frames.flatten(0, 1)).view_as(frames)[mask])


def test_the_gradients_of_batch_norm_are_those_of_its_formula() -> None:
    torch.manual_seed(0)
    norm, mask = MaskedBatchNorm(2).double(), time_mask(torch.tensor([3, 1]), 3)
    norm.keeps_statistics = True
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm(x, mask) * mask[:, None, :, None], (x,))


def test_a_single_frame_has_no_statistics_to_follow() -> None:
    norm = MaskedBatchNorm(3).train()
    out = norm(torch.tensor([[[1.0, 2.0, 3.0], [9.0, 9.0, 9.0]]]), torch.tensor([[True, False]]))
    assert out.isfinite().all()
    assert torch.equal(norm.running_mean, torch.zeros(3)) and torch.equal(norm.running_var, torch.ones(3))


def test_statistics_forget_a_batch_that_overflowed() -> None:
    norm, fine = MaskedBatchNorm(3).train(), torch.randn(2, 4, 3)
    norm(fine)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    for bad in (torch.inf, torch.nan):
        norm(torch.where(torch.arange(4)[:, None] == 2, bad, fine))
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)
    norm(fine + 1)
    assert norm.running_mean.isfinite().all() and not torch.equal(norm.running_mean, before["running_mean"])


@pytest.mark.parametrize("training", [False, True])
def test_with_batch_norm_padding_changes_nothing(training: bool) -> None:
    torch.manual_seed(0)
    model = Mska(SMALL.model_copy(update={"dropout": 0.0, "norm": "batch"}), 5).train(training)
    clips, lengths = nodes(2, 14), torch.tensor([14, 6])
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for fill, extra in ((0.0, 0), (77.0, 9)):
        model.load_state_dict(first)
        padded = torch.cat((clips, clips.new_full((2, extra, NUM_NODES, 3), fill)), dim=1)
        padded[1, 6:] = fill
        _, logits, _ = model(padded, lengths)
        logits["fuse"][1, :2].sum().backward()
        found.append(({name: scores[1, :2] for name, scores in logits.items()}, dict(model.named_buffers())))
        found[-1] = tuple({name: t.detach().clone() for name, t in part.items()} for part in found[-1])
    (scores, buffers), (scores_b, buffers_b) = found
    torch.testing.assert_close(scores_b, scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(buffers_b, buffers, atol=1e-5, rtol=1e-5)
    alone = model(clips[1:, :6], lengths[1:])[1]["fuse"][0]
    assert torch.allclose(alone, scores["fuse"], atol=1e-4) != training  # of its batch-mates a clip learns in training


def test_statistics_follow_a_batch_once_where_activations_are_computed_again() -> None:
    clips, lengths, found = nodes(2, 12), torch.tensor([12, 7]), []
    for again in (False, True):
        torch.manual_seed(0)
        model = Mska(SMALL.model_copy(update={"norm": "batch"}), 5)
        for encoder in model.encoders.values():
            encoder.checkpoint_activations = again
        torch.manual_seed(1)
        model(clips, lengths)[1]["fuse"].square().mean().backward()
        found.append((dict(model.named_buffers()), [p.grad for p in model.encoders.parameters()]))
        assert not any(part.keeps_statistics for part in model.modules() if isinstance(part, MaskedBatchNorm))
    torch.testing.assert_close(found[1], found[0])
    assert found[0][0]["encoders.left.blocks.0.time_norm.num_batches_tracked"] == 1


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
