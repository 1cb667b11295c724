"""EDSR: a plain residual network for super-resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from . import ARCHS
from .residual import ResidualBlock, conv3x3_with_bias


def pixel_shuffle_head(channels: int, upscale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles that enlarge (B, channels, H, W) by 3 once, or by 2 as often as `upscale` needs."""
    factor = 3 if upscale == 3 else 2
    steps = 1 if upscale == 3 else upscale.bit_length() - 1
    layers: list[nn.Module] = []
    for _ in range(steps):
        layers += [conv3x3_with_bias(channels, channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


@ARCHS.register()
class EDSR(nn.Module):
    """Enhanced Deep Super-Resolution network (Lim et al., CVPR Workshops 2017). Loads BasicSR's weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, upscale * H, upscale * W), not clamped.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the output; as many as the input has, since the same mean is taken off and put back.
        num_feat: channels inside.
        num_block: residual blocks.
        upscale: a power of two, or 3.
        res_scale: factor of each residual branch.
        img_range: the network's insides see values this much larger than its input.
        rgb_mean: mean subtracted from each channel; the default is DIV2K's mean.

    Raises:
        UserError: `upscale` or the number of channels is not one of these.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
    ) -> None:
        super().__init__()
        if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
            raise UserError(f"EDSR: upscale is {upscale}, but must be 3 or a power of two")
        if not len(rgb_mean) == num_in_ch == num_out_ch:
            raise UserError(
                f"EDSR: rgb_mean has {len(rgb_mean)} values, num_in_ch is {num_in_ch} and num_out_ch {num_out_ch}; "
                "all three must agree"
            )
        self.scale = upscale
        self.img_range = img_range
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(rgb_mean)[:, None, None], persistent=False)
        self.conv_first = conv3x3_with_bias(num_in_ch, num_feat)
        self.body = nn.Sequential(*[ResidualBlock(num_feat, res_scale) for _ in range(num_block)])
        self.conv_after_body = conv3x3_with_bias(num_feat, num_feat)
        self.upsample = pixel_shuffle_head(num_feat, upscale)
        self.conv_last = conv3x3_with_bias(num_feat, num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first((x - self.mean) * self.img_range)
        y = self.conv_last(self.upsample(first + self.conv_after_body(self.body(first))))
        return y / self.img_range + self.mean
