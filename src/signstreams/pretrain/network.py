"""Student and teacher: a backbone with DINO's projection head (Caron et al. 2021)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.backbones.archs import ViTArch
from signstreams.backbones.vit import VisionTransformer
from signstreams.engine import distributed
from signstreams.engine.seeding import torch_generator
from signstreams.pretrain.derived_settings import DerivedSettings
from signstreams.pretrain.points_teacher import PointsHead
from signstreams.pretrain.settings import PretrainConfig

EPS = 1e-5


class BatchNorm(nn.Module):
    """Normalises each column over the rows of all processes, then applies a learned scale and shift.

    There are no running means: teacher and student, in training and in evaluation, normalise by the batch at hand
    (DINO's ``use_bn_in_head`` keeps its teacher in training mode). So two processes equal one with the joint batch, and
    a checkpoint holds no state of it. PyTorch's SyncBatchNorm needs a GPU.
    """

    def __init__(self, dim: int, *, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) to (N, dim) in float32; N may differ between processes."""
        x = x.float()
        count = distributed.all_reduce_sum(x.new_full((), float(len(x)))).clamp_min(1)
        x = x - distributed.joint_sum(x.sum(dim=0)) / count  # (N, dim)
        variance = distributed.joint_sum(x.square().sum(dim=0)) / count  # (dim,)
        x = x * (variance + EPS).rsqrt()
        return x if self.weight is None or self.bias is None else torch.addcmul(self.bias, x, self.weight)


class DinoHead(nn.Module):
    """Class tokens to prototype scores: three layers, unit-length bottleneck, prototypes of length 1.

    ``batch_norm`` normalises each layer's outputs over the joint batch, so that rows cannot come to score alike and the
    run cannot stay in the flat phase, in which every target is uniform (docs/experiments.md). All of it computes in
    float32, under autocast too: early in a run class tokens are nearly equal, and what tells them apart is less than
    bfloat16's last bit.
    """

    def __init__(
        self, in_dim: int, num_prototypes: int, *, hidden_dim: int, bottleneck_dim: int, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.has_batch_norm = batch_norm
        layers: list[nn.Module] = []
        sides = [in_dim, hidden_dim, hidden_dim, bottleneck_dim]
        for i, (inputs, outputs) in enumerate(itertools.pairwise(sides)):
            is_last = i + 2 == len(sides)
            layers.append(nn.Linear(inputs, outputs, bias=not batch_norm))  # a norm would remove the bias again
            if batch_norm:
                layers.append(BatchNorm(outputs, affine=not is_last))
            if not is_last:
                layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers)
        self.prototypes = Prototypes(bottleneck_dim, num_prototypes)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, D) to cosine scores (N, K), float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.mlp(tokens.float())  # (N, bottleneck)
            scores: Tensor = self.prototypes(F.normalize(x, dim=-1))
        return scores

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Normal of deviation .02 (1 / sqrt(inputs) before batch norm), zero biases, unit norms and prototypes."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                std = parameter.shape[1] ** -0.5 if self.has_batch_norm else 0.02
                nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std, generator=generator)

    @torch.no_grad()
    def standardize(self, tokens: Tensor) -> None:
        """Rescale and shift each layer so that its outputs have mean 0 and deviation 1 over these class tokens.

        These are (N, D), N >= 2, of the backbone with its first weights. With such random ones, class tokens are nearly
        equal for all crops, and so are their scores: DINO spends its first thousands of steps in that flat phase. After
        this the first targets already differ from crop to crop (data-dependent initialisation, Krähenbühl et al. 2016;
        docs/experiments.md).
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
    """Linear layer without bias whose rows count by their direction alone: each prototype has length 1.

    What all inputs have in common is multiplied apart, by a product with a vector. A GPU rounds the factors of products
    of matrices to TF32; of inputs that differ by .003 of their length that would be an error of 7 % of the differences
    between their scores, and so it is one of .03 % (the rounding imitated on a CPU; in bfloat16 it was 79 %).
    """

    def __init__(self, in_dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(torch.zeros(num_prototypes, in_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) to (N, K)."""
        weight = F.normalize(self.weight_v, dim=-1)  # (K, in_dim)
        common = x.detach().sum(dim=0) / max(1, len(x))  # (in_dim,)
        return F.linear(x - common, weight, weight @ common)


class MultiCropNet(nn.Module):
    """Backbone and head over views of several sizes, with one pass of the head for all.

    Masked patches share ``head`` where they have no ``patch_head``.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        head: DinoHead,
        patch_head: DinoHead | None = None,
        points_head: PointsHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.patch_head, self.points_head = backbone, head, patch_head, points_head

    @property
    def heads(self) -> list[DinoHead]:
        return [self.head] if self.patch_head is None else [self.head, self.patch_head]

    def forward(
        self, groups: list[Tensor], rows: Tensor | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Class tokens (V, B, D) and prototype scores (V, B, K) of all views; patch scores (M, K') or None; and, with a
        head for them, the shapes of hands (V_0, B, SHAPE_DIM) that the views of the first group are taken to show.

        ``groups`` are normalised views of one size, (V_i, B, 3, side, side). ``rows`` (M,) are the patches to score, as
        rows of the first group's (V_0 * B * P), and ``masks`` (V_0 * B, P) bool hide patches of it from the backbone.
        """
        batch = groups[0].shape[1]
        tokens, patches = self.backbone.forward_tokens(
            [group.flatten(0, 1) for group in groups],  # each (V_i * B, 3, side, side)
            masks,
            rows,
            packed=groups[0].device.type == "cuda",  # on a CPU packing gains nothing (docs/experiments.md)
        )  # (V * B, D), (M, D)
        patch_scores = None
        if patches is None:
            scores = self.head(tokens)  # (V * B, K)
        elif self.patch_head is None:
            both = self.head(torch.cat((tokens, patches)))  # (V * B + M, K)
            scores, patch_scores = both.split((len(tokens), len(patches)))
        else:
            scores, patch_scores = self.head(tokens), self.patch_head(patches)
        tokens = tokens.unflatten(0, (-1, batch))
        shapes = None if self.points_head is None else self.points_head(tokens[: len(groups[0])])
        return tokens, scores.unflatten(0, (-1, batch)), patch_scores, shapes


def build_network(config: PretrainConfig, arch: ViTArch, derived: DerivedSettings, *, is_student: bool) -> MultiCropNet:
    """A network with its first weights, which depend on the seed alone, so that student and teacher start equal."""
    backbone = VisionTransformer(
        arch,
        drop_path_prob=config.model.drop_path_prob if is_student else 0.0,
        checkpoint_activations=config.optim.checkpoint_activations,
    )
    backbone.mask_token.requires_grad_(config.algorithm == "ibot")
    backbone.init_weights(torch_generator(config.seed, "backbone"))
    has_patch_head = config.algorithm == "ibot" and not config.ibot.shared_head
    points_head = PointsHead(arch.embed_dim) if config.points.weight else None
    if points_head is not None:
        points_head.init_weights(torch_generator(config.seed, "points_head"))
    heads = []
    for name in ("head", "patch_head") if has_patch_head else ("head",):
        head = DinoHead(
            arch.embed_dim,
            derived.num_prototypes,
            hidden_dim=derived.hidden_dim,
            bottleneck_dim=derived.bottleneck_dim,
            batch_norm=derived.batch_norm,
        )
        head.init_weights(torch_generator(config.seed, name))
        heads.append(head)
    network = MultiCropNet(backbone, heads[0], heads[1] if has_patch_head else None, points_head)
    if not is_student:
        network.requires_grad_(False)
        network.eval()
    return network
