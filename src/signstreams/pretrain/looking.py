"""What a backbone sees in crops: attention of its class token, main directions of its patches, nearest crops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from signstreams.backbones.vit import Block, VisionTransformer


@torch.no_grad()
def class_attention(model: VisionTransformer, images: Tensor) -> Tensor:
    """Attention of the class token to the patches in the last block.

    Args:
        images: (B, 3, H, W), normalised.

    Returns:
        (B, heads, rows, columns); a head's sum is 1 less what the class token and registers get.
    """
    last = model.blocks[-1]
    assert isinstance(last, Block)
    seen: list[Tensor] = []
    hook = last.norm1.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        model.forward_features(images)
    finally:
        hook.remove()
    qkv = last.attn.qkv(seen[0]).float()  # (B, N, 3 D)
    batch, tokens, _ = qkv.shape
    q, k, _ = qkv.reshape(batch, tokens, 3, last.attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, N, D / H)
    scores = q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, H, 1, N)
    weights = scores.softmax(dim=-1)[:, :, 0, 1 + model.arch.num_registers :]  # (B, H, P)
    rows = images.shape[-2] // model.patch_size
    maps: Tensor = weights.unflatten(-1, (rows, -1))
    return maps


def patch_colors(patches: Tensor) -> Tensor:
    """The first three principal components of all patches together, as colours.

    Args:
        patches: (B, P, D) patch tokens of several images.

    Returns:
        (B, P, 3) in 0..1: between the 2nd and 98th percentile of each component. Signs are fixed, so that equal
        patches give equal pictures: the greatest loading of a component is positive.
    """
    x = patches.flatten(0, 1).double()
    x = x - x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)  # (min(B P, D), D)
    axes = axes[:3]
    greatest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))  # (<= 3, 1)
    values = x @ (axes * greatest.sign()).T  # (B P, <= 3)
    if values.shape[1] < 3:
        values = F.pad(values, (0, 3 - values.shape[1]))
    low, high = (torch.quantile(values, share, dim=0) for share in (0.02, 0.98))
    colors = ((values - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    by_crop: Tensor = colors.unflatten(0, patches.shape[:2])
    return by_crop.float()


def nearest_crops(queries: Tensor, bank: Tensor, may_answer: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The crops of the bank most like each query, by cosine.

    Args:
        queries: (M, D) features.
        bank: (N, D) features.
        may_answer: (M, N) bool, such as crops of other videos.
        count: At most; fewer where few may answer.

    Returns:
        (M, <= count) indices into the bank, nearest first, and their cosines; -inf where none may answer any more.
    """
    similarity = F.normalize(queries.float(), dim=-1) @ F.normalize(bank.float(), dim=-1).T  # (M, N)
    nearest = similarity.masked_fill(~may_answer, -torch.inf).topk(min(count, len(bank)), dim=-1)
    return nearest.indices, nearest.values
