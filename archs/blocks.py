"""Blocks that the transposed-attention networks share (Restormer, DiffIR, Spectroformer, Phaseformer, NAFNet's norm).

Parameter names follow Restormer (Zamir et al., CVPR 2022), so that its descendants' checkpoints load. Each block is also a plain
function of tensors and convolutions for networks that call their parameters otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, H, W) at the bottom and the right until both sides are multiples of `multiple`.

    Mirrors the image (without repeating its edge) where it is large enough to be mirrored, repeats the edge otherwise.
    Returns `x` itself when nothing is missing; crop the result with ``[..., :H, :W]``.
    """
    down, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    if not down and not right:
        return x
    mode = "reflect" if down < x.shape[-2] and right < x.shape[-1] else "replicate"
    return F.pad(x, (0, right, 0, down), mode=mode)


def inner_width(dim: int, expansion: float) -> int:
    """Channels inside a feed-forward block: ``int(dim * expansion)``, truncated as the originals do."""
    return int(dim * expansion)


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of every pixel of (B, C, H, W), with a learned gain and offset per channel.

    Args:
        channels: C.
        eps: added to the variance (biased, as in ``torch.nn.LayerNorm``).
        bias: False is Restormer's "BiasFree" form: no offset, and the mean is not subtracted from the numerator either.
    """

    def __init__(self, channels: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return channel_layer_norm(x, self.weight, self.bias, self.eps)


def channel_layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """The function behind `ChannelLayerNorm`; statistics in float32 at least."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    scale = torch.rsqrt(variance + eps)
    if bias is None:
        return x * scale * weight[:, None, None]
    return (x - mean) * scale * weight[:, None, None] + bias[:, None, None]


class GatedFeedForward(nn.Module):
    """Gated depthwise-convolution feed-forward network (Restormer, eq. 2): ``project_out(gelu(a) * b)``.

    (a, b) are the halves of ``dwconv(project_in(x))``; ``int(dim * expansion)`` channels each. (B, dim, H, W) -> same.
    """

    def __init__(self, dim: int, expansion: float, bias: bool = False) -> None:
        super().__init__()
        inner = inner_width(dim, expansion)
        self.project_in = nn.Conv2d(dim, 2 * inner, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * inner, 2 * inner, 3, padding=1, groups=2 * inner, bias=bias)
        self.project_out = nn.Conv2d(inner, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return gated_feed_forward(x, self.project_in, self.dwconv, self.project_out)


def gated_feed_forward(x: Tensor, project_in: nn.Conv2d, depthwise: nn.Conv2d, project_out: nn.Conv2d) -> Tensor:
    """The function behind `GatedFeedForward`."""
    a, b = depthwise(project_in(x)).chunk(2, dim=1)
    return project_out(F.gelu(a) * b)


class TransposedAttention(nn.Module):
    """Multi-head attention between channels (Restormer's MDTA, eq. 1). (B, dim, H, W) -> same; cost linear in pixels."""

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        return mix_channels(
            v, compose(self.project_out.weight, channel_attention(q, k, self.temperature)), self.project_out.bias
        )


def channel_attention(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """Softmax of the cosine similarity of query and key channels: (B, C, H, W) twice -> (B, heads, C/heads, C/heads).

    Args:
        q: queries; rows of the result.
        k: keys; columns of the result.
        temperature: one factor per head, in any shape with that many elements.
    """
    heads = temperature.numel()
    with torch.autocast(q.device.type, enabled=False):  # sums over all pixels overflow float16
        q, k = (t.float().flatten(2).unflatten(1, (heads, -1)) for t in (q, k))
        # Dividing the products by the norms is the same as normalising the maps first, without two maps to keep.
        norms = [torch.linalg.vector_norm(t, dim=-1).clamp_min(1e-12) for t in (q, k)]
        cosine = q @ k.transpose(-2, -1) / (norms[0][..., :, None] * norms[1][..., None, :])
        return (cosine * temperature.reshape(heads, 1, 1)).softmax(dim=-1)


def compose(weight: Tensor, attention: Tensor) -> Tensor:
    """The one matrix per image that attention followed by a 1 x 1 convolution amounts to.

    Args:
        weight: (O, C, 1, 1), kernel of the convolution that follows the attention.
        attention: (B, heads, d, d) with ``heads * d = C``.

    Returns:
        (B, O, C).
    """
    batch, heads, d, _ = attention.shape
    with torch.autocast(attention.device.type, enabled=False):
        rows = weight.float().reshape(1, -1, heads, d).transpose(1, 2)
        return (rows @ attention).transpose(1, 2).reshape(batch, -1, heads * d)


def mix_channels(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the channels of (B, C, H, W) by a matrix per image (B, O, C), and add a bias (O): (B, O, H, W)."""
    y = (matrix.to(x.dtype) @ x.flatten(2)).unflatten(2, x.shape[2:])
    return y if bias is None else y + bias[:, None, None].to(y.dtype)
