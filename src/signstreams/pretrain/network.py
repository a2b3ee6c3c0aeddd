"""Student and teacher: the same backbone and head, the teacher a moving average of the student without gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from signstreams.backbones.archs import ViTArch
from signstreams.backbones.vit import VisionTransformer
from signstreams.config.pretrain import PretrainConfig
from signstreams.engine.seeding import torch_generator
from signstreams.pretrain.choices import Choices
from signstreams.pretrain.head import DinoHead
from signstreams.pretrain.patch_losses import PatchChoices


class MultiCropNet(nn.Module):
    """Backbone and head over views of several sizes: one pass of the head for all.

    Args:
        backbone: Images to tokens.
        head: Tokens to prototype scores.
        patch_head: The masked patches' own; None: they share ``head``.
    """

    def __init__(self, backbone: VisionTransformer, head: DinoHead, patch_head: DinoHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.patch_head = patch_head

    @property
    def heads(self) -> list[DinoHead]:
        return [self.head] if self.patch_head is None else [self.head, self.patch_head]

    def forward(
        self, groups: list[Tensor], rows: Tensor | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Class tokens and prototype scores of all views, and scores of some patches of the first group.

        Args:
            groups: Views of one size each, (V_i, B, 3, side, side), normalised.
            rows: (M,) patches to score, as rows of the first group's (V_0 * B * P).
            masks: (V_0 * B, P) bool, patches of the first group that the backbone must not see.

        Returns:
            tokens (V, B, D) and scores (V, B, K), views in their order; patch scores (M, K'), None without ``rows``.
        """
        batch = groups[0].shape[1]
        tokens, patches = self.backbone.forward_tokens(
            [group.flatten(0, 1) for group in groups],  # each (V_i * B, 3, side, side)
            masks,
            rows,
            packed=groups[0].device.type == "cuda",  # on a CPU packing wins nothing (docs/experiments.md)
        )  # (V * B, D), (M, D)
        patch_scores = None
        if patches is None:
            scores = self.head(tokens)  # (V * B, K)
        elif self.patch_head is None:
            both = self.head(torch.cat((tokens, patches)))  # (V * B + M, K)
            scores, patch_scores = both.split((len(tokens), len(patches)))
        else:
            scores, patch_scores = self.head(tokens), self.patch_head(patches)
        return tokens.unflatten(0, (-1, batch)), scores.unflatten(0, (-1, batch)), patch_scores


def build_network(config: PretrainConfig, arch: ViTArch, choices: Choices, *, is_student: bool) -> MultiCropNet:
    """A network with its first weights, which depend on the seed alone: student and teacher start equal."""
    backbone = VisionTransformer(
        arch,
        drop_path_prob=config.model.drop_path_prob if is_student else 0.0,
        checkpoint_activations=config.optim.checkpoint_activations,
    )
    backbone.mask_token.requires_grad_(config.algorithm == "ibot")
    backbone.init_weights(torch_generator(config.seed, "backbone"))
    ibot = config.ibot
    head = _head(config, arch, choices, "head", choices.num_prototypes, choices.bottleneck_dim)
    patch_head = None
    if config.algorithm == "ibot" and not ibot.shared_head:
        num_prototypes = PatchChoices.of(config, choices).num_prototypes
        bottleneck_dim = ibot.bottleneck_dim or choices.bottleneck_dim
        patch_head = _head(config, arch, choices, "patch_head", num_prototypes, bottleneck_dim)
    network = MultiCropNet(backbone, head, patch_head)
    if not is_student:
        network.requires_grad_(False)
        network.eval()
    return network


def _head(
    config: PretrainConfig, arch: ViTArch, choices: Choices, name: str, num_prototypes: int, bottleneck_dim: int
) -> DinoHead:
    head = DinoHead(
        arch.embed_dim,
        num_prototypes,
        hidden_dim=choices.hidden_dim,
        bottleneck_dim=bottleneck_dim,
        fix_prototype_norm=config.dino.fix_prototype_norm,
        batch_norm=choices.batch_norm,
    )
    head.init_weights(torch_generator(config.seed, name))
    return head


@torch.no_grad()
def update_teacher(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place, for each pair of parameters."""
    torch._foreach_lerp_(list(teacher), list(student), 1 - momentum)
