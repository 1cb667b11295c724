"""RCAN in BasicSR's form: residual groups with channel attention for super-resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.annotations import Count, Positive
from ..core.errors import UserError
from . import ARCHS
from .edsr import pixel_shuffle_head
from .residual import ChannelAttention, conv3x3_with_bias


class AttentionBlock(nn.Module):
    """``x + res_scale * attention(conv(relu(conv(x))))`` (figure 4). (B, C, H, W) -> same."""

    def __init__(self, channels: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.rcab = nn.Sequential(
            conv3x3_with_bias(channels, channels),
            nn.ReLU(inplace=True),
            conv3x3_with_bias(channels, channels),
            ChannelAttention(channels, squeeze_factor),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rcab(x), alpha=self.res_scale)


class AttentionGroup(nn.Module):
    """Blocks and a convolution, beside their input. (B, C, H, W) -> same."""

    def __init__(self, channels: int, blocks: int, squeeze_factor: int, res_scale: float) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(
            *[AttentionBlock(channels, squeeze_factor, res_scale) for _ in range(blocks)]
        )
        self.conv = conv3x3_with_bias(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.residual_group(x))


@ARCHS.register()
class RCAN(nn.Module):
    """Residual channel attention network (Zhang et al., ECCV 2018). Loads BasicSR's weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, upscale * H, upscale * W), not clamped.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the output; as many as the input has, since the same mean is taken off and put back.
        num_feat: channels inside, at least `squeeze_factor`.
        num_group: residual groups.
        num_block: blocks of each group.
        squeeze_factor: channels of a block over those inside its attention.
        upscale: a power of two, or 3.
        res_scale: factor of each block's branch.
        img_range: the network's insides see values this much larger than its input.
        rgb_mean: mean subtracted from each channel; the default is DIV2K's mean.

    Raises:
        UserError: `upscale` or the number of channels is not one of these.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: Count,
        num_out_ch: Count,
        num_feat: Count = 64,
        num_group: Count = 10,
        num_block: Count = 16,
        squeeze_factor: Count = 16,
        upscale: Count = 4,
        res_scale: float = 1.0,
        img_range: Positive = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        super().__init__()
        if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
            raise UserError(f"RCAN: upscale is {upscale}, but must be 3 or a power of two")
        if not len(rgb_mean) == num_in_ch == num_out_ch:
            raise UserError(
                f"RCAN: rgb_mean has {len(rgb_mean)} values, num_in_ch is {num_in_ch} and num_out_ch {num_out_ch}; "
                "all three must agree"
            )
        self.scale, self.img_range = upscale, img_range
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(rgb_mean)[:, None, None], persistent=False)
        self.conv_first = conv3x3_with_bias(num_in_ch, num_feat)
        groups = [AttentionGroup(num_feat, num_block, squeeze_factor, res_scale) for _ in range(num_group)]
        self.body = nn.Sequential(*groups)
        self.conv_after_body = conv3x3_with_bias(num_feat, num_feat)
        self.upsample = pixel_shuffle_head(num_feat, upscale)
        self.conv_last = conv3x3_with_bias(num_feat, num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first((x - self.mean) * self.img_range)
        y = self.conv_last(self.upsample(first + self.conv_after_body(self.body(first))))
        return y / self.img_range + self.mean
