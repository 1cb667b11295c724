"""A bias and a leaky rectifier, scaled, as StyleGAN2 has them: ``basicsr.ops.fused_act`` without an extension."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fused_leaky_relu(x: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    """(N, C, ...) plus a bias of each channel, rectified, times `scale`."""
    bias = bias.view(1, -1, *[1] * (x.dim() - 2))
    return F.leaky_relu(x + bias, negative_slope) * scale


class FusedLeakyReLU(nn.Module):
    """`fused_leaky_relu` with a learned bias."""

    def __init__(self, channel: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel))
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, ...) -> the same shape."""
        return fused_leaky_relu(x, self.bias, self.negative_slope, self.scale)
