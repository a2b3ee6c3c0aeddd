"""A training step of facebookresearch/dino on the CPU, from a checkout of it: its own networks, loss and clipping.

They are called in the order of its train_one_epoch; only what needs CUDA there is replaced (no device copies, and
bfloat16 autocast of the CPU instead of its fp16 scaler).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CLIP, MOMENTUM = 3.0, 0.996  # its defaults
FREEZE_EPOCHS, EPOCH = 1, 1  # after the epoch in which the last layer is frozen


def peer_step(
    folder: Path, arch: str, views: list[Tensor], *, num_prototypes: int, precision: str
) -> Callable[[], None]:
    """A function that makes a step on these views.

    Args:
        folder: Checkout of facebookresearch/dino.
        arch: ``vit_tiny`` or ``vit_small``, of patch 16.
        views: Normalised, (B, 3, side, side) each, the two global ones first.
        num_prototypes: K.
        precision: ``fp32`` or ``bf16``.
    """
    sys.path.insert(0, str(folder))
    try:
        utils, vits, main = (importlib.import_module(name) for name in ("utils", "vision_transformer", "main_dino"))
    finally:
        sys.path.remove(str(folder))
    # its loss uses the process group, and there is none here
    main.__dict__["dist"] = types.SimpleNamespace(all_reduce=lambda tensor: None, get_world_size=lambda: 1)
    torch.manual_seed(0)
    student_backbone, teacher_backbone = vits.__dict__[arch](patch_size=16, drop_path_rate=0.1), vits.__dict__[arch]()
    width = student_backbone.embed_dim
    student = utils.MultiCropWrapper(student_backbone, vits.DINOHead(width, num_prototypes))
    teacher = utils.MultiCropWrapper(teacher_backbone, vits.DINOHead(width, num_prototypes))
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    loss_of = main.DINOLoss(num_prototypes, len(views), 0.04, 0.04, 0, 100)
    optimizer = torch.optim.AdamW(utils.get_params_groups(student))

    def step() -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-5
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            targets = teacher(views[:2])
            loss = loss_of(student(views), targets, EPOCH)
        assert math.isfinite(loss.item())
        optimizer.zero_grad()
        loss.backward()
        utils.clip_gradients(student, CLIP)
        utils.cancel_gradients_last_layer(EPOCH, student, FREEZE_EPOCHS)
        optimizer.step()
        with torch.no_grad():
            for mine, its in zip(student.parameters(), teacher.parameters(), strict=True):
                its.data.mul_(MOMENTUM).add_((1 - MOMENTUM) * mine.detach().data)

    return step
