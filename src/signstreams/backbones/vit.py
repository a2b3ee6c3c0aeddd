"""Vision transformer with the parameter names of DINOv2's hub models, so that its weights travel without renaming.

Written from Dosovitskiy et al. 2021 and the layout of facebookresearch/dinov2. Letters: B images, N tokens, D width,
H heads, P patches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signstreams.backbones.archs import ViTArch

NORM_EPS = 1e-6


class VisionTransformer(nn.Module):
    """Images to a class token and patch tokens.

    Args:
        arch: Shape of the network.
        drop_path_prob: Stochastic depth of the last block, rising linearly from 0 at the first.
    """

    def __init__(self, arch: ViTArch, *, drop_path_prob: float = 0.0) -> None:
        super().__init__()
        self.arch = arch
        self.embed_dim = arch.embed_dim
        self.patch_size = arch.patch_px
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + arch.grid**2, arch.embed_dim))
        if arch.num_registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, arch.num_registers, arch.embed_dim))
        # learned only under masking (iBOT); frozen otherwise, so that DDP finds no unused parameter
        self.mask_token = nn.Parameter(torch.zeros(1, arch.embed_dim), requires_grad=False)
        self.patch_embed = PatchEmbed(arch.patch_px, arch.embed_dim)
        self.blocks = nn.ModuleList(Block(arch, drop_path_prob * i / max(1, arch.depth - 1)) for i in range(arch.depth))
        self.norm = nn.LayerNorm(arch.embed_dim, eps=NORM_EPS)

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Normalised class token of each image.

        Args:
            images: (B, 3, H, W), normalised; sides divisible by the patch.
            masks: (B, P) bool, patches whose embedding gives way to the mask token; None masks nothing.

        Returns:
            (B, D).
        """
        return self.forward_features(images, masks)[0]

    def forward_features(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalised class token (B, D) and patch tokens (B, P, D); register tokens are left out."""
        height_px, width_px = images.shape[-2:]
        x = self.patch_embed(images)  # (B, P, D)
        if masks is not None:
            x = torch.where(masks[:, :, None], self.mask_token.to(x.dtype), x)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)  # (B, 1 + P, D)
        x = x + self.position_table(height_px, width_px)
        num_registers = self.arch.num_registers
        if num_registers:
            registers = self.register_tokens.expand(len(x), -1, -1).to(x.dtype)
            x = torch.cat((x[:, :1], registers, x[:, 1:]), dim=1)  # (B, 1 + R + P, D)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0], x[:, 1 + num_registers :]

    def position_table(self, height_px: int, width_px: int) -> Tensor:
        """(1, 1 + P, D) for images of this size: bicubic with antialiasing, as DINOv2 with registers and timm do."""
        rows, columns = height_px // self.patch_size, width_px // self.patch_size
        return resize_table(self.pos_embed, rows, columns)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Truncated normal: weights with deviation 1 / sqrt(inputs), tokens with .02; zero biases, unit norms.

        DINO's .02 for every weight suits 384 to 768 inputs; at 192 it shrinks each branch to a quarter, and the crop
        hardly reaches the class token (docs/experiments.md).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(self.arch.layer_scale_init)
            elif name == "mask_token" or name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            else:
                is_token = name in ("cls_token", "pos_embed", "register_tokens")
                std = 0.02 if is_token else parameter[0].numel() ** -0.5
                nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std, generator=generator)


class PatchEmbed(nn.Module):
    """Linear map of each patch; a convolution by name and weight, a matrix product by execution."""

    def __init__(self, patch_px: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_px, patch_px)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, P, D), patches row by row."""
        patch_px = self.proj.kernel_size[0]
        batch, channels, height_px, width_px = images.shape
        if height_px % patch_px or width_px % patch_px:
            raise ValueError(f"images of {width_px}x{height_px} px do not divide into patches of {patch_px} px")
        rows, columns = height_px // patch_px, width_px // patch_px
        patches = images.reshape(batch, channels, rows, patch_px, columns, patch_px)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)  # (B, P, 3 * px * px)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with optional LayerScale and stochastic depth."""

    def __init__(self, arch: ViTArch, drop_path_prob: float) -> None:
        super().__init__()
        self.drop_path_prob = drop_path_prob
        self.norm1 = nn.LayerNorm(arch.embed_dim, eps=NORM_EPS)
        self.attn = Attention(arch.embed_dim, arch.num_heads)
        self.ls1 = LayerScale(arch.embed_dim) if arch.layer_scale_init is not None else nn.Identity()
        self.norm2 = nn.LayerNorm(arch.embed_dim, eps=NORM_EPS)
        self.mlp = Mlp(arch.embed_dim)
        self.ls2 = LayerScale(arch.embed_dim) if arch.layer_scale_init is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self._drop(self.ls1(self.attn(self.norm1(x))))
        return x + self._drop(self.ls2(self.mlp(self.norm2(x))))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path_prob == 0:
            return branch
        keep = 1 - self.drop_path_prob
        # (B, 1, 1): a dropped image skips the branch; the others are scaled so that the expectation stays
        mask = torch.empty(len(branch), 1, 1, dtype=branch.dtype, device=branch.device).bernoulli_(keep)
        return branch * (mask / keep)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, D / H)
        if q.device.type == "cpu" and q.dtype != torch.float32:
            # PyTorch's CPU attention is about seven times slower backwards in bfloat16 (docs/experiments.md)
            with torch.autocast("cpu", enabled=False):
                x = F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """Two linear layers with GELU, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron et al. 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return x * self.gamma


def resize_table(table: Tensor, rows: int, columns: int) -> Tensor:
    """Position table (1, 1 + G * G, D) on another grid, (1, 1 + rows * columns, D); the class entry stays."""
    grid = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (grid, grid):
        return table
    patches = table[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()  # (1, D, G, G)
    patches = F.interpolate(patches, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
    patches = patches.permute(0, 2, 3, 1).reshape(1, rows * columns, -1).to(table.dtype)
    return torch.cat((table[:, :1], patches), dim=1)
