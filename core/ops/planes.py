"""How kernels walk through planes of (B, C, H, W), whose channels may come first or last in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """`x`, (B, C, H, W), where the pixels of a plane can be walked through with one step, else a copy."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return x if x.is_contiguous() or last else x.contiguous()


def steps(x: Tensor) -> tuple[int, int, int, int]:
    """Channels of `dense` (B, C, H, W), and the distances between samples, channels and pixels in memory."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    return (channels, channels * pixels, pixels, 1) if x.is_contiguous() else (channels, channels * pixels, 1, channels)


def alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one shape in one dense layout, image after image; of other than four dimensions contiguous."""
    x = dense(x) if x.dim() == 4 else x.contiguous()
    return x, y if y.stride() == x.stride() else torch.empty_like(x).copy_(y)
