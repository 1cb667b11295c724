"""RIDNet: a residual network with channel attention for the noise of real cameras.

Anwar and Barnes, "Real Image Denoising with Feature Attention", ICCV 2019. Parameter names are BasicSR's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from . import ARCHS
from .residual import ChannelAttention, ResidualBlock, conv3x3_with_bias, init_small


def dilated(channels: int, first: int, second: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with these dilations, each rectified. (B, C, H, W) -> same."""
    convs = [nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (first, second)]
    return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU())


class MergeAndRun(nn.Module):
    """Two branches of dilated convolutions, merged and added to their input (section 3.2). (B, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilation1 = dilated(channels, 1, 2)
        self.dilation2 = dilated(channels, 3, 4)
        self.aggregation = nn.Sequential(conv3x3_with_bias(2 * channels, channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.aggregation(torch.cat([self.dilation1(x), self.dilation2(x)], 1))


class EnhancedResidualBlock(nn.Module):
    """Three convolutions beside their input, the sum rectified. (B, C, H, W) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 1)
        self.body = nn.Sequential(
            conv3x3_with_bias(channels, channels), nn.ReLU(), conv3x3_with_bias(channels, channels), nn.ReLU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class EAM(nn.Module):
    """Enhancement attention module: merge and run, two residual blocks, channel attention (figure 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = MergeAndRun(channels)
        self.block1 = ResidualBlock(channels)
        init_small(self.block1)
        self.block2 = EnhancedResidualBlock(channels)
        self.ca = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y: Tensor = self.ca(self.block2(F.relu(self.block1(self.merge(x)))))
        return y


def mean_shift(img_range: float, mean: Sequence[float], std: Sequence[float], sign: int) -> nn.Conv2d:
    """A 1 x 1 convolution that divides channels by `std` and adds ``sign * img_range * mean / std``; trained like others."""
    conv = nn.Conv2d(3, 3, 1)
    divisor = torch.tensor(std)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_((torch.eye(3) / divisor[:, None])[..., None, None])
        conv.bias.copy_(sign * img_range * torch.tensor(mean) / divisor)
    return conv


@ARCHS.register()
class RIDNet(nn.Module):
    """``image + correction``, by enhancement attention modules. Loads BasicSR's weights.

    ``forward``: (B, 3, H, W) in [0, img_range] -> the same, not clamped. The means at both ends are convolutions, and trained.

    Args:
        in_channels: channels of the input: 3.
        mid_channels: channels inside, at least 16.
        out_channels: channels of the output: 3.
        num_block: enhancement attention modules.
        img_range: range of the input: the mean that is subtracted is `rgb_mean` times this.
        rgb_mean: mean of the three channels, for an `img_range` of 1.
        rgb_std: what channels are divided by at both ends.

    Raises:
        UserError: not three channels.
    """

    size_multiple = 1

    def __init__(
        self,
        in_channels: Count,
        mid_channels: Count,
        out_channels: Count,
        num_block: Count = 4,
        img_range: Positive = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
        rgb_std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if not in_channels == out_channels == len(rgb_mean) == len(rgb_std) == 3:
            raise UserError(
                "RIDNet: takes and makes three channels: in_channels, out_channels and the means must agree"
            )
        if not all(rgb_std):
            raise UserError(f"RIDNet: rgb_std must not be zero; it is {list(rgb_std)}")
        self.sub_mean = mean_shift(img_range, rgb_mean, rgb_std, -1)
        self.add_mean = mean_shift(img_range, rgb_mean, rgb_std, 1)
        self.head = conv3x3_with_bias(in_channels, mid_channels)
        self.body = nn.Sequential(*[EAM(mid_channels) for _ in range(num_block)])
        self.tail = conv3x3_with_bias(mid_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tail(self.body(F.relu(self.head(self.sub_mean(x)))))
        return x + self.add_mean(y)
