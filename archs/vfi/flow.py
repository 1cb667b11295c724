"""Motion and synthesis: bidirectional flow in three scales (after RIFE, ECCV 2022), warped context, and the last layers.

Names of parameters are those of HybridVFI's original.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.ops.flow_warp import backwarp as backwarp

Pyramid = Sequence[Tensor]
"""Maps (B, c, H, W), (B, 2c, H/2, W/2), (B, 4c, H/4, W/4)."""


def resize_map(x: Tensor, factor: float) -> Tensor:
    """Bilinear, without aligned corners: (B, C, H, W) -> (B, C, factor H, factor W); `x` itself for factor 1."""
    if factor == 1:
        return x
    if torch.compiler.is_exporting():  # by whole numbers, since torch.export cannot compare rounded products of symbols
        times, parts = float(factor).as_integer_ratio()
        size = [side * times // parts for side in x.shape[-2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


def deconv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.PReLU(outputs))


class IFBlock(nn.Module):
    """One scale of the flow estimator.

    Args:
        inputs: channels of images and flow together.
        channels: width, even.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(conv(inputs, channels // 2, 2), conv(channels // 2, channels, 2))
        self.convblock = nn.Sequential(*[conv(channels, channels) for _ in range(8)])
        self.lastconv = nn.ConvTranspose2d(channels, 5, 4, 2, 1)

    def forward(self, x: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor]:
        """What to add to flow (B, 4, H, W) and mask logits (B, 1, H, W), seen at 1/scale; sides multiples of 4 scale."""
        x = resize_map(x, 1 / scale)
        if flow is not None:
            x = torch.cat([x, resize_map(flow, 1 / scale) / scale], 1)
        x = self.conv0(x)
        x = self.convblock(x) + x
        x = resize_map(self.lastconv(x), 2 * scale)
        return x[:, :4] * (2 * scale), x[:, 4:]


class FlowEstimator(nn.Module):
    """Flows from the frame in between to both frames, from coarse to fine; each scale sees the frames warped so far.

    Args:
        channels: widths of the blocks, at 1/4, 1/2 and full size.
    """

    scales = (4, 2, 1)

    def __init__(self, channels: Sequence[int] = (240, 150, 90)) -> None:
        super().__init__()
        first, second, third = channels
        self.block0 = IFBlock(7, first)
        self.block1 = IFBlock(18, second)
        self.block2 = IFBlock(18, third)

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Flow, mask and warped frames.

        Args:
            img0: frame at time 0, (B, 3, H, W), sides multiples of 16.
            img1: frame at time 1.
            timestep: time between 0 and 1, (B, 1, H, W).

        Returns:
            flow in pixels (B, 4, H, W): where to look in frame 0 (first two channels) and in frame 1; logits (B, 1, H, W) of
            frame 0's share; both frames warped.
        """
        flow, mask = self.block0(torch.cat([img0, img1, timestep], 1), None, self.scales[0])
        warped = backwarp(img0, flow[:, :2]), backwarp(img1, flow[:, 2:])
        for block, scale in zip((self.block1, self.block2), self.scales[1:], strict=True):
            x = torch.cat([img0, img1, *warped, mask, timestep], 1)
            more_flow, more_mask = block(x, flow, scale)
            flow, mask = flow + more_flow, mask + more_mask
            warped = backwarp(img0, flow[:, :2]), backwarp(img1, flow[:, 2:])
        return flow, mask, warped

    def at_scale(
        self, img0: Tensor, img1: Tensor, timestep: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """`forward`, shapes included, but with flow and logits estimated on frames of about `scale` times the size, then
        enlarged.
        """
        if scale == 1:
            result: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] = self(img0, img1, timestep)
            return result
        multiple = 4 * self.scales[0]
        height, width = img0.shape[-2:]
        size = [max(round(side * scale / multiple), 1) * multiple for side in (height, width)]
        small = [F.interpolate(t, size=size, mode="bilinear", align_corners=False) for t in (img0, img1, timestep)]
        flow, logits, _ = self(*small)
        flow, logits = (
            F.interpolate(t, size=(height, width), mode="bilinear", align_corners=False) for t in (flow, logits)
        )
        x, y = flow[:, 0::2] * (width / size[1]), flow[:, 1::2] * (height / size[0])
        flow = torch.stack([x, y], 2).flatten(1, 2)
        return flow, logits, (backwarp(img0, flow[:, :2]), backwarp(img1, flow[:, 2:]))


class ContextNet(nn.Module):
    """Features of one frame in three scales, each warped by the flow at its scale.

    Args:
        channels: c, width at full size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.conv0 = nn.Sequential(*conv(3, c), *conv(c, c))
        self.conv1 = nn.Sequential(*conv(c, 2 * c, 2), *conv(2 * c, 2 * c))
        self.conv2 = nn.Sequential(*conv(2 * c, 4 * c, 2), *conv(4 * c, 4 * c))

    def forward(self, x: Tensor, flow: Tensor) -> list[Tensor]:
        """Frame (B, 3, H, W) and flow (B, 2, H, W) -> pyramid."""
        pyramid = []
        for level, layer in enumerate((self.conv0, self.conv1, self.conv2)):
            x = layer(x)
            factor = 0.5**level
            pyramid.append(backwarp(x, resize_map(flow, factor) * factor))
        return pyramid


class RefineNet(nn.Module):
    """From features to the residual and the blending mask of the frame in between.

    Args:
        channels: c, width of the pyramids.
        contexts: number of pyramids besides the backbone's.
    """

    def __init__(self, channels: int, contexts: int = 0) -> None:
        super().__init__()
        c, k = channels, 1 + contexts
        self.conv_up0 = deconv(4 * c * k, 2 * c)
        self.conv_up1 = deconv(2 * c * (1 + k), c)
        self.conv_last = nn.Sequential(conv(c * (1 + k), c), nn.Conv2d(c, 4, 3, 1, 1))

    def forward(self, features: Pyramid, contexts: Sequence[Pyramid] = ()) -> tuple[Tensor, Tensor]:
        """Residual (B, 3, H, W) in (-1, 1) and mask (B, 1, H, W) in (0, 1)."""
        full, half, quarter = ([f, *more] for f, *more in zip(features, *contexts, strict=True))
        x = self.conv_up0(torch.cat(quarter, 1))
        x = self.conv_up1(torch.cat([x, *half], 1))
        x = self.conv_last(torch.cat([x, *full], 1))
        return 2 * torch.sigmoid(x[:, :3]) - 1, torch.sigmoid(x[:, 3:])
