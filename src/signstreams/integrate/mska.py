"""Multi-stream keypoint attention (MSKA, arXiv 2405.05672; formulas as in sutwangyan/MSKA: recognition.py).

Two things differ from that code, on purpose: time is masked wherever frames are mixed (attention scores, temporal
convolutions, heads), and LayerNorm over the channels of one joint and frame replaces BatchNorm, unless the settings ask
for that. The output of a clip depends neither on padding nor on the other clips of its batch, in training as in
evaluation; with BatchNorm it depends on the others in training.

Letters: B clips, T frames, V joints, C channels, H heads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from signstreams.integrate.corpus_rules import num_steps
from signstreams.integrate.mska_settings import MskaLayers, MskaNorm
from signstreams.integrate.nodes import HAND_ROOTS, LEFT_NODES, NODE_STREAMS, STREAM_INDICES, STREAM_NODES, UNITS
from signstreams.integrate.settings import MskaConfig

FUSE = "fuse"  # the head of all streams
HEADS = (FUSE, "left", "right", "body")
HEAD_STREAMS = {"left": ("left", "face"), "right": ("right", "face"), "body": ("body",), FUSE: NODE_STREAMS}
NEGATIVE_SLOPE = 0.1
MIN_CONV_FRAMES = 3
"""oneDNN's bfloat16 convolution with stride 2 gives garbage on AMX when its output is one frame (torch 2.15)."""


def time_mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool: True on a clip's own frames."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def sinusoid(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """(length, dim) sine and cosine of positions (Vaswani et al. 2017), float32; ``dim`` is even."""
    position = torch.arange(length, dtype=torch.float32, device=device)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=device) * (-math.log(10000.0) / dim))
    table = torch.zeros(length, dim, device=device)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table


class FrameNorm(nn.LayerNorm):
    """LayerNorm over the channels of one joint and frame, which no other frame alters, padded or not."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., C) to (..., C); the mask is that of the other kind of norm."""
        return super().forward(input)


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm over the clips' own frames, and joints; padding counts for nothing (in MSKA only the heads' is masked).

    In float32 or float64 under autocast too. Nothing here waits for the device.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.keeps_statistics = False  # whether a training pass leaves the running ones as they are

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, ..., T, C) and (B, T) bool to (B, ..., T, C); without a mask, every frame counts."""
        assert self.running_mean is not None and self.running_var is not None
        x = input if input.dtype == torch.float64 else input.float()
        if not self.training:
            scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
            return torch.addcmul(self.bias - self.running_mean * scale, x, scale)
        axes = tuple(range(x.ndim - 1))
        keep = torch.ones_like(x[..., :1])
        if mask is not None:
            keep = keep * mask.view(len(mask), *(1,) * (x.ndim - 3), -1, 1)  # (B, ..., T, 1)
        count = keep.sum().clamp(min=1)
        mean = (x * keep).sum(dim=axes) / count  # (C,)
        x = x - mean
        variance = (x.square() * keep).sum(dim=axes) / count  # (C,)
        if not self.keeps_statistics:
            self._follow(mean.detach(), variance.detach(), count)
        return torch.addcmul(self.bias, x, self.weight * (variance + self.eps).rsqrt())

    def statistics(self) -> dict[str, Tensor]:
        """The running ones, by name."""
        assert self.running_mean is not None and self.running_var is not None
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of the batch; a single frame has no variance to follow, and a batch
        with an infinite value, whose step the trainer leaves out, would stay in them for ever.
        """
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        share = self.momentum * (count > 1).to(mean.dtype)
        is_finite = (mean.isfinite() & variance.isfinite()).all()
        unbiased = variance * count / (count - 1).clamp(min=1)  # as in PyTorch
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(torch.where(is_finite, running.lerp(new, share), running))
        self.num_batches_tracked.add_(is_finite.to(self.num_batches_tracked.dtype))


class Normed(nn.Sequential):
    """A layer and the norm of its output."""

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__(layer, norm)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """The layer's input and (B, T) bool, True on the clips' own frames."""
        out: Tensor = self[1](self[0](input), mask)
        return out


