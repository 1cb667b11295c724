"""MambaIR's network for real noise: Restormer's U-shape with state-space blocks (Guo et al., ECCV 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from ..core.annotations import Count, NonNegative, Positive, Range
from ..core.errors import UserError
from ..core.ops.pixelwise import channels, pixels
from . import ARCHS
from .blocks import conv3x3, pointwise
from .state_space_2d import VSSBlock

STATES = 16


class Resampled(nn.Module):
    """A convolution and a pixel (un)shuffle: (B, H, W, C) -> (B, H/2, W/2, 2 C), or twice as large with half the channels."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__()
        wide = 2 * dim if up else dim // 2
        self.body = nn.Sequential(conv3x3(dim, wide), nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return pixels(self.body(channels(x)))


class Projection(nn.Module):
    """A 3 x 3 convolution under the original's name."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.proj = conv3x3(inputs, outputs, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return self.proj(x)


@ARCHS.register()
class MambaIRUNet(nn.Module):
    """(B, inp_channels, H, W) in [0, 1] -> (B, out_channels, H, W), not clamped; H and W multiples of 8.

    A correction is added to the input, except with `dual_pixel_task`. Loads the original's weights.

    Args:
        inp_channels, out_channels: channels of the input and of the output images; equal unless `dual_pixel_task`.
        dim: channels of the first level, at least 30; they double with each.
        num_blocks: blocks of the four levels, from full size down.
        mlp_ratio: channels inside a state-space layer over its level's.
        num_refinement_blocks: blocks at full size after the decoder.
        drop_path_rate: probability of leaving a state-space layer out of a sample's training.
        bias: whether convolutions at the ends and between levels have one.
        dual_pixel_task: two views of one picture whose features are corrected, not the image (dual-pixel deblurring).

    Raises:
        UserError: settings that do not go together.
    """

    sees_whole = "scans of the whole picture"
    size_multiple = 8

    def __init__(
        self,
        inp_channels: Count = 3,
        out_channels: Count = 3,
        dim: Count = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        mlp_ratio: Positive = 2.0,
        num_refinement_blocks: NonNegative = 4,
        drop_path_rate: Annotated[float, Range(least=0, below=1)] = 0.0,
        bias: bool = False,
        dual_pixel_task: bool = False,
    ) -> None:
        super().__init__()
        # Options that do not go together.
        if len(num_blocks) != 4:
            raise UserError(f"MambaIRUNet: num_blocks needs 4 entries, one for each level; got {list(num_blocks)}")
        if inp_channels != out_channels and not dual_pixel_task:
            raise UserError(
                f"MambaIRUNet: inp_channels is {inp_channels} and out_channels {out_channels}; the input is added to the "
                "output, so that they must be equal unless dual_pixel_task"
            )

        def level(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*[VSSBlock(width, STATES, mlp_ratio, drop_path_rate) for _ in range(count)])

        n1, n2, n3, n4 = num_blocks
        # Encoder, bottleneck and decoder, halving and doubling the size between levels.
        self.patch_embed = Projection(inp_channels, dim, bias)
        self.encoder_level1 = level(dim, n1)
        self.down1_2 = Resampled(dim, up=False)
        self.encoder_level2 = level(2 * dim, n2)
        self.down2_3 = Resampled(2 * dim, up=False)
        self.encoder_level3 = level(4 * dim, n3)
        self.down3_4 = Resampled(4 * dim, up=False)
        self.latent = level(8 * dim, n4)
        self.up4_3 = Resampled(8 * dim, up=True)
        self.reduce_chan_level3 = pointwise(8 * dim, 4 * dim, bias)
        self.decoder_level3 = level(4 * dim, n3)
        self.up3_2 = Resampled(4 * dim, up=True)
        self.reduce_chan_level2 = pointwise(4 * dim, 2 * dim, bias)
        self.decoder_level2 = level(2 * dim, n2)
        self.up2_1 = Resampled(2 * dim, up=True)
        self.decoder_level1 = level(2 * dim, n1)
        self.refinement = level(2 * dim, num_refinement_blocks)
        self.skip_conv = pointwise(dim, 2 * dim, bias) if dual_pixel_task else None
        self.output = conv3x3(2 * dim, out_channels, bias)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        first = pixels(self.patch_embed(image))
        skip1 = self.encoder_level1(first)
        skip2 = self.encoder_level2(self.down1_2(skip1))
        skip3 = self.encoder_level3(self.down2_3(skip2))
        x = self.latent(self.down3_4(skip3))
        x = torch.cat((self.up4_3(x), skip3), -1)
        x = self.decoder_level3(pixels(self.reduce_chan_level3(channels(x))))
        x = torch.cat((self.up3_2(x), skip2), -1)
        x = self.decoder_level2(pixels(self.reduce_chan_level2(channels(x))))
        x = self.decoder_level1(torch.cat((self.up2_1(x), skip1), -1))
        x = channels(self.refinement(x))
        if self.skip_conv is not None:
            return self.output(x + self.skip_conv(channels(first)))
        return self.output(x) + image
