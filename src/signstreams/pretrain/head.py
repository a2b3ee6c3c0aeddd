"""DINO's projection head (Caron et al. 2021): three layers, unit-length bottleneck, weight-normed prototypes."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.pretrain.batch_norm import BatchNorm


class DinoHead(nn.Module):
    """Class tokens to prototype scores.

    Args:
        in_dim: Width D of a class token.
        num_prototypes: K.
        hidden_dim: Width of the two hidden layers.
        bottleneck_dim: Width before the prototypes.
        fix_prototype_norm: Keep every prototype at length 1; otherwise the lengths are learned, from 1.
        batch_norm: Normalise each layer's outputs over the joint batch, so that rows cannot come to score alike: the
            flat phase, in which every target is uniform, is then no rest (docs/experiments.md).
    """

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int,
        *,
        hidden_dim: int,
        bottleneck_dim: int,
        fix_prototype_norm: bool,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.has_batch_norm = batch_norm
        layers: list[nn.Module] = []
        sides = [in_dim, hidden_dim, hidden_dim, bottleneck_dim]
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sides)):
            is_last = i + 2 == len(sides)
            layers.append(nn.Linear(inputs, outputs, bias=not batch_norm))  # a norm would take the bias off again
            if batch_norm:
                layers.append(BatchNorm(outputs, affine=not is_last))
            if not is_last:
                layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers)
        self.prototypes = Prototypes(bottleneck_dim, num_prototypes, fix_norm=fix_prototype_norm)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, D) to cosine scores (N, K) times the prototypes' lengths."""
        x = self.mlp(tokens).float()  # (N, bottleneck)
        scores: Tensor = self.prototypes(F.normalize(x, dim=-1))
        return scores

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal of deviation .02 (1 / sqrt(inputs) before batch norm), zero biases, unit norms and prototypes."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1 or name == "prototypes.weight_g":
                parameter.fill_(1.0)
            else:
                std = parameter.shape[1] ** -0.5 if self.has_batch_norm else 0.02
                nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std, generator=generator)

    @torch.no_grad()
    def standardize(self, tokens: Tensor) -> None:
        """Rescale and shift each layer so that its outputs have mean 0 and deviation 1 over these class tokens.

        Class tokens of random weights are nearly equal for all crops, so are their scores, and DINO spends its first
        thousands of steps in that flat phase. After this the first targets differ from crop to crop already
        (data-dependent initialisation, Krähenbühl et al. 2016; docs/experiments.md).

        Args:
            tokens: (N, D) of the backbone with its first weights, N >= 2.
        """
        assert not self.has_batch_norm, "would change nothing"
        x = tokens.float()
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                raw = F.linear(x, layer.weight)  # (N, out)
                mean, std = raw.mean(dim=0), raw.std(dim=0).clamp_min(1e-6)
                layer.weight /= std[:, None]
                layer.bias.copy_(-mean / std)
            x = layer(x)


class Prototypes(nn.Module):
    """Weight-normed linear layer without bias: direction ``weight_v``, length ``weight_g`` (fixed: 1, no parameter)."""

    def __init__(self, in_dim: int, num_prototypes: int, *, fix_norm: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(torch.zeros(num_prototypes, in_dim))
        self.weight_g = None if fix_norm else nn.Parameter(torch.ones(num_prototypes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) to (N, K)."""
        weight = F.normalize(self.weight_v, dim=-1)
        return F.linear(x, weight if self.weight_g is None else weight * self.weight_g)
