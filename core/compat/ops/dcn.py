"""Modulated deformable convolution, by torchvision instead of an extension to be compiled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ...ops import flow_warp


def modulated_deform_conv(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """The convolution of `x` (N, C, H, W) at shifted places; `offset` (N, 2 G K, H', W') is (dy, dx) of each of the K taps."""
    del groups, deformable_groups  # which the shapes say
    return flow_warp.modulated_deform_conv(
        x, offset, mask, weight, bias, _pair(stride), _pair(padding), _pair(dilation)
    )


class ModulatedDeformConv(nn.Module):
    """Weight and bias of a modulated deformable convolution; offsets and mask are given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.deformable_groups = groups, deformable_groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.init_weights()

    def init_weights(self) -> None:
        """Uniform within one by the root of the inputs; biases are 0."""
        bound = 1.0 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w); `offset` and `mask` as `modulated_deform_conv` takes them, in these shapes."""
        return modulated_deform_conv(
            x,
            offset,
            mask,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.deformable_groups,
        )


class ModulatedDeformConvPack(ModulatedDeformConv):
    """One that computes offsets and mask from its input, none at first."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        taps = math.prod(self.kernel_size)
        self.conv_offset = nn.Conv2d(
            self.in_channels,
            self.deformable_groups * 3 * taps,
            self.kernel_size,
            _pair(self.stride),
            _pair(self.padding),
            _pair(self.dilation),
        )
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def guided(self, x: Tensor, feat: Tensor) -> Tensor:
        """`x` (B, in, H, W) convolved, with offsets and masks computed from `feat` (B, in, H, W): (B, out, h, w)."""
        first, second, mask = torch.chunk(self.conv_offset(feat), 3, dim=1)
        return super().forward(x, torch.cat((first, second), dim=1), torch.sigmoid(mask))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, in, H, W) -> (B, out, h, w)."""
        return self.guided(x, x)
