"""Shifted-window attention with a gate per head and token (Qiu et al., "Gated Attention for Large Language Models", 2025)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.ops.scan import window_partition, window_reverse
from ...core.ops.window_attention import MASKED, window_attention


class GatedWindowAttention(nn.Module):
    """Multi-head attention within windows; each head's output is scaled by a sigmoid of the input before the projection.

    Args:
        dim: C.
        num_heads: heads; divides C.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: factor of the scores; ``(C / heads) ** -0.5`` when None.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, qk_scale: float | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qk_scale = qk_scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.gate = nn.Linear(dim, num_heads)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens of windows (K, N, C) -> the same.

        Args:
            x: windows.
            mask: what is added to the scores, (N, N) for all windows, or (K, 1, N, N).
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (K, heads, N, d) each
        mask = None if mask is None else mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.qk_scale)
        y = y.transpose(1, 2) * torch.sigmoid(self.gate(x))[..., None]
        return self.proj(y.flatten(2))

    def on_image(self, x: Tensor, size: int, shift: int) -> Tensor:
        """`attend_in_windows` of this attention at once: (B, H, W, C) -> the same."""
        return self.proj(window_attention(self.qkv(x), self.gate(x), size, shift, self.qk_scale))


def shift_masks(size: int, shift: int) -> Tensor:
    """Score offsets, (2, 2, size^2, size^2), for windows [in the last row or not][in the last column or not].

    The cyclic shift brings the image's other side into the last `shift` rows or columns of these windows, and of no others.
    """
    wrapped = (torch.arange(size) >= size - shift).long()
    masks = [(bottom * wrapped[:, None] + 2 * right * wrapped).flatten() for bottom in (0, 1) for right in (0, 1)]
    crossed = torch.stack([m[:, None] != m for m in masks])
    return (MASKED * crossed.float()).unflatten(0, (2, 2))


def attend_in_windows(
    attention: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, size: int, shift: int, masks: Tensor | None
) -> Tensor:
    """Attention in windows of an image that was shifted cyclically before and is shifted back after.

    The last row and the last column of windows are treated separately: three N x N masks then do for an image of any size,
    and all other windows need none.

    Args:
        attention: function of windows (K, N, C) and of what is added to the scores, (N, N) or None; where it is exported
            (K, 1, N, N).
        x: (B, H, W, C), sides multiples of `size`.
        size: side of a window.
        shift: rows and columns to shift by; 0 for none.
        masks: `shift_masks`; None when shift is 0.
    """

    def attend(part: Tensor, mask: Tensor | None) -> Tensor:
        tokens = window_partition(part, size).flatten(1, 2)
        return window_reverse(attention(tokens, mask).unflatten(1, (size, size)), *part.shape[1:3])

    if masks is None:
        return attend(x, None)
    x = x.roll((-shift, -shift), (1, 2))
    if torch.compiler.is_exporting():  # whether there are windows besides the last need not be known then
        images, height, width, _ = x.shape
        return attend(x, of_each_window(masks, images, height // size, width // size)).roll((shift, shift), (1, 2))
    rows = []
    for bottom, strip in last_apart(x, 1, size):
        parts = last_apart(strip, 2, size)
        rows.append(torch.cat([attend(p, masks[bottom, right] if bottom or right else None) for right, p in parts], 2))
    return torch.cat(rows, 1).roll((shift, shift), (1, 2))


def of_each_window(masks: Tensor, images: int, rows: int, columns: int) -> Tensor:
    """`shift_masks` for all windows of images, row by row, of shape (images * rows * columns, 1, N, N)."""
    bottom, right = ((torch.arange(n, device=masks.device) == n - 1).long() for n in (rows, columns))
    each = masks[bottom[:, None], right]
    return each.expand(images, -1, -1, -1, -1).flatten(0, 2)[:, None]


def last_apart(x: Tensor, dim: int, size: int) -> list[tuple[int, Tensor]]:
    """The last `size` places along `dim` as ``(1, ...)``, and what comes before, if anything does, as ``(0, ...)``."""
    return [(last, part) for last, part in enumerate(x.tensor_split([x.shape[dim] - size], dim)) if part.numel()]
