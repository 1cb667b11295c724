"""NAFSSR: super-resolution of stereo pairs by NAFNet's blocks and attention along the rows of both views.

Chu, Chen, Yu, "NAFSSR: Stereo Image Super-Resolution Using NAFNet", CVPR Workshops 2022. Parameter names are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count, Range
from ..core.errors import UserError
from . import ARCHS
from .blocks import ChannelLayerNorm, halves
from .local_pooling import patch_size, pool_locally
from .nafnet import NAFBlock

Rate = Annotated[float, Range(least=0, below=1)]


class StereoCrossAttention(nn.Module):
    """What each view sees in the other, added to it (section 3.2). Two maps (B, C, H, W) -> the same.

    Rectified views see a point in the same row, so that attention is between the pixels of a row: memory grows with W^2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = channels**-0.5
        self.norm_l = ChannelLayerNorm(channels, eps=1e-6)
        self.norm_r = ChannelLayerNorm(channels, eps=1e-6)
        self.l_proj1 = nn.Conv2d(channels, channels, 1)
        self.r_proj1 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.l_proj2 = nn.Conv2d(channels, channels, 1)
        self.r_proj2 = nn.Conv2d(channels, channels, 1)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        q_left = self.l_proj1(self.norm_l(left)).permute(0, 2, 3, 1)  # (B, H, W, C)
        q_right = self.r_proj1(self.norm_r(right)).permute(0, 2, 3, 1)
        v_left = self.l_proj2(left).permute(0, 2, 3, 1)
        v_right = self.r_proj2(right).permute(0, 2, 3, 1)
        from_right = F.scaled_dot_product_attention(q_left, q_right, v_right, scale=self.scale)
        from_left = F.scaled_dot_product_attention(q_right, q_left, v_left, scale=self.scale)
        return left + self.beta * from_right.permute(0, 3, 1, 2), right + self.gamma * from_left.permute(0, 3, 1, 2)


class StereoBlock(nn.Module):
    """A block of NAFNet's for each view, with shared weights, then cross attention if `fused`."""

    def __init__(self, channels: int, fused: bool, drop_out_rate: float) -> None:
        super().__init__()
        self.blk = NAFBlock(channels, drop_out_rate)
        self.fusion = StereoCrossAttention(channels) if fused else None

    def forward(self, views: Tensor) -> Tensor:
        """(2 B, C, H, W), all left views first -> same."""
        views = self.blk(views)
        return views if self.fusion is None else torch.cat(self.fusion(*halves(views)))


class StochasticDepth(nn.Module):
    """Leaves `module` out of a training step at random (Huang et al., ECCV 2016), for the whole batch at once.

    With a rate above 0 every call in training draws one number from NumPy's global generator, as the original does. Ranks leave
    out the same blocks, those of the first rank.
    """

    def __init__(self, module: nn.Module, rate: float) -> None:
        super().__init__()
        self.module, self.rate = module, rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> what `module` makes of it, which has the same shape."""
        if not (self.training and self.rate):
            return self.module(x)
        if self.drawn(x.device) < self.rate:
            return x
        return x + (self.module(x) - x) / (1 - self.rate)

    def drawn(self, device: torch.device) -> float:
        number = np.random.rand()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shared = torch.tensor([number], dtype=torch.float64, device=device)
            torch.distributed.broadcast(shared, 0)
            number = shared.item()
        return number


@ARCHS.register()
class NAFSSR(nn.Module):
    """Stereo super-resolution. (B, 6, H, W) -> (B, 6, up_scale H, up_scale W), left RGB then right RGB, in [0, 1], not clamped.

    The views must be rectified. What the network adds to the bilinearly enlarged input is returned with it. Means are local
    where the image is larger than one and a half training patches: see `archs.local_pooling`.

    With `drop_path_rate` some training steps leave parameters without a gradient: set ``find_unused_parameters: true`` when
    several processes train.

    Args:
        up_scale: enlargement.
        width: channels inside.
        num_blks: blocks.
        drop_path_rate: probability with which a training step leaves out a block.
        drop_out_rate: share of elements of residual branches that training leaves out.
        fusion_from, fusion_to: first and last block, counted from 0, with attention between the views.
        train_size: [batch, channels, height, width] of the low-resolution patches that the weights were trained on.
        fast_imp: see `NAFNetLocal`.

    Raises:
        UserError: `train_size` is no size, or an input has not six channels.
    """

    size_multiple = 1

    def __init__(
        self,
        up_scale: Count = 4,
        width: Count = 48,
        num_blks: Count = 16,
        drop_path_rate: Rate = 0.0,
        drop_out_rate: Rate = 0.0,
        fusion_from: int = -1,
        fusion_to: int = 1000,
        train_size: Sequence[int] = (1, 6, 30, 90),
        fast_imp: bool = False,
    ) -> None:
        super().__init__()
        self.scale = up_scale
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(
            *[
                StochasticDepth(StereoBlock(width, fusion_from <= i <= fusion_to, drop_out_rate), drop_path_rate)
                for i in range(num_blks)
            ]
        )
        self.up = nn.Sequential(nn.Conv2d(width, 3 * up_scale**2, 3, padding=1), nn.PixelShuffle(up_scale))
        pool_locally(self.body, 0, 1, patch_size(train_size), fast_imp)

    def forward(self, pair: Tensor) -> Tensor:
        """Both views (B, 6, H, W), enlarged.

        Raises:
            UserError: `pair` is not (B, 6, H, W).
        """
        if pair.dim() != 4 or pair.shape[1] != 6:
            raise UserError(f"NAFSSR: takes (B, 6, H, W), left RGB then right RGB; got {tuple(pair.shape)}")
        views = torch.cat(pair.chunk(2, 1)).contiguous(memory_format=torch.channels_last)
        y = self.up(self.body(self.intro(views)))
        enlarged = F.interpolate(pair, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return enlarged + torch.cat(halves(y), 1)
