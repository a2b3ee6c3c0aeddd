"""iBOT's patch term by its formula, and its meters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from signstreams.pretrain.ibot import PatchMeters, patch_loss


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _slow_patch_loss(student: Tensor, targets: Tensor, masks: Tensor, temp: float) -> float:
    """As in bytedance/ibot: for each view, the mean over its masked patches; then the mean over all views."""
    total = 0.0
    for view in range(len(masks)):
        losses = []
        for patch in range(masks.shape[1]):
            if masks[view, patch]:
                p = torch.softmax(student[view, patch] / temp, dim=0)
                losses.append(-float((targets[view, patch] * p.log()).sum()))
        total += sum(losses) / max(1, len(losses))
    return total / len(masks)


def test_the_patch_loss_is_that_of_the_slow_loops() -> None:
    student, targets = _scores(6, 9, 5), _scores(6, 9, 5, seed=1).softmax(dim=-1)
    masks = _scores(6, 9, seed=2) > 0
    masks[0] = False  # a view without a mask counts as 0
    rows = masks.flatten().nonzero()[:, 0]
    weights = (1 / masks.sum(dim=1).clamp(min=1))[rows // 9]
    loss = patch_loss(student.flatten(0, 1)[rows], targets.flatten(0, 1)[rows], weights, student_temp=0.1, num_views=6)
    assert float(loss) == pytest.approx(_slow_patch_loss(student, targets, masks, 0.1), rel=1e-5)


def test_a_process_without_masked_patches_adds_nothing_and_keeps_its_gradient() -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    loss = patch_loss(student, torch.zeros(0, 5), torch.zeros(0), student_temp=0.1, num_views=4)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert student.grad is not None


def test_patch_meters_weigh_every_masked_view_alike() -> None:
    meters = PatchMeters(5, torch.device("cpu"))
    targets = _scores(6, 5).softmax(dim=-1)
    weights = torch.tensor([1.0, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])  # three masked views of eight
    one, good = torch.tensor(1.0), torch.tensor(False)
    meters.add(loss=one, dino=one, koleo=one, targets=torch.eye(5)[None], grad_norm=one, is_bad=good)
    loss = patch_loss(_scores(6, 5, seed=1), targets, weights, student_temp=0.1, num_views=8)
    meters.add_patches(loss=loss, targets=targets, weights=weights, num_views=8, num_patches=80, is_bad=good)
    bad = torch.tensor(float("nan"))
    meters.add_patches(
        loss=bad, targets=targets * bad, weights=weights, num_views=8, num_patches=80, is_bad=torch.tensor(True)
    )
    record = meters.read()
    log_p = (_scores(6, 5, seed=1) / 0.1).log_softmax(dim=-1)
    entropies = [-float((row * row.log()).sum()) for row in targets]
    views = [[0], [1, 2], [3, 4, 5]]
    assert record["train/loss_patch"] == pytest.approx(
        np.mean([np.mean([-float((targets[i] * log_p[i]).sum()) for i in view]) for view in views]), rel=1e-5
    )
    mean_entropy = np.mean([np.mean([entropies[i] for i in view]) for view in views])
    assert record["patch/entropy_sample"] == pytest.approx(mean_entropy, rel=1e-5)
    assert record["train/kl_patch"] == pytest.approx(record["train/loss_patch"] - mean_entropy, rel=1e-4)
    mean_target = torch.stack([targets[view].mean(dim=0) for view in views]).mean(dim=0)
    assert record["patch/entropy_batch"] == pytest.approx(float(torch.special.entr(mean_target).sum()), rel=1e-5)
    assert record["patch/masked_ratio"] == pytest.approx(6 / 80)
    assert all(math.isnan(value) for name, value in meters.read().items() if "patch" in name)


def test_a_bad_step_counts_no_winner_of_a_patch() -> None:
    meters, one, targets = PatchMeters(5, torch.device("cpu")), torch.tensor(1.0), torch.eye(5)
    for is_bad, rows in ((False, targets[:1].expand(5, -1)), (True, targets[3:4].expand(5, -1))):
        bad = torch.tensor(is_bad)
        meters.add(loss=one, dino=one, koleo=one, targets=torch.eye(5)[None], grad_norm=one, is_bad=bad)
        meters.add_patches(loss=one, targets=rows, weights=torch.ones(5), num_views=2, num_patches=8, is_bad=bad)
    assert meters.read()["patch/prototypes_used_ratio"] == 1 / 5
