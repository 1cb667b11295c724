"""SRFormer: attention in large windows, whose keys and values are a quarter as many.

Zhou, Li, Guo, Bai, Cheng, Hou, "SRFormer: Permuted Self-Attention for Single Image Super-Resolution", ICCV 2023. Parameter
names are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from ..core.ops.window_attention import MASKED
from . import ARCHS
from .blocks import pad_to, stochastic_depth
from .mambair import Rate, ResidualGroup
from .mambairv2 import ConvFFN, pair_index
from .sequence_sr import Connection, SequenceSR, Upsampler, linear_rates, need_heads
from .vfi.attention import attend_in_windows


def quarter_index(size: int) -> Tensor:
    """For each pixel of a window and each of its quarter as many keys the place of their offset in a table: (N, N / 4).

    A key stands for 2 x 2 pixels, and all four of them are at its place.
    """
    half = size // 2
    index = pair_index(half).unflatten(0, (half, half))
    return index.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten(0, 1)


def wrapped_masks(size: int, shift: int) -> Tensor:
    """Score offsets, (2, 2, N, N / 4), for windows [in the last row or not][in the last column or not].

    The cyclic shift brings the image's other side into the last rows and columns of these windows: `shift` of their pixels,
    half as many of their keys, rounded up.
    """
    query = torch.arange(size) >= size - shift
    key = torch.arange(size // 2) >= size // 2 - (shift + 1) // 2
    across = query[:, None] != key
    down, right = across[:, None, :, None], across[None, :, None, :]
    table = [(bottom & down) | (last & right) for bottom in (False, True) for last in (False, True)]
    masks = [t.expand(size, size, size // 2, size // 2).reshape(size**2, -1) for t in table]
    return (MASKED * torch.stack(masks).float()).unflatten(0, (2, 2))


def stored_mask(masks: Tensor, windows: int) -> Tensor:
    """What the original keeps among its weights: the mask (windows^2, N, N / 4) of every window, for `windows` on a side."""
    last = (torch.arange(windows) == windows - 1).long()
    return masks[last[:, None], last].flatten(0, 1)


class PermutedAttention(nn.Module):
    """Attention within windows whose keys and values gather 2 x 2 pixels of a quarter of the channels (equations 1 to 3)."""

    aligned_relative_position_index: Tensor

    def __init__(self, dim: int, size: int, heads: int, bias: bool, scale: float | None, drop: float) -> None:
        super().__init__()
        self.size, self.heads, self.drop = size, heads, drop
        self.scale = scale or (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.empty((size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("aligned_relative_position_index", quarter_index(size))
        self.kv = nn.Linear(dim, dim // 2, bias=bias)
        self.q = nn.Linear(dim, dim, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (K, N, C), and what is added to their scores, (N, N / 4) or None -> (K, N, C)."""
        half, width = self.size // 2, x.shape[-1]
        kv = self.kv(x).view(-1, half, 2, half, 2, 2, width // 4).permute(5, 0, 1, 3, 2, 4, 6)
        k, v = kv.reshape(2, x.shape[0], half * half, self.heads, -1).transpose(2, 3)
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        bias = self.relative_position_bias_table[self.aligned_relative_position_index].permute(2, 0, 1).to(q.dtype)
        bias = bias if mask is None else bias + mask.to(q.dtype)
        drop = self.drop if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.contiguous(), dropout_p=drop, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))


