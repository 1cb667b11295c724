"""SRVGGNetCompact: Real-ESRGAN's small network, which works at the input's size and enlarges in its last layer."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from . import ARCHS
from .residual import conv3x3_with_bias, need_addable


def activation(act_type: Literal["relu", "prelu", "leakyrelu"], channels: int) -> nn.Module:
    """The activation of that name; PReLU has a slope per channel.

    Raises:
        UserError: another name.
    """
    if act_type == "relu":
        return nn.ReLU(inplace=True)
    if act_type == "prelu":
        return nn.PReLU(channels)
    if act_type == "leakyrelu":
        return nn.LeakyReLU(0.1, inplace=True)
    raise UserError(f"SRVGGNetCompact: act_type is '{act_type}', but must be relu, prelu or leakyrelu")


@ARCHS.register()
class SRVGGNetCompact(nn.Module):
    """Compact VGG-style network (Wang et al., Real-ESRGAN, 2021). Loads Real-ESRGAN's compact weights.

    ``forward``: (B, num_in_ch, H, W) in [0, 1] -> (B, num_out_ch, upscale * H, upscale * W), a correction added to the input
    enlarged by repetition; not clamped.

    Args:
        num_in_ch: channels of the input.
        num_out_ch: channels of the output; as many as the input has, unless that has one.
        num_feat: channels inside.
        num_conv: convolutions between the first and the last.
        upscale: any integer factor.
        act_type: activation after every convolution but the last.

    Raises:
        UserError: an unknown `act_type`, or numbers of channels that cannot be added.
    """

    size_multiple = 1

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        upscale: Count = 4,
        act_type: Literal["relu", "prelu", "leakyrelu"] = "prelu",
    ) -> None:
        super().__init__()
        need_addable("SRVGGNetCompact", num_in_ch, num_out_ch)
        self.scale = upscale
        layers: list[nn.Module] = []
        for inputs in [num_in_ch] + [num_feat] * num_conv:
            layers += [conv3x3_with_bias(inputs, num_feat), activation(act_type, num_feat)]
        self.body = nn.Sequential(*layers, conv3x3_with_bias(num_feat, num_out_ch * upscale**2))
        self.upsampler = nn.PixelShuffle(upscale)

    def forward(self, x: Tensor) -> Tensor:
        base = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return self.upsampler(self.body(x)) + base
