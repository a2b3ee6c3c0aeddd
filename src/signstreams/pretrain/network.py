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

_NO_DECAY_NAMES = ("cls_token", "pos_embed", "register_tokens", "mask_token")


class MultiCropNet(nn.Module):
    """Backbone and head over views of several sizes: one backbone pass a size, one head pass for all."""

    def __init__(self, backbone: VisionTransformer, head: DinoHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, groups: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class tokens and prototype scores of all views.

        Args:
            groups: Views of one size each, (V_i, B, 3, side, side), normalised.

        Returns:
            tokens (V, B, D) and scores (V, B, K), views in their order.
        """
        batch = groups[0].shape[1]
        tokens = torch.cat([self.backbone(group.flatten(0, 1)) for group in groups])  # (V * B, D)
        scores = self.head(tokens)
        return tokens.unflatten(0, (-1, batch)), scores.unflatten(0, (-1, batch))


def build_network(config: PretrainConfig, arch: ViTArch, choices: Choices, *, is_student: bool) -> MultiCropNet:
    """A network with its first weights, which depend on the seed alone: student and teacher start equal."""
    backbone = VisionTransformer(arch, drop_path_prob=config.model.drop_path_prob if is_student else 0.0)
    head = DinoHead(
        arch.embed_dim,
        choices.num_prototypes,
        hidden_dim=choices.hidden_dim,
        bottleneck_dim=config.dino.bottleneck_dim,
        fix_prototype_norm=config.dino.fix_prototype_norm,
    )
    backbone.init_weights(torch_generator(config.seed, "backbone"))
    head.init_weights(torch_generator(config.seed, "head"))
    network = MultiCropNet(backbone, head)
    if not is_student:
        network.requires_grad_(False)
        network.eval()
    return network


def parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """Two groups for the optimiser; norms, biases, LayerScale, prototype lengths and tokens have no weight decay."""
    decayed, free = [], []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_free = parameter.ndim <= 1 or name.endswith(("gamma", "weight_g")) or name.endswith(_NO_DECAY_NAMES)
        (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "is_decayed": True}, {"params": free, "is_decayed": False}]


@torch.no_grad()
def update_teacher(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place, for each pair of parameters."""
    torch._foreach_lerp_(list(teacher), list(student), 1 - momentum)
