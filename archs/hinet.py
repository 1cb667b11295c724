"""HINet: restoration in two stages with half instance normalisation.

Chen, Lu, Zhang, Chu, Chen, "HINet: Half Instance Normalization Network for Image Restoration", CVPR Workshops 2021. Parameter
names are the original's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, Levels, NonNegative
from . import ARCHS
from .residual import conv3x3_with_bias


class Convolutions(nn.Module):
    """Two convolutions beside a 1 x 1 one, half of the first's channels normalised per image if `normalised` (figure 3)."""

    def __init__(self, inputs: int, outputs: int, slope: float, normalised: bool = False) -> None:
        super().__init__()
        self.slope = slope
        self.identity = nn.Conv2d(inputs, outputs, 1)
        self.conv_1 = conv3x3_with_bias(inputs, outputs)
        self.conv_2 = conv3x3_with_bias(outputs, outputs)
        self.norm = nn.InstanceNorm2d(outputs // 2, affine=True) if normalised else None

    def features(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        y = self.conv_1(x)
        if self.norm is not None:
            half, rest = y.chunk(2, 1)
            y = torch.cat((self.norm(half), rest), 1)
        y = F.leaky_relu(self.conv_2(F.leaky_relu(y, self.slope)), self.slope)
        return y + self.identity(x)


class ConvBlock(Convolutions):
    """A decoder's block: nothing but that."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return self.features(x)


class Down(Convolutions):
    """An encoder's level: (what goes down, what is skipped across).

    Args:
        inputs, outputs, slope, normalised: see `Convolutions`.
        halves: whether there is a level below; if not, only the second is of use.
        across: whether features of another encoder and decoder of the same level are added (cross-stage feature fusion).
    """

    def __init__(self, inputs: int, outputs: int, slope: float, normalised: bool, halves: bool, across: bool) -> None:
        super().__init__(inputs, outputs, slope, normalised)
        self.csff_enc = conv3x3_with_bias(outputs, outputs) if across else None
        self.csff_dec = conv3x3_with_bias(outputs, outputs) if across else None
        self.downsample = nn.Conv2d(outputs, outputs, 4, 2, 1, bias=False) if halves else None

    def forward(self, x: Tensor, encoded: Tensor | None = None, decoded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) -> the map for the next level (B, outputs, H / 2, W / 2), and the skipped one (B, outputs, H, W).

        `encoded` and `decoded` (B, outputs, H, W) come from the first U-net. Without a level below, both results are the same
        map.
        """
        y = self.features(x)
        if self.csff_enc is not None and self.csff_dec is not None:
            y = y + self.csff_enc(encoded) + self.csff_dec(decoded)
        return (y if self.downsample is None else self.downsample(y)), y


class Up(nn.Module):
    """A decoder's level: the map from below enlarged, beside the one skipped across."""

    def __init__(self, inputs: int, outputs: int, slope: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.conv_block = ConvBlock(inputs, outputs, slope)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W) and the map skipped across, at twice the size, -> (B, outputs, 2 H, 2 W)."""
        return self.conv_block(torch.cat((self.up(x), skip), 1))


class SupervisedAttention(nn.Module):
    """An image from features, and the features with attention to it (MPRNet's supervised attention module)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3_with_bias(width, width)
        self.conv2 = conv3x3_with_bias(width, channels)
        self.conv3 = conv3x3_with_bias(channels, width)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width, H, W) and an image (B, channels, H, W) -> both, the image restored."""
        restored = self.conv2(x) + image
        return self.conv1(x) * torch.sigmoid(self.conv3(restored)) + x, restored


@ARCHS.register()
class HINet(nn.Module):
    """Two U-nets, one after the other, each of which makes an image.

    ``forward``: (B, in_chn, H, W) in [0, 1] -> [first stage's image, second stage's image], the same shape each, not clamped.
    Training compares both with the ground truth; the second is the result. H and W are multiples of ``2 ** (depth - 1)``.

    Half instance normalisation takes its statistics from what it is given: tiles give other values than whole images, and
    published figures come from tiles of the training patch's size (256).

    Args:
        in_chn: channels of the image.
        wf: channels of the first level; they double with each.
        depth: levels.
        relu_slope: negative slope of LeakyReLU.
        hin_position_left, hin_position_right: first and last level, counted from 0, with half instance normalisation.
    """

    result_output = -1

    def __init__(
        self,
        in_chn: Count = 3,
        wf: Count = 64,
        depth: Levels = 5,
        relu_slope: float = 0.2,
        hin_position_left: NonNegative = 0,
        hin_position_right: NonNegative = 4,
    ) -> None:
        super().__init__()
        self.size_multiple = 2 ** (depth - 1)
        self.conv_01 = conv3x3_with_bias(in_chn, wf)
        self.conv_02 = conv3x3_with_bias(in_chn, wf)
        self.down_path_1, self.down_path_2 = nn.ModuleList(), nn.ModuleList()
        self.up_path_1, self.up_path_2 = nn.ModuleList(), nn.ModuleList()
        self.skip_conv_1, self.skip_conv_2 = nn.ModuleList(), nn.ModuleList()
        widths = [wf * 2**level for level in range(depth)]
        for level, width in enumerate(widths):
            below = widths[max(level - 1, 0)]
            normalised, halves = hin_position_left <= level <= hin_position_right, level + 1 < depth
            self.down_path_1.append(Down(below, width, relu_slope, normalised, halves, across=False))
            self.down_path_2.append(Down(below, width, relu_slope, normalised, halves, across=halves))
        for width in reversed(widths[:-1]):
            for ups, skips in ((self.up_path_1, self.skip_conv_1), (self.up_path_2, self.skip_conv_2)):
                ups.append(Up(2 * width, width, relu_slope))
                skips.append(conv3x3_with_bias(width, width))
        self.sam12 = SupervisedAttention(wf, in_chn)
        self.cat12 = nn.Conv2d(2 * wf, wf, 1)
        self.last = conv3x3_with_bias(wf, in_chn)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.conv_01(image)
        encoded: list[Tensor] = []
        for down in self.down_path_1:
            x, skip = down(x)
            encoded.append(skip)
        decoded: list[Tensor] = []
        for i, (up, skip_conv) in enumerate(zip(self.up_path_1, self.skip_conv_1, strict=True)):
            x = up(x, skip_conv(encoded[-2 - i]))
            decoded.append(x)
        features, first = self.sam12(x, image)

        x = self.cat12(torch.cat((self.conv_02(image), features), 1))
        skips: list[Tensor] = []
        for i, down in enumerate(self.down_path_2):
            x, skip = down(x, encoded[i], decoded[-i - 1]) if i < len(decoded) else down(x)
            skips.append(skip)
        for i, (up, skip_conv) in enumerate(zip(self.up_path_2, self.skip_conv_2, strict=True)):
            x = up(x, skip_conv(skips[-2 - i]))
        return [first, self.last(x) + image]
