"""DUF: video super-resolution by a filter of its own for each pixel of the output, without moving frames.

Jo, Oh, Kang, Kim, "Deep Video Super-Resolution Network Using Dynamic Upsampling Filters Without Explicit Motion Compensation",
CVPR 2018. Parameter names are BasicSR's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.annotations import Count
from ...core.errors import UserError
from .. import ARCHS
from .layers import need_clip

FRAMES, WIDTH, TAPS = 7, 64, 5
"""Frames of a clip, channels before the dense blocks, and the side of a filter."""
DEPTHS = {16: (3, 32), 28: (9, 16), 52: (21, 16)}
"""Dense blocks that keep all frames, and channels that each adds, by the number of layers."""


class Dense(nn.Sequential):
    """What a dense block adds: normalised, 1 x 1 x 1 convolution, normalised, 3 x 3 x 3 convolution.

    Args:
        inputs: channels.
        growth: channels of the result.
        along: zero frames added at either end; without any, the result has two frames fewer.
        norm: epsilon and momentum of batch normalisation.
    """

    def __init__(self, inputs: int, growth: int, along: int, norm: tuple[float, float]) -> None:
        super().__init__(
            nn.BatchNorm3d(inputs, *norm),
            nn.ReLU(),
            nn.Conv3d(inputs, inputs, 1),
            nn.BatchNorm3d(inputs, *norm),
            nn.ReLU(),
            nn.Conv3d(inputs, growth, 3, padding=(along, 1, 1)),
        )


class DenseBlocks(nn.Module):
    """Dense blocks over all frames. (B, C, T, H, W) -> (B, C + count * growth, T, H, W)."""

    def __init__(self, inputs: int, count: int, growth: int, norm: tuple[float, float]) -> None:
        super().__init__()
        self.dense_blocks = nn.ModuleList([Dense(inputs + i * growth, growth, 1, norm) for i in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.dense_blocks:
            x = torch.cat([x, block(x)], 1)
        return x


class Reducing(nn.Module):
    """Three dense blocks, each of which takes away the first and the last frame.

    (B, C, 7, H, W) -> (B, C + 3 growth, 1, H, W).
    """

    def __init__(self, inputs: int, growth: int, norm: tuple[float, float]) -> None:
        super().__init__()
        self.temporal_reduce1 = Dense(inputs, growth, 0, norm)
        self.temporal_reduce2 = Dense(inputs + growth, growth, 0, norm)
        self.temporal_reduce3 = Dense(inputs + 2 * growth, growth, 0, norm)

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.temporal_reduce1, self.temporal_reduce2, self.temporal_reduce3):
            x = torch.cat([x[:, :, 1:-1], block(x)], 1)
        return x


def filtered(image: Tensor, filters: Tensor) -> Tensor:
    """Each pixel's surroundings times filters of its own (equation 1).

    Args:
        image: (B, C, H, W).
        filters: (B, taps of a square, K, H, W).

    Returns:
        (B, C * K, H, W).
    """
    side = int(filters.shape[1] ** 0.5)
    around = F.unfold(image, side, padding=side // 2).unflatten(1, (image.shape[1], -1)).unflatten(-1, image.shape[-2:])
    return torch.einsum("bcthw,btkhw->bckhw", around, filters).flatten(1, 2)


@ARCHS.register()
class DUF(nn.Module):
    """The middle one of seven frames, enlarged. Loads BasicSR's weights.

    ``forward``: (B, 7, 3, H, W) in [0, 1] -> (B, 3, scale * H, scale * W), not clamped.

    Args:
        scale: enlargement.
        num_layer: 16, 28 or 52 layers.
        adapt_official_weights: normalise as the authors' own weights, converted from TensorFlow, need it.

    Raises:
        UserError: another number of layers, or of frames.
    """

    size_multiple = 1
    takes_frames = FRAMES

    def __init__(self, scale: Count = 4, num_layer: int = 52, adapt_official_weights: bool = False) -> None:
        super().__init__()
        if num_layer not in DEPTHS:
            raise UserError(f"DUF: num_layer must be one of {', '.join(map(str, DEPTHS))}; it is {num_layer}")
        count, growth = DEPTHS[num_layer]
        norm = (1e-3, 1e-3) if adapt_official_weights else (1e-5, 0.1)
        dense = WIDTH + count * growth
        self.scale = scale
        self.conv3d1 = nn.Conv3d(3, WIDTH, (1, 3, 3), padding=(0, 1, 1))
        self.dense_block1 = DenseBlocks(WIDTH, count, growth, norm)
        self.dense_block2 = Reducing(dense, growth, norm)
        self.bn3d2 = nn.BatchNorm3d(dense + 3 * growth, *norm)
        self.conv3d2 = nn.Conv3d(dense + 3 * growth, 256, (1, 3, 3), padding=(0, 1, 1))
        self.conv3d_r1 = nn.Conv3d(256, 256, 1)
        self.conv3d_r2 = nn.Conv3d(256, 3 * scale**2, 1)
        self.conv3d_f1 = nn.Conv3d(256, 512, 1)
        self.conv3d_f2 = nn.Conv3d(512, TAPS**2 * scale**2, 1)

    def forward(self, clip: Tensor) -> Tensor:
        need_clip("DUF", clip, FRAMES)
        x = self.dense_block2(self.dense_block1(self.conv3d1(clip.transpose(1, 2))))
        x = F.relu(self.conv3d2(F.relu(self.bn3d2(x))))
        residual = self.conv3d_r2(F.relu(self.conv3d_r1(x)))[:, :, 0]
        filters = self.conv3d_f2(F.relu(self.conv3d_f1(x)))[:, :, 0].unflatten(1, (TAPS**2, -1)).softmax(1)
        return F.pixel_shuffle(filtered(clip[:, FRAMES // 2], filters) + residual, self.scale)
