"""The vision transformer of DINOv2, with the parameter names of its published weights.

Oquab et al., "DINOv2: Learning robust visual features without supervision" (2023); registers: Darcet et al., "Vision
transformers need registers" (ICLR 2024). A network to look through: selected as a feature extractor, not as an architecture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, NonNegative
from ..core.errors import UserError

EPS = 1e-6
OFFSET = 0.1
"""Number that is added to the grid's size before the published models without registers divide by it to resample their
position embedding."""


class Attention(nn.Module):
    """Self-attention of tokens (B, N, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class FeedForward(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, dim) -> the same shape."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class LayerScale(nn.Module):
    """A learned gain per channel."""

    def __init__(self, dim: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, dim) -> the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and feed-forward, both normalised before, scaled after, and added."""

    def __init__(self, dim: int, heads: int, hidden: int, init_values: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, EPS)
        self.attn = Attention(dim, heads)
        self.ls1 = LayerScale(dim, init_values)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = FeedForward(dim, hidden)
        self.ls2 = LayerScale(dim, init_values)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, dim) -> the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y


class PatchEmbedding(nn.Module):
    """Patches of an image to tokens: (B, C, H, W) -> (B, H/size * W/size, dim), row by row."""

    def __init__(self, channels: int, dim: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return y


class DINOv2(nn.Module):
    """Image -> feature vector: the class token after the last norm, (B, embed_dim).

    The defaults are ViT-S/14, 22,056,576 parameters. Images (B, in_channels, H, W) are normalised by ImageNet's statistics; H
    and W are any multiples of `patch_size`, to which the position embedding is resampled bicubically as the published code
    does: without registers by the factor (tokens + 0.1) / grid, with registers to the size, antialiased.

    Args:
        img_size: side of the images that the position embedding is for.
        patch_size: side of a patch.
        in_channels: channels of the image.
        embed_dim: width of the tokens.
        depth: blocks.
        num_heads: attention heads; divides `embed_dim`.
        mlp_ratio: hidden width of the feed-forward layers over `embed_dim`.
        init_values: what the gains of the branches begin with.
        num_register_tokens: 4 in the published models with registers.

    Raises:
        UserError: sizes that do not fit.
    """

    def __init__(
        self,
        img_size: Count = 518,
        patch_size: Count = 14,
        in_channels: Count = 3,
        embed_dim: Count = 384,
        depth: Count = 12,
        num_heads: Count = 6,
        mlp_ratio: float = 4.0,
        init_values: float = 1.0,
        num_register_tokens: NonNegative = 0,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise UserError(f"DINOv2: embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        if img_size % patch_size:
            raise UserError(f"DINOv2: img_size {img_size} is no multiple of patch_size {patch_size}")
        self.patch_size = patch_size
        self.grid = img_size // patch_size
        self.patch_embed = PatchEmbedding(in_channels, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid**2 + 1, embed_dim))
        self.register_tokens = (
            nn.Parameter(torch.empty(1, num_register_tokens, embed_dim)) if num_register_tokens else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim), requires_grad=False)  # of pretraining; unused here
        hidden = int(embed_dim * mlp_ratio)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, hidden, init_values) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, EPS)
        self.apply(initialise)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.register_tokens):
            if token is not None:
                nn.init.normal_(token, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, embed_dim).

        Raises:
            UserError: H or W is no multiple of `patch_size`.
        """
        return self.tokens(x)[:, 0]

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens after the last norm, (B, 1 + registers + patches, embed_dim), class token first.

        Raises:
            UserError: height or width is no multiple of the patch.
        """
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise UserError(f"DINOv2: an image of {height}x{width} pixels is not made of patches of {self.patch_size}")
        y = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        y = y + self.positions(height // self.patch_size, width // self.patch_size).to(y.dtype)
        if self.register_tokens is not None:
            y = torch.cat([y[:, :1], self.register_tokens.expand(len(x), -1, -1), y[:, 1:]], 1)
        for block in self.blocks:
            y = block(y)
        normal: Tensor = self.norm(y)
        return normal

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position embedding of the class token and of a grid of patches, (1, 1 + rows * columns, embed_dim)."""
        if rows == columns == self.grid:
            return self.pos_embed
        learned = self.pos_embed.float()
        grid = learned[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        if self.register_tokens is None:
            factors = ((rows + OFFSET) / self.grid, (columns + OFFSET) / self.grid)
            grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        else:
            grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        return torch.cat([learned[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def initialise(module: nn.Module) -> None:
    """Small normal weights without bias for linear layers; PyTorch's default for the others."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def whole_patches(height: int, width: int, shorter: int, patch: int) -> tuple[int, int]:
    """The size in whole patches, closest to the aspect of (height, width), whose shorter side is `shorter`."""
    scale = shorter / min(height, width)
    rows, columns = (max(1, math.floor(side * scale / patch + 0.5)) * patch for side in (height, width))
    return rows, columns
