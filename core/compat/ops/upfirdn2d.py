"""Enlarging, filtering and thinning out in one, as StyleGAN2 has it: ``basicsr.ops.upfirdn2d`` without an extension."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: Sequence[int] = (0, 0)) -> Tensor:
    """(N, C, H, W) with `up` - 1 zeros after each pixel, continued by `pad` zeros, convolved, and every `down`-th pixel of it.

    Args:
        kernel: (h, w); the convolution is the mathematical one.
        pad: zeros before and after, along both axes; negative ones cut.
    """
    n, channels, height, width = x.shape
    spread = x.new_zeros(n * channels, 1, height * up, width * up)
    spread[..., ::up, ::up] = x.reshape(n * channels, 1, height, width)
    padded = F.pad(spread, (pad[0], pad[1], pad[0], pad[1]))
    y = F.conv2d(padded, kernel.flip(0, 1).to(x)[None, None])[..., ::down, ::down]
    return y.reshape(n, channels, *y.shape[-2:])
