"""Gated attention in shifted windows, from queries, keys and values in image order into image order."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .dispatch import device_obstacle, use_kernel
from .scan import window_partition, window_reverse
from .self_test import case
from .self_test import heads as split

MASKED = -100.0
"""Number that is added to the scores of pixels that only the cyclic shift brought into one window. Swin's value; finite."""
MOST_TOKENS, WIDEST = 64, 128
"""Most tokens of a window, and channels of a head, that the fused kernels take."""
SIDE = 8
"""Side of the windows that are tried: HybridVFI's."""


def fuses_windows(x: Tensor, heads: int, side: int) -> bool:
    """Whether `window_attention` of C channels like those of `x` (B, H, W, C) would run its kernels."""
    qkv = (*x.shape[:3], 3 * x.shape[3])
    return use_kernel("window_attention", functools.partial(_obstacle, x.shape[3] // heads, side, x=x), x, qkv)


def window_attention(qkv: Tensor, gate: Tensor, side: int, shift: int = 0, scale: float | None = None) -> Tensor:
    """``sigmoid(gate) * softmax(scale q k^T + mask) v`` in windows of an image that is shifted cyclically, and shifted back.

    Args:
        qkv: queries, keys and values side by side, each by heads: (B, H, W, 3 C), sides multiples of `side`.
        gate: gate before the sigmoid, (B, H, W, heads).
        side: side of a window.
        shift: rows and columns to shift by, less than `side`; 0 for none.
        scale: scale of the scores; ``(C / heads) ** -0.5`` when None.

    Returns:
        (B, H, W, C) in the dtype of `qkv`; differentiable once where fused.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    if qkv.dim() != 4 or gate.shape[:3] != qkv.shape[:3] or qkv.shape[3] % (3 * max(gate.shape[-1], 1)):
        raise UserError(
            f"window_attention: qkv (B, H, W, 3 C) and gate (B, H, W, heads) do not go together: "
            f"{tuple(qkv.shape)} and {tuple(gate.shape)}"
        )
    if side < 1 or qkv.shape[1] % side or qkv.shape[2] % side or not 0 <= shift < side:
        raise UserError(
            f"window_attention: windows of {side} with shift {shift} do not tile {qkv.shape[1]} x {qkv.shape[2]} pixels"
        )
    width = qkv.shape[3] // 3 // gate.shape[3]
    scale = width**-0.5 if scale is None else scale
    if use_kernel("window_attention", functools.partial(_obstacle, width, side, qkv=qkv, gate=gate), qkv):
        from .window_attention_triton import fused

        result: Tensor = fused(qkv, gate, side, shift, scale, MASKED)
        return result
    return plain(qkv, gate, side, shift, scale)


def _sized(side: int, width: int) -> tuple[tuple[int, ...], ...]:
    c = max(width // 3, 1)
    return (1, side, side, 3 * c), (1, side, side, split(c, 16))


@case("window_attention", (1, 16, 8, 48), (1, 16, 8, 2), sized=_sized)
def _case(qkv: Tensor, gate: Tensor) -> Tensor:
    side = min(qkv.shape[1], SIDE)
    return window_attention(qkv - 0.6, gate, side, side // 2)


def plain(qkv: Tensor, gate: Tensor, side: int, shift: int, scale: float) -> Tensor:
    """`window_attention`, shapes included, in PyTorch."""
    _, height, width, _ = qkv.shape
    heads = gate.shape[3]
    rows, columns = (torch.arange(n, device=qkv.device) >= n - shift for n in (height, width))
    region = (2 * rows[:, None].long() + columns.long())[None, :, :, None]
    region = window_partition(region, side).flatten(1)
    masked = MASKED * (region[:, :, None] != region[:, None]).to(qkv.dtype)
    tokens, opened = (window_partition(t.roll((-shift, -shift), (1, 2)), side).flatten(1, 2) for t in (qkv, gate))
    q, k, v = tokens.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mask = masked.repeat(qkv.shape[0], 1, 1)[:, None]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
    y = (y * torch.sigmoid(opened)[..., None].to(y.dtype)).flatten(2).unflatten(1, (side, side))
    return window_reverse(y, height, width).roll((shift, shift), (1, 2))


def _obstacle(width: int, side: int, **tensors: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if side * side > MOST_TOKENS or width > WIDEST:
        return f"it takes up to {MOST_TOKENS} tokens and {WIDEST} channels of a head, there are {side**2} and {width}"
    return device_obstacle("window_attention", **tensors)
