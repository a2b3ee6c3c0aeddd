"""Streams over time into one memory: projection, missing-stream embedding, stride 4, Transformer encoder.

Letters: B clips, T frames, S = ceil(T / 4) steps, D features, P projection width, M model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from signstreams.config.integrate_model import ModelConfig
from signstreams.integrate.mska import TIME_STRIDE, num_steps, sinusoid, time_mask

POOL_KERNEL = 7
FIRST_GATE = 0.1
"""Share with which the streams of MSKA enter at first: beside features of pretrained backbones those of an encoder that
knows nothing yet are noise, four times as large, and the run spends itself on turning them down."""


class StreamProjector(nn.Module):
    """Features of one visual stream to steps aligned with MSKA's (SignMusketeers projects its streams alike).

    A frame in which the stream is missing gives a learned embedding, whatever stands in its place.

    Args:
        num_layers: Of a backbone whose every block gives features: their weighted sum is learned, from equal weights.
    """

    def __init__(self, in_dim: int, out_dim: int, dropout: float, num_layers: int | None = None) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(num_layers)) if num_layers else None
        self.project = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, out_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(out_dim, out_dim),
        )
        self.missing = nn.Parameter(torch.zeros(out_dim))
        # step s is centred on frame 4 s, as the two strided convolutions of MSKA are
        self.pool = nn.Conv1d(out_dim, out_dim, POOL_KERNEL, TIME_STRIDE, POOL_KERNEL // 2)

    def forward(self, features: Tensor, present: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, D) or (B, T, L, D), where they are there (B, T) bool, and frames (B,), to (B, S, P)."""
        if self.layer_weights is not None:
            features = torch.einsum("btld,l->btd", features, self.layer_weights.softmax(dim=0))
        x = torch.where(present[..., None], features, 0.0)  # NaN or noise in a missing frame goes no further
        x = torch.where(present[..., None], self.project(x), self.missing)  # (B, T, P)
        x = x * time_mask(lengths, x.shape[1])[..., None]  # padding looks like the end of the clip
        pooled: Tensor = self.pool(x.transpose(1, 2))  # (B, P, S)
        return pooled.transpose(1, 2)


class FusionEncoder(nn.Module):
    """All streams of a step, side by side, through a Transformer over time.

    Args:
        visual_dims: Stream with frames to its feature width.
        num_layers: Stream whose features come from several blocks to their number.
        step_dims: Stream that already is at stride 4 (MSKA) to its width.
    """

    def __init__(
        self, visual_dims: dict[str, int], step_dims: dict[str, int], num_layers: dict[str, int], config: ModelConfig
    ) -> None:
        super().__init__()
        width = config.projection_dim
        self.projectors = nn.ModuleDict(
            {
                name: StreamProjector(dim, width, config.dropout, num_layers.get(name))
                for name, dim in visual_dims.items()
            }
        )
        self.step_projectors = nn.ModuleDict(
            {name: nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width)) for name, dim in step_dims.items()}
        )
        self.gates = nn.ParameterDict({name: nn.Parameter(torch.full((width,), FIRST_GATE)) for name in step_dims})
        num_streams = len(visual_dims) + len(step_dims)
        self.fuse = nn.Sequential(nn.LayerNorm(num_streams * width), nn.Linear(num_streams * width, config.d_model))
        self.dropout = nn.Dropout(config.dropout)
        self.stream_dropout = config.stream_dropout
        layer = nn.TransformerEncoderLayer(
            config.d_model,
            config.num_heads,
            config.ff_dim,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.num_layers, norm=nn.LayerNorm(config.d_model), enable_nested_tensor=False
        )

    def forward(
        self, visual: dict[str, tuple[Tensor, Tensor]], steps: dict[str, Tensor], lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Streams to memory.

        Args:
            visual: Stream to features (B, T, D) or (B, T, L, D) and presence (B, T).
            steps: Stream to (B, S, C).
            lengths: (B,) frames of each clip.

        Returns:
            Memory (B, S, M), zero where masked, and mask (B, S) bool, True on the clip's own steps.
        """
        parts = [projector(*visual[name], lengths) for name, projector in self.projectors.items()]
        parts += [self.gates[name] * projector(steps[name]) for name, projector in self.step_projectors.items()]
        if self.training and self.stream_dropout:
            keep = torch.rand(len(parts), len(lengths), 1, 1, device=lengths.device) >= self.stream_dropout
            parts = [part * kept for part, kept in zip(parts, keep, strict=True)]
        x = self.fuse(torch.cat(parts, dim=-1))  # (B, S, M)
        mask = time_mask(num_steps(lengths), x.shape[1])  # (B, S)
        x = self.dropout(x + sinusoid(x.shape[1], x.shape[2], x.device).to(x.dtype))
        x = self.encoder(x, src_key_padding_mask=~mask)
        return x * mask[..., None], mask