class PermutedBlock(nn.Module):
    """Attention in windows, shifted or not, and a feed-forward network with a convolution. (B, H, W, C) -> same."""

    def __init__(
        self, attention: PermutedAttention, dim: int, shift: int, side: int, hidden: int, drop: float, drop_path: float
    ) -> None:
        super().__init__()
        self.shift, self.drop, self.drop_path = shift, drop, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = attention
        self.mlp = ConvFFN(dim, hidden, 5, drop)
        self.attn_mask: Tensor | None
        self.masks: Tensor | None
        masks = wrapped_masks(attention.size, shift) if shift else None
        self.register_buffer("masks", masks, persistent=False)
        self.register_buffer("attn_mask", None if masks is None else stored_mask(masks, side // attention.size))
        self.register_load_state_dict_pre_hook(_for_another_size)

    def forward(self, x: Tensor) -> Tensor:
        y = attend_in_windows(self.attn, self.norm1(x), self.attn.size, self.shift, self.masks)
        y = F.dropout(y, self.drop, self.training)
        x = x + stochastic_depth(y, self.drop_path, self.training)
        return x + stochastic_depth(self.mlp(self.norm2(x)), self.drop_path, self.training)


def _for_another_size(block: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take one's own mask for one that was stored for another `img_size`: it is computed, not learned."""
    stored, own = state.get(f"{prefix}attn_mask"), block.attn_mask
    if stored is not None and own is None:
        del state[f"{prefix}attn_mask"]
    elif isinstance(own, Tensor) and (stored is None or stored.shape != own.shape):
        state[f"{prefix}attn_mask"] = own


@ARCHS.register()
class SRFormer(SequenceSR):
    """(B, in_chans, H, W) in [0, 1] -> (B, in_chans, upscale H, upscale W), not clamped; any size.

    Loads the original's weights. Written from the paper; the original's code forbids commercial use.

    Args:
        img_size: side of the patches that it is trained on: where it is no more than a window, windows are not shifted. Fixes
            the size with ``ape``, and the shape of stored masks.
        patch_size: accepted; no influence.
        in_chans: channels of the image.
        embed_dim: channels inside; a multiple of 4.
        depths: blocks of each group.
        num_heads: attention heads of the blocks of each group.
        window_size: side of the windows, even; images are extended to a multiple of it by their mirror image.
        mlp_ratio: channels inside a feed-forward network over `embed_dim`.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; ``(embed_dim / heads) ** -0.5`` when None.
        drop_rate, attn_drop_rate: shares of features and of attention's weights that training leaves out.
        drop_path_rate: probability of leaving out the last block's branches in training; it grows linearly from 0.
        ape: a learned value for each pixel and channel, which allows one size of image only.
        patch_norm: normalise pixels before the first layer.
        use_checkpoint: compute the insides of blocks again in the backward pass, which saves memory.
        upscale: enlargement.
        img_range: the insides see values this much larger than the input.
        upsampler: ``pixelshuffle``, ``pixelshuffledirect``, ``nearest+conv`` (by 4), or '' for an image of the same size.
        resi_connection: one convolution after each group, or three.

    Raises:
        UserError: settings that do not go together.
    """

    sees_whole = ""

    def __init__(
        self,
        img_size: Count = 64,
        patch_size: int = 1,
        in_chans: Count = 3,
        embed_dim: Count = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6),
        window_size: Count = 8,
        mlp_ratio: Positive = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: Rate = 0.0,
        attn_drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: Count = 2,
        img_range: Positive = 1.0,
        upsampler: Upsampler = "",
        resi_connection: Connection = "1conv",
    ) -> None:
        super().__init__(in_chans, embed_dim, patch_norm, upscale, img_range, upsampler, resi_connection)
        need_windows(embed_dim, depths, num_heads, window_size)
        self.window_size, self.drop_rate = window_size, drop_rate
        side = -(-img_size // window_size) * window_size
        if ape:
            self.learn_positions(side, embed_dim)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        shifts = (0, window_size // 2 if side > window_size else 0)
        hidden = int(embed_dim * mlp_ratio)

        def block(j: int, heads: int) -> PermutedBlock:
            attention = PermutedAttention(embed_dim, window_size, heads, qkv_bias, qk_scale, attn_drop_rate)
            return PermutedBlock(attention, embed_dim, shifts[j % 2], side, hidden, drop_rate, next(rates))

        for depth, heads in zip(depths, num_heads, strict=True):
            blocks = [block(j, heads) for j in range(depth)]
            self.layers.append(ResidualGroup(embed_dim, blocks, resi_connection, use_checkpoint))
        self.init_weights()

    def forward(self, image: Tensor) -> Tensor:
        height, width = (n * self.scale for n in image.shape[-2:])
        return super().forward(pad_to(image, self.window_size))[..., :height, :width]


def need_windows(dim: int, depths: Sequence[int], heads: Sequence[int], size: int) -> None:
    """Refuse settings of which no permuted windows can be made.

    Raises:
        UserError: `size` is odd, or `dim` is no multiple of 4.
    """
    if size % 2:
        raise UserError(f"SRFormer: window_size must be even, since keys stand for 2 x 2 pixels; it is {size}")
    if dim % 4:
        raise UserError(f"SRFormer: embed_dim must be a multiple of 4; it is {dim}")
    need_heads("SRFormer", dim, depths, heads)
