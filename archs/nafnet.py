"""NAFNet: restoration without nonlinear activation functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from . import ARCHS
from .blocks import ChannelLayerNorm


def simple_gate(x: Tensor) -> Tensor:
    """Product of the two halves of the channels: (B, 2C, H, W) -> (B, C, H, W)."""
    a, b = x.chunk(2, dim=1)
    return a * b


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block (Chen et al., figure 3c). (B, C, H, W) -> same.

    Both branches are scaled per channel by ``beta`` and ``gamma``, which start at zero: a fresh block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = ChannelLayerNorm(channels, eps=1e-6)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.beta * self.conv3(y * self.sca(y))
        return x + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(x))))


def stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*[NAFBlock(channels) for _ in range(blocks)])


@ARCHS.register()
class NAFNet(nn.Module):
    """U-shaped network of NAF blocks (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022).

    Loads the original's weights. ``forward``: (B, img_channel, H, W) in [0, 1] -> same shape, a correction added to the
    input; not clamped. Any size: the input is extended with zeros to a multiple of ``2 ** len(enc_blk_nums)``, as the
    original does, and the output cropped.

    Args:
        img_channel: channels of the image.
        width: channels at full resolution; they double with every halving of the size.
        middle_blk_num: blocks at the lowest resolution.
        enc_blk_nums: blocks of each encoder stage, from full resolution down.
        dec_blk_nums: blocks of each decoder stage, from the lowest resolution up; as many stages.

    Raises:
        UserError: different numbers of encoder and decoder stages.
    """

    size_multiple = 1

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise UserError(
                f"NAFNet: enc_blk_nums has {len(enc_blk_nums)} stages, dec_blk_nums {len(dec_blk_nums)}; they must agree"
            )
        depth = len(enc_blk_nums)
        widths = [width * 2**level for level in range(depth + 1)]
        self.padder_size = 2**depth
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.encoders = nn.ModuleList(stage(c, n) for c, n in zip(widths, enc_blk_nums, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks = stage(widths[-1], middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)) for c in reversed(widths[1:])
        )
        self.decoders = nn.ModuleList(stage(c, n) for c, n in zip(reversed(widths[:-1]), dec_blk_nums, strict=True))
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % self.padder_size, 0, -height % self.padder_size))
        x = self.intro(image)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        return (image + self.ending(x))[..., :height, :width]
