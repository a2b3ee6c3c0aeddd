"""DINO and iBOT in memory: student and teacher, parameter groups, schedules, one step, the whole state."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signstreams.backbones.archs import ViTArch
from signstreams.backbones.vit import joined
from signstreams.engine import distributed
from signstreams.engine.device import autocast, can_compile
from signstreams.engine.distributed import World
from signstreams.engine.schedules import cosine, linear, warmup_constant_decay, warmup_cosine
from signstreams.engine.seeding import seed_global
from signstreams.pretrain.data import normalize
from signstreams.pretrain.derived_settings import DerivedSettings
from signstreams.pretrain.health import Meters, assignment_information, embed, feature_std, rank_me
from signstreams.pretrain.ibot import Masked, PatchTerm, patch_loss
from signstreams.pretrain.knn import ProbeLabels, knn_accuracy
from signstreams.pretrain.losses import Centre, dino_loss, koleo_loss, teacher_targets
from signstreams.pretrain.network import build_network
from signstreams.pretrain.points_teacher import PointsTerm, r_squared
from signstreams.pretrain.settings import PretrainConfig
from signstreams.pretrain.views import NUM_GLOBAL

# -- Parameter groups

_NO_DECAY_NAMES = ("cls_token", "pos_embed", "register_tokens", "mask_token")


def parameter_groups(
    network: nn.Module, *, depth: int, layer_decay: float = 1.0, patch_embed_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups with equal learning rate and weight decay; norms, biases, LayerScale and tokens have no weight decay.

    ``layer_decay`` is the rate of each of ``depth`` blocks as a share of the next one's; the last norm and the heads
    have the full rate, and the patch embedding a further factor.
    """
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_free = parameter.ndim <= 1 or name.endswith(("gamma", "weight_g")) or name.endswith(_NO_DECAY_NAMES)
        is_backbone = name.startswith("backbone.")
        factor = rate_factor(name, depth=depth, layer_decay=layer_decay, patch_embed_factor=patch_embed_factor)
        key = (is_backbone, not is_free, factor)
        if key not in groups:
            groups[key] = {"params": [], "is_backbone": is_backbone, "is_decayed": not is_free, "factor": factor}
        groups[key]["params"].append(parameter)
    return list(groups.values())


def rate_factor(name: str, *, depth: int, layer_decay: float, patch_embed_factor: float) -> float:
    """Learning rate of a parameter as a share of the heads': decay ** (depth + 1 - layer), embeddings being layer 0."""
    if not name.startswith("backbone.") or name.startswith("backbone.norm."):
        return 1.0
    parts = name.split(".")
    layer = int(parts[2]) + 1 if parts[1] == "blocks" else 0
    factor = layer_decay ** (depth + 1 - layer)
    return factor * patch_embed_factor if parts[1] == "patch_embed" else factor


def backbone_ramp(step: int, *, head_only_steps: int, warmup_steps: int) -> float:
    """Factor of the backbone's rate: 0 while the head learns alone, then its own warm-up; 1 without such a phase."""
    if not head_only_steps:
        return 1.0
    return min(1.0, max(0, step + 1 - head_only_steps) / max(1, warmup_steps))


def set_rates(groups: list[dict[str, Any]], now: dict[str, float]) -> None:
    """Write a step's ``lr``, ``lr_backbone`` and ``weight_decay`` into the optimiser's groups."""
    for group in groups:
        group["lr"] = now["lr_backbone" if group["is_backbone"] else "lr"] * group["factor"]
        group["weight_decay"] = now["weight_decay"] if group["is_decayed"] else 0.0


# -- Trainer

BETA_1 = 0.9
HEAD_PATCHES = 16  # most patches per crop that the patches' own head is fitted to