class Unchanged(nn.Identity):
    """A residual of the input itself."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        return input


class JointAttention(nn.Module):
    """One matrix of joint-to-joint weights per head and clip, applied to every frame.

    weight[u, v] = alpha * tanh(sum over frames and channels of Q[u] K[v] / (C' * T)) + G[u, v]: no softmax, no values.
    """

    joint_position: Tensor

    def __init__(self, channels: int, head_dim: int, num_heads: int, num_joints: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.query = nn.Linear(channels, num_heads * head_dim)
        self.key = nn.Linear(channels, num_heads * head_dim)
        self.alpha = nn.Parameter(torch.ones(num_heads, 1, 1))
        # the learned global matrix G; created here rather than in forward, so that the optimiser knows it
        self.global_matrix = nn.Parameter(torch.full((num_heads, num_joints, num_joints), 1.0 / num_joints))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("joint_position", sinusoid(num_joints, channels), persistent=False)

    def weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, V, T, C) and (B, T) bool to (B, H, V, V), source joint first."""
        batch, joints, frames, _ = x.shape
        positioned = x + self.joint_position[:, None]  # (B, V, T, C)
        shape = (batch, joints, frames, self.num_heads, self.head_dim)
        # padded frames drop out of the sum by their zero query
        query = self.query(positioned).view(shape).permute(0, 3, 1, 2, 4).contiguous()  # (B, H, V, T, C')
        query = query.mul_(mask[:, None, None, :, None]).flatten(3)  # (B, H, V, T * C')
        key = self.key(positioned).view(shape).permute(0, 3, 1, 2, 4).flatten(3)  # (B, H, V, T * C')
        scale = self.head_dim * mask.sum(dim=1).clamp(min=1)  # (B,)
        score = query @ key.transpose(-1, -2) / scale[:, None, None, None]  # (B, H, V, V)
        return torch.tanh(score) * self.alpha + self.global_matrix

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, V, T, C) to (B, H, V, T, C): each head's weighted sum over source joints."""
        batch, joints, frames, channels = x.shape
        weights: Tensor = self.dropout(self.weights(x, mask))
        targets = weights.transpose(-1, -2).reshape(batch, self.num_heads * joints, joints)  # (B, H * V, V)
        out = targets @ x.flatten(2)  # (B, H * V, T * C)
        return out.view(batch, self.num_heads, joints, frames, channels)


class _MixHeads(torch.autograd.Function):
    """(B, H, N, C) times (C', C, H, 1), summed over H and C, plus (C',), to (B, N, C').

    The forward pass is a convolution whose kernel spans the heads of a channels-last image, the backward pass one
    product per head: each is the fastest on a CPU, and neither copies the heads of a joint together
    (benchmarks/mska.py).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return F.conv2d(x.permute(0, 3, 1, 2), kernel, bias)[:, :, 0].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_kernel = torch.empty_like(x), torch.empty_like(kernel)
        for head in range(x.shape[1]):
            weight = kernel[:, :, head, 0]  # (C', C)
            torch.bmm(grad, weight.expand(len(x), -1, -1), out=grad_x[:, head])
            grad_kernel[:, :, head, 0] = torch.bmm(grad.transpose(1, 2), x[:, head]).sum(dim=0)
        return grad_x, grad_kernel, grad.sum(dim=(0, 1))


class HeadMix(nn.Linear):
    """A linear layer over the channels of all heads, which reads them in the layout that attention wrote."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, V, T, C) to (B, V, T, C')."""
        batch, heads, joints, frames, channels = x.shape
        kernel = self.weight.view(-1, heads, channels).transpose(1, 2)[..., None]  # (C', C, H, 1)
        kernel = kernel.to(x.dtype, memory_format=torch.channels_last)
        x = x.view(batch, heads, joints * frames, channels)
        out: Tensor = _MixHeads.apply(x, kernel, self.bias.to(x.dtype))
        return out.view(batch, joints, frames, -1)


class MskaBlock(nn.Module):
    """Joint attention, a joint-wise layer and a temporal convolution, each with its residual.

    A residual is projected where the block's input differs from its output in channels or frame rate, as in the
    authors' code; ``reduced``: where its own input differs from its own output.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        kernel: int,
        num_heads: int,
        joints: int,
        drop: float,
        norm: MskaNorm = "layer",
        layers: MskaLayers = "published",
    ) -> None:
        super().__init__()
        self.stride = stride
        self.attention = JointAttention(in_channels, out_channels // 4, num_heads, joints, drop)
        self.mix = Normed(HeadMix(num_heads * in_channels, out_channels), make_norm(norm, out_channels))
        self.feed = Normed(nn.Linear(out_channels, out_channels), make_norm(norm, out_channels))
        widens, slows = in_channels != out_channels, stride != 1
        if layers == "published":
            widens = slows = widens or slows
        self.mix_residual = _projection(in_channels, out_channels, norm) if widens else Unchanged()
        self.feed_residual = _projection(in_channels, out_channels, norm) if widens else Unchanged()
        self.time = nn.Conv2d(out_channels, out_channels, (1, kernel), (1, stride), (0, kernel // 2))
        self.time_norm = make_norm(norm, out_channels)
        self.time_residual = _projection(out_channels, out_channels, norm) if slows else Unchanged()

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, T, C), zero after ``lengths`` (B,), to (B, V, T', C') and new lengths; T' = ceil(T / stride)."""
        mask = time_mask(lengths, x.shape[2])  # (B, T)
        y = _activate(self.mix_residual(x, mask) + self.mix(self.attention(x, mask), mask))  # (B, V, T, C')
        y = _activate(self.feed_residual(x, mask) + self.feed(y, mask))  # both residuals are of the block's input
        y = y * mask[:, None, :, None]  # what the convolution's own padding is at the end of an unpadded clip
        num_missing = max(0, MIN_CONV_FRAMES - y.shape[2]) if self.stride > 1 else 0
        z = self.time(F.pad(y, (0, 0, 0, num_missing)).permute(0, 3, 1, 2))  # zeros, like its padding
        z = z[..., : math.ceil(y.shape[2] / self.stride)].permute(0, 2, 3, 1)  # (B, V, T', C')
        lengths = (lengths + self.stride - 1) // self.stride
        mask = time_mask(lengths, z.shape[2])  # (B, T')
        z = _activate(self.time_residual(y[:, :, :: self.stride], mask) + self.time_norm(z, mask))
        return z * mask[:, None, :, None], lengths


class MskaEncoder(nn.Module):
    """The blocks of one stream: (B, T, V, 3) to (B, ceil(T / 4), C), the mean over joints."""

    def __init__(self, num_joints: int, config: MskaConfig) -> None:
        super().__init__()
        self.checkpoint_activations = False  # keep only the blocks' inputs for the backward pass, recompute the rest
        widths = [config.channels[0], *config.channels]
        self.embed = nn.Linear(3, widths[0])
        self.embed_norm = make_norm(config.norm, widths[0]) if config.layers == "published" else None
        self.blocks = nn.ModuleList(
            MskaBlock(
                widths[i],
                widths[i + 1],
                stride=2 if i in (0, len(config.channels) // 2) else 1,
                kernel=7 if i == 0 else 3,
                num_heads=config.num_heads,
                joints=num_joints,
                drop=config.dropout,
                norm=config.norm,
                layers=config.layers,
            )
            for i in range(len(config.channels))
        )

    def forward(self, nodes: Tensor, lengths: Tensor) -> Tensor:
        """Nodes (B, T, V, 3) of clips of ``lengths`` (B,) frames; later ones are ignored."""
        x: Tensor = self.embed(nodes.transpose(1, 2))  # (B, V, T, C), joints first: attention contracts them
        mask = time_mask(lengths, nodes.shape[1])  # (B, T)
        if self.embed_norm is not None:
            x = _activate(self.embed_norm(x, mask))
        x = x * mask[:, None, :, None]
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                contexts = partial(_when_computed_again, block)
                x, lengths = checkpoint(block, x, lengths, use_reentrant=False, context_fn=contexts)
            else:
                x, lengths = block(x, lengths)
        return x.mean(dim=1)  # (B, T / 4, C)


class GlossHead(nn.Module):
    """Features of some streams to gloss logits (sutwangyan/MSKA: Visualhead.py), time masked.

    ``num_glosses`` is the size of the gloss vocabulary with its blank; None: features only.
    """

    def __init__(self, in_channels: int, num_glosses: int | None, config: MskaConfig) -> None:
        super().__init__()
        dim, eps = config.head_dim, 1e-6 if config.norm == "batch" else 1e-5  # of the authors; of earlier runs
        self.dim = dim
        self.embed = Normed(nn.Linear(in_channels, dim), make_norm(config.norm, dim))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim, eps)
        self.conv_in = nn.Conv1d(dim, config.head_ff_dim, 3, padding=1)
        self.conv_out = nn.Conv1d(config.head_ff_dim, dim, 3, padding=1)
        self.out_norm = nn.LayerNorm(dim, eps)
        self.classify = nn.Linear(dim, num_glosses) if num_glosses is not None else None

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, S, C) and (B, S) bool to features (B, S, D), zero where masked, and logits (B, S, G)."""
        x = F.relu(self.embed(x, mask))
        x = self.dropout(x + sinusoid(x.shape[1], self.dim, x.device).to(x.dtype))  # (B, S, D)
        keep = mask[:, None, :]  # (B, 1, S)
        y = self.norm(x).transpose(1, 2) * keep  # (B, D, S)
        y = self.dropout(F.relu(self.conv_in(y))) * keep
        y = self.dropout(self.conv_out(y)).transpose(1, 2)  # (B, S, D)
        features = self.out_norm(x + y) * mask[:, :, None]
        return features, None if self.classify is None else self.classify(features)


class Mska(nn.Module):
    """Four stream encoders that share nothing, and their heads; without glosses only the fuse head's features."""

    def __init__(self, config: MskaConfig, num_glosses: int | None) -> None:
        super().__init__()
        self.root_relative_hands = config.root_relative_hands
        self.channels = config.channels[-1]
        self.encoders = nn.ModuleDict({s: MskaEncoder(len(nodes), config) for s, nodes in STREAM_NODES.items()})
        wanted = HEADS if num_glosses is not None else (FUSE,) if config.gloss_fusion != "none" else ()
        self.heads = nn.ModuleDict(
            {name: GlossHead(self.channels * len(HEAD_STREAMS[name]), num_glosses, config) for name in wanted}
        )
        for stream, indices in STREAM_INDICES.items():
            self.register_buffer(f"indices_{stream}", torch.tensor(indices), persistent=False)

    def forward(self, nodes: Tensor, lengths: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
        """Nodes (B, T, 79, 3) and frames (B,) of clips to the outputs of all streams and heads.

        Stream to (B, S, C); head to logits (B, S, G), empty without glosses; the fuse head's features (B, S, D) or
        None. S = ceil(T / 4).
        """
        streams = {stream: encoder(self._select(stream, nodes), lengths) for stream, encoder in self.encoders.items()}
        mask = time_mask(num_steps(lengths), streams["body"].shape[1])
        logits, fused = {}, None
        for name, head in self.heads.items():
            features, scores = head(torch.cat([streams[s] for s in HEAD_STREAMS[name]], dim=-1), mask)
            if name == FUSE:
                fused = features
            if scores is not None:
                logits[name] = scores
        return streams, logits, fused

    def _select(self, stream: str, nodes: Tensor) -> Tensor:
        """(B, T, 79, 3) to the stream's (B, T, V, 3)."""
        chosen = nodes[:, :, getattr(self, f"indices_{stream}")]
        if stream not in HAND_ROOTS or not self.root_relative_hands:
            return chosen
        root = STREAM_NODES[stream].index((HAND_ROOTS[stream],))
        arm, hand = chosen[:, :, :root], chosen[:, :, root:]
        present = hand[..., 2:] > 0
        # in half shoulder widths, so that a hand fills the range that a body does
        place = (hand[..., :2] - hand[:, :, :1, :2]) * UNITS * (present & present[:, :, :1])
        return torch.cat((arm, torch.cat((place, hand[..., 2:]), dim=-1)), dim=2)


assert [name[0].startswith("hand_l.") for name in LEFT_NODES] == [False] * 6 + [True] * 21


def make_norm(kind: MskaNorm, channels: int) -> nn.Module:
    """The norm of a layer, which takes (B, ..., T, C) and a mask (B, T)."""
    return MaskedBatchNorm(channels) if kind == "batch" else FrameNorm(channels)


def _projection(in_channels: int, out_channels: int, norm: MskaNorm) -> nn.Module:
    return Normed(nn.Linear(in_channels, out_channels), make_norm(norm, out_channels))


def _activate(total: Tensor) -> Tensor:
    """In place, since nothing else uses the sum."""
    return F.leaky_relu(total, NEGATIVE_SLOPE, inplace=True)


def _when_computed_again(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a first pass and of one that recomputes it: running statistics follow a batch once."""
    return contextlib.nullcontext(), _statistics_stay(module)


@contextlib.contextmanager
def _statistics_stay(module: nn.Module) -> Iterator[None]:
    norms = [part for part in module.modules() if isinstance(part, MaskedBatchNorm)]
    for norm in norms:
        norm.keeps_statistics = True
    try:
        yield
    finally:
        for norm in norms:
            norm.keeps_statistics = False
