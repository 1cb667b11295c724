"""DRSformer: Restormer's levels with attention that keeps only the largest scores, for rain.

Chen, Li, Li, Pan, "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023. Parameter names are the
original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.pixelwise import channels, pixels
from . import ARCHS
from .blocks import conv3x3, inner_width, need_levels, pointwise, refuse_unfit
from .restormer import Downsample, LayerNorm, PatchEmbed, Upsample

SHARES = (1 / 2, 2 / 3, 3 / 4, 4 / 5)
"""Share of a channel's scores that each of the four attentions keeps (section 3.2)."""
STEPS = 4
"""Layers of experts, one after the other."""


def depthwise(width: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A depthwise convolution without bias that keeps the size."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(width, width, kernel, padding=padding, dilation=dilation, groups=width, bias=False)


class SparseAttention(nn.Module):
    """Attention between channels: the sum of four, each a softmax of the largest scores only (TKSA, equations 3 and 4)."""

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = pointwise(dim, 3 * dim, bias)
        self.qkv_dwconv = conv3x3(3 * dim, 3 * dim, bias, groups=3 * dim)
        self.project_out = pointwise(dim, dim, bias)
        self.attn1, self.attn2, self.attn3, self.attn4 = (nn.Parameter(torch.tensor([0.2])) for _ in SHARES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        heads = self.temperature.shape[0]
        q, k, v = (t.unflatten(1, (heads, -1)).flatten(3) for t in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        scores = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)) * self.temperature
        y = self.mixed(scores) @ v
        return self.project_out(y.flatten(1, 2).unflatten(2, x.shape[-2:]))

    def mixed(self, scores: Tensor) -> Tensor:
        """The four attentions, which share their values, as one matrix (B, heads, C / heads, C / heads)."""
        width = scores.shape[-1]
        order = scores.detach().topk(int(width * max(SHARES)), dim=-1).indices
        total = torch.zeros_like(scores)
        for share, weight in zip(SHARES, (self.attn1, self.attn2, self.attn3, self.attn4), strict=True):
            kept = torch.full_like(scores, float("-inf")).scatter_(-1, order[..., : int(width * share)], 0.0)
            total = total + weight * (scores + kept).softmax(-1)
        return total


class MixedScaleFeedForward(nn.Module):
    """Two stages of depthwise convolutions at two scales, which exchange halves between them (MSFN, equation 5)."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        inner = inner_width(dim, expansion)
        self.project_in = pointwise(dim, 2 * inner, bias)
        self.dwconv3x3 = conv3x3(2 * inner, 2 * inner, bias, groups=2 * inner)
        self.dwconv5x5 = nn.Conv2d(2 * inner, 2 * inner, 5, padding=2, groups=2 * inner, bias=bias)
        self.dwconv3x3_1 = conv3x3(2 * inner, inner, bias, groups=inner)
        self.dwconv5x5_1 = nn.Conv2d(2 * inner, inner, 5, padding=2, groups=inner, bias=bias)
        self.project_out = pointwise(2 * inner, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x = self.project_in(x)
        halves = [F.relu(conv(x)).chunk(2, 1) for conv in (self.dwconv3x3, self.dwconv5x5)]
        first, second = (torch.cat(parts, 1) for parts in zip(*halves, strict=True))
        y = torch.cat([F.relu(self.dwconv3x3_1(first)), F.relu(self.dwconv5x5_1(second))], 1)
        return self.project_out(y)


class SparseBlock(nn.Module):
    """Attention and feed-forward network, each normalised before and added after. (B, C, H, W) -> same."""

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, norm)
        self.attn = SparseAttention(dim, heads, bias)
        self.norm2 = LayerNorm(dim, norm)
        self.ffn = MixedScaleFeedForward(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(channels(self.norm1(pixels(x))))
        return x + self.ffn(channels(self.norm2(pixels(x))))


class Expert(nn.Module):
    """A depthwise-separable convolution, twice with a rectifier between, or once with holes. (B, C, H, W) -> same."""

    def __init__(self, dim: int, kernel: int, dilated: bool) -> None:
        super().__init__()
        if dilated:
            self.op = nn.Sequential(depthwise(dim, kernel, 2), pointwise(dim, dim))
        else:
            pair = [depthwise(dim, kernel), pointwise(dim, dim)]
            again = [depthwise(dim, kernel), pointwise(dim, dim)]
            self.op = nn.Sequential(*pair, nn.ReLU(), *again)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Experts(nn.Module):
    """Eight operations side by side, each weighted for each image, then one convolution. (B, C, H, W) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        separable = [Expert(dim, kernel, False) for kernel in (1, 3, 5, 7)]
        dilated = [Expert(dim, kernel, True) for kernel in (3, 5, 7)]
        self._ops = nn.ModuleList([*separable, *dilated, nn.AvgPool2d(3, 1, 1, count_include_pad=False)])
        self._out = nn.Sequential(pointwise(len(self._ops) * dim, dim), nn.ReLU())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Args: weights: (B, operations)."""
        parts = [op(x) * w[:, None, None, None] for op, w in zip(self._ops, weights.unbind(1), strict=True)]
        return self._out(torch.cat(parts, 1))


class ExpertWeights(nn.Module):
    """(B, C, H, W) -> weights of the operations of each layer, which sum to 1, (B, STEPS, operations)."""

    def __init__(self, dim: int, operations: int) -> None:
        super().__init__()
        count = STEPS * operations
        self.ca_fc = nn.Sequential(nn.Linear(dim, 2 * count), nn.ReLU(), nn.Linear(2 * count, count))

    def forward(self, x: Tensor) -> Tensor:
        return self.ca_fc(x.mean((2, 3))).unflatten(1, (STEPS, -1)).softmax(-1)


class ExpertLayers(nn.Module):
    """A convolution and layers of experts, each beside its input, all rectified. (B, C, H, W) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.preprocess = nn.ModuleDict({"op": nn.Sequential(pointwise(dim, dim), nn.ReLU())})
        self._ops = nn.ModuleList([Experts(dim) for _ in range(STEPS)])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.preprocess["op"](x)
        for layer, share in zip(self._ops, weights.unbind(1), strict=True):
            x = F.relu(layer(x, share) + x)
        return x


class FeatureCompensator(nn.Module):
    """Mixture of experts (MEFC, section 3.4), whose weights come from the mean of its input. (B, C, H, W) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        experts = ExpertLayers(dim)
        self.layers = nn.ModuleList([ExpertWeights(dim, 8), experts])

    def forward(self, x: Tensor) -> Tensor:
        weights, experts = self.layers
        return experts(x, weights(x))


@ARCHS.register()
class DRSformer(nn.Module):
    """Sparse transformer for deraining. Loads the original's weights.

    ``forward``: (B, inp_channels, H, W) in [0, 1], H and W multiples of 8 -> (B, out_channels, H, W): a correction added to
    the input; not clamped.

    Args:
        inp_channels: channels of the input.
        out_channels: channels of the output, as many as the input has.
        dim: channels at full resolution; even.
        num_blocks: blocks of the four levels, from full resolution down.
        heads: attention heads of the four levels; each has two channels at least.
        ffn_expansion_factor: width inside the feed-forward networks / width outside.
        bias: whether the blocks' convolutions have biases.
        LayerNorm_type: "BiasFree" has no offset and does not subtract the mean.

    Raises:
        UserError: settings that do not make four levels.
    """

    sees_whole = "attention over the whole picture"
    size_multiple = 8

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
    ) -> None:
        super().__init__()
        need_levels(dim, num_blocks=num_blocks, heads=heads)
        # What the networks cannot compute with.
        if inp_channels != out_channels:
            raise UserError(
                f"DRSformer: inp_channels ({inp_channels}) must be out_channels ({out_channels}): the input is added"
            )
        if any((dim << level) // n < 2 for level, n in enumerate(heads)):
            raise UserError(f"DRSformer: each head needs two channels at least; dim is {dim} and heads {list(heads)}")
        self.inp_channels = inp_channels

        def stage(width: int, level: int) -> nn.Sequential:
            options = (width, heads[level], ffn_expansion_factor, bias, LayerNorm_type)
            return nn.Sequential(*[SparseBlock(*options) for _ in range(num_blocks[level])])

        # Encoder, bottleneck and decoder, halving and doubling the size between levels.
        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level0 = FeatureCompensator(dim)
        self.encoder_level1 = stage(dim, 0)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = stage(2 * dim, 1)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = stage(4 * dim, 2)
        self.down3_4 = Downsample(4 * dim)
        self.latent = stage(8 * dim, 3)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = pointwise(8 * dim, 4 * dim, bias)
        self.decoder_level3 = stage(4 * dim, 2)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = pointwise(4 * dim, 2 * dim, bias)
        self.decoder_level2 = stage(2 * dim, 1)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = stage(2 * dim, 0)
        self.refinement = FeatureCompensator(2 * dim)
        self.output = conv3x3(2 * dim, out_channels, bias)

    def forward(self, image: Tensor) -> Tensor:
        refuse_unfit(image, self.inp_channels, self.size_multiple)
        level1 = self.encoder_level1(self.encoder_level0(self.patch_embed(image)))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.up4_3(self.latent(self.down3_4(level3)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, level3], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], 1)))
        x = self.decoder_level1(torch.cat([self.up2_1(x), level1], 1))
        return image + self.output(self.refinement(x))
