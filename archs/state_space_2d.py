"""The state-space layer of MambaIR, and the block around it.

Guo, Li, Dai, Ouyang, Ren, Xia, "MambaIR: A Simple Baseline for Image Restoration with State-Space Model", ECCV 2024. Parameter
names are the original's. Maps are pixel-major, (B, H, W, C).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.pixelwise import channels, pixels
from ..core.ops.precision import at_least_float32
from ..core.ops.scan import cross_merge, cross_scan
from ..core.ops.selective_scan import selective_scan
from .blocks import stochastic_depth
from .residual import ChannelAttention, conv3x3_with_bias


class ScanParameters(nn.Module):
    """The parameters of some scans side by side: what makes B, C and the step sizes of a sequence, its decay and its skip.

    Args:
        scans: K.
        width: d, channels of each.
        d_state: n, states of a channel.
        rank: R, of the matrix that makes the step sizes.
    """

    def __init__(self, scans: int, width: int, d_state: int, rank: int) -> None:
        super().__init__()
        self.split = [rank, d_state, d_state]
        self.x_proj_weight = nn.Parameter(torch.empty(scans, rank + 2 * d_state, width).uniform_(-1, 1) * width**-0.5)
        self.dt_projs_weight = nn.Parameter(torch.empty(scans, width, rank).uniform_(-1, 1) * rank**-0.5)
        dt = torch.exp(torch.rand(scans, width) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp(min=1e-4)
        self.dt_projs_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        states = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_logs = nn.Parameter(states.log().repeat(scans * width, 1))
        self.Ds = nn.Parameter(torch.ones(scans * width))

    def scan(self, u: Tensor, low: Tensor, prompt: Tensor | None = None) -> Tensor:
        """The K scans of a sample at once.

        Args:
            u: sequences, (B, K, d, L).
            low: projections of the sequences by ``x_proj_weight``, (B, K, R + 2 n, L).
            prompt: what is added to C, (B, K, n, L).

        Returns:
            (B, K, d, L).
        """
        dt, B, C = low.split(self.split, 2)
        y = selective_scan(
            u.flatten(1, 2),
            torch.matmul(self.dt_projs_weight, dt).flatten(1, 2),
            -torch.exp(at_least_float32(self.A_logs)),
            B,
            C if prompt is None else C + prompt,
            self.Ds,
            delta_bias=self.dt_projs_bias.flatten(),
            delta_softplus=True,
        )
        assert isinstance(y, Tensor)
        return y.view(u.shape)


class SS2D(ScanParameters):
    """Selective scans of an image in four directions, between two linear layers (figure 4). (B, H, W, dim) -> same.

    Args:
        dim: channels.
        d_state: states of a channel.
        expand: channels inside over `dim`.
    """

    def __init__(self, dim: int, d_state: int, expand: float) -> None:
        inner = int(expand * dim)
        super().__init__(4, inner, d_state, math.ceil(dim / 16))
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x, z = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv2d(channels(x.contiguous())))
        # What every direction is projected to is made once, in the order of rows, and is narrow: then it is put in order.
        low = F.linear(pixels(x), self.x_proj_weight.flatten(0, 1)).permute(0, 3, 1, 2).unflatten(1, (4, -1))
        rows, columns = low.flatten(3), low.transpose(3, 4).flatten(3)
        ordered = torch.stack((rows[:, 0], columns[:, 1], rows[:, 2].flip(-1), columns[:, 3].flip(-1)), 1)
        y = pixels(cross_merge(self.scan(cross_scan(x), ordered), height, width))
        return self.out_proj(self.out_norm(y) * F.silu(z))


class ConvolutionAttention(nn.Module):
    """Two convolutions with fewer channels between, and channel attention. (B, C, H, W) -> same.

    Args:
        channels: C, at least 30, by which channel attention divides.
        light: convolutions in their separable form.
    """

    def __init__(self, channels: int, light: bool) -> None:
        super().__init__()
        if light:
            inner = channels // 2
            layers: list[nn.Module] = [
                nn.Conv2d(channels, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1, groups=inner),
                nn.GELU(),
                nn.Conv2d(inner, channels, 1),
                nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=channels),
            ]
        else:
            layers = [conv3x3_with_bias(channels, channels // 3), nn.GELU(), conv3x3_with_bias(channels // 3, channels)]
        self.cab = nn.Sequential(*layers, ChannelAttention(channels, 30))

    def forward(self, x: Tensor) -> Tensor:
        return self.cab(x)


class VSSBlock(nn.Module):
    """State-space layer, then convolutions, each beside its scaled input (figure 3). (B, H, W, dim) -> same.

    Args:
        dim: channels, at least 30.
        d_state, expand: see `SS2D`.
        drop_path: probability of leaving the state-space layer out of a sample's training.
        light: whether `ConvolutionAttention` has its light form.

    Raises:
        UserError: too few channels.
    """

    def __init__(self, dim: int, d_state: int, expand: float, drop_path: float = 0.0, light: bool = False) -> None:
        super().__init__()
        if int(dim * expand) < 1:
            raise UserError(f"mlp_ratio {expand} leaves no channel of {dim} in the state-space layers")
        self.drop_path = drop_path
        self.ln_1 = nn.LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state, expand)
        self.skip_scale = nn.Parameter(torch.ones(dim))
        self.conv_blk = ConvolutionAttention(dim, light)
        self.ln_2 = nn.LayerNorm(dim)
        self.skip_scale2 = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        branch = stochastic_depth(self.self_attention(self.ln_1(x)), self.drop_path, self.training)
        x = x * self.skip_scale + branch
        return x * self.skip_scale2 + pixels(self.conv_blk(channels(self.ln_2(x))))
