"""What the networks for video share: residual trunks, enlargement by four, deformable convolution, and the shape of a clip.

Parameter names are BasicSR's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...core.errors import UserError
from ...core.ops.flow_warp import modulated_deform_conv
from ..residual import ResidualBlock, conv3x3_with_bias, init_small

SLOPE = 0.1
"""Negative slope of the leaky ReLU everywhere in these networks."""


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.1, elementwise and in place: any shape -> the same."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def enlarge(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) bilinearly, without aligned corners."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def residual_blocks(channels: int, count: int) -> nn.Sequential:
    """`count` residual blocks, small at first."""
    blocks = nn.Sequential(*[ResidualBlock(channels) for _ in range(count)])
    init_small(blocks)
    return blocks


def need_clip(name: str, clip: Tensor, frames: int | None = None, channels: int = 3) -> None:
    """Check what a network for video is given.

    Raises:
        UserError: not (B, T, channels, H, W), or not `frames` frames.
    """
    if clip.dim() != 5 or clip.shape[2] != channels or not clip.numel():
        raise UserError(f"{name}: takes clips (B, T, {channels}, H, W); got {tuple(clip.shape)}")
    if frames is not None and clip.shape[1] != frames:
        raise UserError(f"{name}: num_frame is {frames}, and the clip has {clip.shape[1]} frames")


def pad_frames(clip: Tensor, multiple: int) -> Tensor:
    """Continue frames (B, T, C, H, W) to multiples of a number, at the right and the bottom.

    They are mirrored, or their last row and column repeated where they are too small for that.
    """
    height, width = clip.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return clip
    mode = "reflect" if down < height and right < width else "replicate"
    padded = F.pad(clip.flatten(0, 1), (0, right, 0, down), mode=mode)
    return padded.unflatten(0, clip.shape[:2])


class ConvResidualBlocks(nn.Module):
    """A convolution, then residual blocks. (B, inputs, H, W) -> (B, channels, H, W)."""

    def __init__(self, inputs: int, channels: int, count: int) -> None:
        super().__init__()
        first = conv3x3_with_bias(inputs, channels)
        self.main = nn.Sequential(first, nn.LeakyReLU(SLOPE, inplace=True), residual_blocks(channels, count))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class Enlarging(nn.Module):
    """Has the last layers of a network that enlarges by four: two pixel shuffles, two convolutions."""

    def add_last_layers(self, channels: int, outputs: int = 3) -> None:
        """Make them, from `channels` to an image."""
        self.upconv1 = conv3x3_with_bias(channels, 4 * channels)
        self.upconv2 = conv3x3_with_bias(channels, 4 * 64)
        self.conv_hr = conv3x3_with_bias(64, 64)
        self.conv_last = conv3x3_with_bias(64, outputs)

    def enlarged(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 3, 4 H, 4 W)."""
        y = lrelu(F.pixel_shuffle(self.upconv1(features), 2))
        y = lrelu(F.pixel_shuffle(self.upconv2(y), 2))
        last: Tensor = self.conv_last(lrelu(self.conv_hr(y)))
        return last


class Stepwise:
    """Runs a step, and with `checkpoint_activations` computes its insides again in the backward pass."""

    def __init__(self, checkpoint_activations: bool) -> None:
        self.recompute = checkpoint_activations

    def __call__(self, step: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            result: Tensor = checkpoint(step, *inputs, use_reentrant=False)
            return result
        return step(*inputs)


class DeformableConv(nn.Module):
    """Weight and bias of a modulated deformable 3 x 3 convolution in `groups` groups of channels with offsets of their own."""

    LARGE = 50.0
    """Mean length of offsets, in pixels, from which alignment has most likely come to nothing."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        bound = 1 / math.sqrt(inputs * 9)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def convolve(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W); `offset` and `mask` as `modulated_deform_conv` takes them."""
        return modulated_deform_conv(x, offset, mask, self.weight, self.bias, padding=1)


class DCNv2Pack(DeformableConv):
    """One whose offsets and mask are computed from another feature; no offsets at first.

    Attributes:
        moved: mean length of the offsets in training, in pixels, (): the largest of the calls since somebody set it to None.
    """

    def __init__(self, channels: int, groups: int) -> None:
        if channels % groups:
            raise UserError(f"deformable_groups: {groups} groups do not divide {channels} channels")
        super().__init__(channels, channels, groups)
        self.conv_offset = conv3x3_with_bias(channels, groups * 27)
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)
        self.moved: Tensor | None = None

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        first, second, mask = self.conv_offset(feature).chunk(3, dim=1)
        offset = torch.cat([first, second], dim=1)
        if self.training:
            mean = offset.detach().float().abs().mean()
            self.moved = mean if self.moved is None else torch.maximum(self.moved, mean)
        return self.convolve(x, offset, mask.sigmoid())