class Trainer:
    """Student, teacher and all that a step needs; no files."""

    def __init__(self, config: PretrainConfig, derived: DerivedSettings, arch: ViTArch, world: World) -> None:
        self.config, self.derived, self.arch, self.world = config, derived, arch, world
        device = world.device
        self.student = build_network(config, arch, derived, is_student=True).to(device)
        self.teacher = build_network(config, arch, derived, is_student=False).to(device)
        if config.optim.is_compiled(device.type) and can_compile(device):
            for network in (self.student, self.teacher):
                network.backbone.compile_blocks()
        self.replica: nn.Module = self.student
        if world.size > 1:
            device_ids = [device.index] if device.type == "cuda" else None
            self.replica = nn.parallel.DistributedDataParallel(self.student, device_ids=device_ids)  # has no buffers
        self.sinkhorn = config.sinkhorn if derived.use_sinkhorn else None
        self.centre = Centre(derived.num_prototypes, config.dino.center_momentum).to(device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(
                self.student,
                depth=arch.depth,
                layer_decay=derived.layer_decay,
                patch_embed_factor=derived.patch_embed_factor,
            ),
            lr=derived.peak_learning_rate,
            betas=(BETA_1, config.optim.beta_2),
            fused=True,
        )
        self.patches = PatchTerm(config, derived, arch, world) if config.algorithm == "ibot" else None
        self.meters = Meters(derived.num_prototypes, device) if self.patches is None else self.patches.meters
        self.points = PointsTerm(world) if config.points.weight else None
        self.step = 0
        self._mean = torch.tensor(config.augmentation.mean, device=device)
        self._std = torch.tensor(config.augmentation.std, device=device)
        self._parameters = tuple(self.teacher.parameters()), tuple(self.student.parameters())

    def standardize_head(self, images: Tensor) -> None:
        """Fit the head's first weights to these crops, uint8 (N, side, side, 3), N >= 2; before the first step only."""
        assert self.step == 0
        backbone = self.teacher.backbone
        tokens = [embed(backbone, images, self.normalize)]  # (N, D)
        if self.teacher.patch_head is not None:
            num_patches = (images.shape[1] // self.arch.patch_px) ** 2
            stride = math.ceil(num_patches / HEAD_PATCHES)

            def some_patches(batch: Tensor) -> Tensor:
                return backbone.forward_features(batch)[1][:, ::stride]  # (B, <= HEAD_PATCHES, D)

            tokens.append(embed(some_patches, images, self.normalize).flatten(0, 1))
        for network in (self.student, self.teacher):
            for head, rows in zip(network.heads, tokens, strict=True):
                head.standardize(rows.to(self.world.device))
                distributed.broadcast(head.parameters())  # devices may round differently

    def scheduled(self, step: int) -> dict[str, float]:
        """Learning rate, weight decay, teacher's momentum and temperatures at a step."""
        optim, derived = self.config.optim, self.derived
        total = derived.total_steps
        peak, warmup_steps = derived.peak_learning_rate, derived.warmup_steps
        final = min(optim.final_learning_rate, peak)
        if optim.schedule == "cosine":
            rate = warmup_cosine(step, peak=peak, final=final, warmup_steps=warmup_steps, total_steps=total)
            weight_decay = cosine(step, optim.weight_decay, optim.final_weight_decay, total)
            momentum = cosine(step, derived.momentum, 1.0, total)
        else:  # the others stay, as DINOv3's do: where they were on their way would depend on the length
            rate = warmup_constant_decay(
                step,
                peak=peak,
                final=final,
                warmup_steps=warmup_steps,
                decay_steps=derived.decay_steps,
                total_steps=total,
            )
            weight_decay, momentum = optim.weight_decay, derived.momentum
        now = {
            "lr": rate,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "teacher_temp": linear(
                step, derived.warmup_teacher_temp, derived.teacher_temp, derived.teacher_temp_warmup_steps
            ),
        }
        now["lr_backbone"] = now["lr"] * backbone_ramp(
            step, head_only_steps=derived.head_only_steps, warmup_steps=derived.warmup_steps
        )
        if self.patches is not None:
            now["patch_teacher_temp"] = now["teacher_temp"]
        return now

    def train_step(self, global_views: Tensor, local_views: Tensor, point_targets: Tensor | None = None) -> None:
        """One optimiser step on uint8 views (2, B, side, side, 3) and (V - 2, B, side, side, 3), or (0,) without.

        ``point_targets`` (2, B, SHAPE_DIM) are those of `PointTargets` for the global views, where the points teach.
        """
        now = self.scheduled(self.step)
        seed_global(self.config.seed, "step", self.step, self.world.rank)  # stochastic depth needs no saved state
        groups = [
            normalize(views.to(self.world.device, non_blocking=True), self._mean, self._std)
            for views in (global_views, local_views)
            if views.numel()
        ]
        self.student.train()
        patches, count = self.patches, self.config.optim.accumulate
        parts = list(zip(*(group.chunk(count, dim=1) for group in groups), strict=True))  # each (V_i, B / count, ...)
        num_views, batch = groups[0].shape[:2]
        masked = [] if patches is None else patches.draw(self.step, num_views, batch, count)
        # the teacher first, all parts: targets are centred or balanced over the whole step
        with torch.no_grad(), autocast(self.config.optim.precision, self.world.device):
            seen = [
                self.teacher(part[:1], masked[i].rows if masked else None) for i, part in enumerate(parts)
            ]  # of each part (2, b, D), (2, b, K), (m, K'), shapes; the teacher sees all patches
        teacher_scores = joined([scores for _, scores, *_ in seen], dim=1)  # (2, B, K)
        targets = teacher_targets(teacher_scores, self.centre, self.sinkhorn, now["teacher_temp"])
        teacher_patches = patch_targets = None
        if patches is not None:
            teacher_patches = joined([scores for *_, scores, _ in seen], dim=0)  # (M, K')
            patch_targets = patches.targets(teacher_patches, now["patch_teacher_temp"])  # (M, K')
        if self.points is not None:
            assert point_targets is not None
            self.points.begin(point_targets, count)
        self.optimizer.zero_grad(set_to_none=True)
        loss, dino, koleo, patch = self._backward(parts, masked, targets, patch_targets)
        if self.step < self.derived.freeze_prototypes_steps:
            for head in self.student.heads:
                for parameter in head.prototypes.parameters():
                    parameter.grad = None
        if self.step < self.derived.head_only_steps:
            for parameter in self.student.backbone.parameters():
                parameter.grad = None
        parameters = [parameter for parameter in self.student.parameters() if parameter.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.optim.clip_grad_norm)
        is_bad = distributed.all_reduce_max((~(torch.isfinite(norm) & torch.isfinite(loss))).to(torch.uint8)).bool()
        self._update(now, is_bad)
        if self.sinkhorn is None:
            self.centre.update(teacher_scores)
        if patches is not None:
            assert teacher_patches is not None and patch_targets is not None
            patches.after_step(patch, teacher_patches, patch_targets, masked, is_bad)
        if self.points is not None:
            self.points.after_step(is_bad)
        self.meters.add(loss=loss, dino=dino, koleo=koleo, targets=targets, grad_norm=norm, is_bad=is_bad)
        self.step += 1

    def _backward(
        self, parts: list[tuple[Tensor, ...]], masked: list[Masked], targets: Tensor, patch_targets: Tensor | None
    ) -> Tensor:
        """Gradients of the step, part by part; returns (4,) loss, DINO, KoLeo, patch loss, without gradient.

        All terms but KoLeo are means over crops, so that equal parts sum to the joint batch; KoLeo's neighbours come
        from the part. The points' loss, of which parts have unequal numbers of crops, knows the joint batch itself.
        """
        config, count, temp = self.config, len(parts), self.config.dino.student_temp
        patch_parts: Sequence[Tensor] = ()
        if patch_targets is not None:
            patch_parts = patch_targets.split([len(part.rows) for part in masked])
        values = []
        for i, (part, target) in enumerate(zip(parts, targets.chunk(count, dim=1), strict=True)):
            rows, masks = (masked[i].rows, masked[i].masks) if masked else (None, None)
            sync: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if i + 1 < count and isinstance(self.replica, nn.parallel.DistributedDataParallel):
                sync = self.replica.no_sync()
            with sync:  # processes average their gradients once per step
                with autocast(config.optim.precision, self.world.device):
                    # (V, b, D), (V, b, K), (m, K'), (2, b, SHAPE_DIM)
                    tokens, scores, patch_scores, shapes = self.replica(list(part), rows, masks)
                dino, koleo = dino_loss(scores, target, student_temp=temp), self._koleo(tokens)
                loss, patch = dino + config.koleo.weight * koleo, torch.zeros_like(dino)
                if masked:
                    weights, num_views, ibot = masked[i].weights, len(masked[i].masks), config.ibot
                    patch = patch_loss(patch_scores, patch_parts[i], weights, student_temp=temp, num_views=num_views)
                    loss = ibot.cls_weight * dino + ibot.patch_weight * patch + config.koleo.weight * koleo
                if self.points is not None:
                    loss = loss + config.points.weight * self.points.loss(i, shapes)
                (loss / count).backward()
            values.append(torch.stack((loss.detach(), dino.detach(), koleo.detach(), patch.detach())))
        return torch.stack(values).mean(dim=0)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (..., H, W, 3) as the networks take them, on the device."""
        return normalize(images.to(self.world.device), self._mean, self._std)

    def probe(
        self, images: Tensor, known: ProbeLabels | None = None, point_targets: Tensor | None = None
    ) -> dict[str, float]:
        """Health of the teacher on held-out crops, uint8 (N, side, side, 3); k-NN where labels are known.

        Where points teach, with their targets (N, SHAPE_DIM), how much of the held-out hands' shapes is predicted.
        """
        features = embed(self.teacher.backbone, images, self.normalize)  # (N, D)
        with torch.no_grad():
            scores = self.teacher.head(features.to(self.world.device)).cpu()  # (N, K)
        points = {}
        if self.teacher.points_head is not None and point_targets is not None:
            with torch.no_grad():
                shapes = self.teacher.points_head(features.to(self.world.device)).cpu()  # (N, SHAPE_DIM)
            points["probe/points_r2"] = r_squared(shapes, point_targets)
        knn = {} if known is None else {"probe/knn": knn_accuracy(features, known)}
        return (
            knn
            | points
            | {
                "probe/rankme": rank_me(features),
                "probe/assignment_information": assignment_information(scores, self.config.dino.student_temp),
                "probe/feature_std": feature_std(features),
            }
        )

    @torch.no_grad()
    def teacher_distance(self) -> float:
        """Distance of student and teacher, relative to the teacher's length."""
        teacher, student = self._parameters
        difference = torch._foreach_sub(teacher, student)
        norms = [torch.stack(torch._foreach_norm(tensors)).norm() for tensors in (difference, teacher)]
        return float(norms[0] / norms[1])

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to continue to the same bits."""
        patches = {} if self.patches is None else {"patch_centre": self.patches.centre.state_dict()}
        points = {} if self.points is None else {"points": self.points.state_dict()}
        return (
            patches
            | points
            | {
                "step": self.step,
                "student": self.student.state_dict(),
                "teacher": self.teacher.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "centre": self.centre.state_dict(),
                "meters": self.meters.state_dict(),
            }
        )

    def state_bytes(self) -> int:
        """Size of a checkpoint of any later step: both networks and AdamW's two moments."""
        tensors: dict[str, Tensor] = self.student.state_dict()
        return 4 * sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of another process."""
        self.student.load_state_dict(state["student"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.centre.load_state_dict(state["centre"])
        if self.patches is not None:
            self.patches.centre.load_state_dict(state["patch_centre"])
        if self.points is not None:
            self.points.load_state_dict(state["points"])
        self.meters.load_state_dict(state["meters"])
        self.step = int(state["step"])

    def _koleo(self, tokens: Tensor) -> Tensor:
        if not self.config.koleo.weight:
            return tokens.new_zeros((), dtype=torch.float32)
        views = tokens[:NUM_GLOBAL].unbind()  # each global view by itself: two views of a crop are meant to be close
        return torch.stack([koleo_loss(view, epsilon=self.config.koleo.epsilon) for view in views]).sum()

    @torch.no_grad()
    def _update(self, now: dict[str, float], is_bad: Tensor) -> None:
        set_rates(self.optimizer.param_groups, now)
        # the fused optimiser skips the update by itself: no wait for the device to ask whether the loss is finite
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]  # where the fused one looks
        self.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        teacher, student = self._parameters
        torch._foreach_lerp_(teacher, student, 1 - now["momentum"])  # momentum * teacher + (1 - momentum) * student


def teacher_backbone(trainer_state: dict[str, Any]) -> dict[str, Tensor]:
    """The teacher's backbone out of a checkpoint's state."""
    prefix = "backbone."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in trainer_state["teacher"].items()
        if name.startswith(prefix)
    }
