"""MSRResNet: SRResNet without batch normalisation, BasicSR's baseline."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from . import ARCHS
from .residual import ResidualBlock, conv3x3_with_bias, init_small, need_addable


@ARCHS.register()
class MSRResNet(nn.Module):
    """Modified SRResNet (Ledig et al., CVPR 2017; modified as in ESRGAN, Wang et al., 2018). Loads BasicSR's weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, upscale * H, upscale * W), a correction added to the
    bilinearly enlarged input; not clamped.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the output; as many as the input has, unless that has one.
        num_feat: channels inside.
        num_block: residual blocks.
        upscale: 2, 3 or 4.

    Raises:
        UserError: another `upscale`, or numbers of channels that cannot be added.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: Literal[2, 3, 4] = 4,
    ) -> None:
        super().__init__()
        if upscale not in (2, 3, 4):
            raise UserError(f"MSRResNet: upscale is {upscale}, but must be 2, 3 or 4")
        need_addable("MSRResNet", num_in_ch, num_out_ch)
        self.scale = upscale
        factor = 2 if upscale == 4 else upscale
        self.conv_first = conv3x3_with_bias(num_in_ch, num_feat)
        self.body = nn.Sequential(*[ResidualBlock(num_feat) for _ in range(num_block)])
        self.upconv1 = conv3x3_with_bias(num_feat, num_feat * factor**2)
        if upscale == 4:
            self.upconv2 = conv3x3_with_bias(num_feat, num_feat * factor**2)
        self.pixel_shuffle = nn.PixelShuffle(factor)
        self.conv_hr = conv3x3_with_bias(num_feat, num_feat)
        self.conv_last = conv3x3_with_bias(num_feat, num_out_ch)
        self.lrelu = nn.LeakyReLU(0.1, inplace=True)
        init_small(self)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # convolutions of few channels are faster so
        y = self.body(self.lrelu(self.conv_first(x)))
        y = self.lrelu(self.pixel_shuffle(self.upconv1(y)))
        if self.scale == 4:
            y = self.lrelu(self.pixel_shuffle(self.upconv2(y)))
        y = self.conv_last(self.lrelu(self.conv_hr(y)))
        return y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
