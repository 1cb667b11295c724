"""NAFNet and its Baseline: restoration without nonlinear activation functions, or nearly so.

Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", ECCV 2022. Parameter names are the original's, whose weights
load. Everything between entrance and exit is channels-last, so that 1 x 1 convolutions are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.ops import naf_branches
from ..core.ops.pixelwise import channels, depthwise, linear, pixels
from ..core.ops.projection import mean_pixel, scaled_projection
from ..core.ops.simple_gate import gate_halves, gate_halves_and_mean
from ..core.runtime.allocator import keep_freed
from . import ARCHS
from .blocks import ChannelLayerNorm, expand, matrix
from .local_pooling import patch_size, pool_locally


def project(
    y: Tensor, conv: nn.Conv2d, gain: Tensor, attention: Tensor | None = None, skip: Tensor | None = None
) -> Tensor:
    """``skip + gain * conv(attention * y)``.

    Args:
        y: pixel-major (B, H, W, C).
        conv: 1 x 1, C -> O, with a bias.
        gain: (1, O, 1, 1).
        attention: factor of each channel, see `core.ops.projection.scaled_projection`.
        skip: (B, O, H, W).

    Returns:
        (B, O, H, W), channels-last.
    """
    assert conv.bias is not None
    kept = None if skip is None else pixels(skip)
    return channels(scaled_projection(y, matrix(conv), conv.bias, gain.flatten(), attention, kept))


def pooled(y: Tensor, attention: nn.Sequential, mean: Tensor | None = None) -> Tensor:
    """Pooling and then 1 x 1 layers of pixel-major (B, H, W, C) -> (B, C); (B, H, W, C) where the pooling is a local one.

    The mean over pixels (B, C) is taken here where it is not given.
    """
    first = attention[0]
    if isinstance(first, nn.AdaptiveAvgPool2d):
        y = (mean_pixel(y) if mean is None else mean)[:, None, None]
    else:
        y = pixels(first(channels(y)))
    for layer in attention[1:]:
        y = linear(y, matrix(layer), layer.bias) if isinstance(layer, nn.Conv2d) else layer(y)
    return y[:, 0, 0] if y.shape[1:3] == (1, 1) else y


def halved(x: Tensor, conv: nn.Module) -> Tensor:
    """``conv(x)``, of 2 x 2 pixels with stride 2: (B, C, H, W) -> (B, 2 C, H / 2, W / 2)."""
    if not naf_branches.worthwhile(x):
        result: Tensor = conv(x)
        return result
    assert isinstance(conv, nn.Conv2d)
    return naf_branches.halve(x, conv.weight, conv.bias)


def doubled(x: Tensor, up: nn.Module, skip: Tensor) -> Tensor:
    """``up(x) + skip``, (B, C, H, W) -> (B, C / 2, 2 H, 2 W): a 1 x 1 convolution `up` without bias, its channels shuffled."""
    if not naf_branches.worthwhile(x):
        result: Tensor = up(x) + skip
        return result
    conv = next(up.children())
    assert isinstance(conv, nn.Conv2d)
    return naf_branches.double_onto(skip, x, conv.weight)


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block (figure 3c). (B, C, H, W) -> same.

    Both branches are scaled per channel by ``beta`` and ``gamma``, which start at zero: a fresh block is the identity.

    Args:
        channels: C.
        drop_out_rate: share of elements of both branches that training leaves out.
    """

    def __init__(self, channels: int, drop_out_rate: float = 0.0) -> None:
        super().__init__()
        self.drop_out_rate = drop_out_rate
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
        global_mean = isinstance(self.sca[0], nn.AdaptiveAvgPool2d)
        if global_mean and not (self.drop_out_rate and self.training) and naf_branches.worthwhile(x):
            return channels(self.by_branches(pixels(x)))
        # The wide map is kept and not made again in the backward pass: there is one matrix product less to do.
        y = linear(pixels(self.norm1(x)), matrix(self.conv1), self.conv1.bias)
        y = depthwise(y, self.conv2.weight, self.conv2.bias)
        y, mean = gate_halves_and_mean(y) if global_mean else (gate_halves(y), None)
        x = self.added(x, y, self.conv3, self.beta, pooled(y, self.sca, mean))
        y = gate_halves(linear(pixels(self.norm2(x)), matrix(self.conv4), self.conv4.bias))
        return self.added(x, y, self.conv5, self.gamma)

    def by_branches(self, x: Tensor) -> Tensor:
        """`forward` for a pixel-major map, (B, H, W, C) -> the same shape, by `core.ops.naf_branches`."""

        def affine(conv: nn.Module) -> tuple[Tensor, Tensor]:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            return matrix(conv), conv.bias

        def norm(module: ChannelLayerNorm) -> tuple[Tensor, Tensor]:
            assert module.bias is not None
            return module.weight, module.bias

        assert self.conv2.bias is not None
        first = *norm(self.norm1), *affine(self.conv1), self.conv2.weight, self.conv2.bias, *affine(self.sca[1])
        x = naf_branches.attention_branch(x, *first, *affine(self.conv3), self.beta.flatten())
        second = *norm(self.norm2), *affine(self.conv4), *affine(self.conv5)
        return naf_branches.gate_branch(x, *second, self.gamma.flatten())

    def added(self, x: Tensor, y: Tensor, conv: nn.Conv2d, gain: Tensor, attention: Tensor | None = None) -> Tensor:
        """`x`, (B, C, H, W), plus a branch of that shape that ends with `conv`."""
        if not (self.drop_out_rate and self.training):
            return project(y, conv, gain, attention, x)
        return x + F.dropout(project(y, conv, gain, attention), self.drop_out_rate)


class BaselineBlock(nn.Module):
    """The same with GELU and with channel attention of two layers (figure 3b). (B, C, H, W) -> same.

    Args:
        channels: C.
        dw_expand: channels of the depthwise convolution over C.
        ffn_expand: channels inside the second branch over C.
    """

    def __init__(self, channels: int, dw_expand: int, ffn_expand: int) -> None:
        super().__init__()
        wide, inner = dw_expand * channels, ffn_expand * channels
        self.norm1 = ChannelLayerNorm(channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, wide // 2, 1),
            nn.ReLU(),
            nn.Conv2d(wide // 2, wide, 1),
            nn.Sigmoid(),
        )
        self.conv3 = nn.Conv2d(wide, channels, 1)
        self.norm2 = ChannelLayerNorm(channels, eps=1e-6)
        self.conv4 = nn.Conv2d(channels, inner, 1)
        self.conv5 = nn.Conv2d(inner, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(expand(self.norm1(x), self.conv1, self.conv2))
        x = project(y, self.conv3, self.beta, pooled(y, self.se), x)
        y = F.gelu(linear(pixels(self.norm2(x)), matrix(self.conv4), self.conv4.bias))
        return project(y, self.conv5, self.gamma, skip=x)


class UShape(nn.Module):
    """The U-net that NAFNet and Baseline share.

    Args:
        block: function that makes a block of so many channels.
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.

    Raises:
        UserError: different numbers of encoder and decoder stages.
    """

    size_multiple = 1

    def __init__(
        self,
        block: Callable[[int], nn.Module],
        img_channel: int,
        width: int,
        middle_blk_num: int,
        enc_blk_nums: Sequence[int],
        dec_blk_nums: Sequence[int],
    ) -> None:
        super().__init__()
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise UserError(
                f"{type(self).__name__}: enc_blk_nums has {len(enc_blk_nums)} stages, dec_blk_nums {len(dec_blk_nums)}; "
                "they must agree"
            )

        def stage(channels: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*[block(channels) for _ in range(blocks)])

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
        """(B, img_channel, H, W) -> the same shape, for any H and W."""
        height, width = image.shape[-2:]
        right, down = ((n + self.padder_size - 1) // self.padder_size * self.padder_size - n for n in (width, height))
        image = F.pad(image, (0, right, 0, down))
        if naf_branches.worthwhile(image):
            keep_freed()  # here as well as in Relume's own loop, since training in others waits for the pages no less
        x = self.intro(image.contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = halved(x, down)
        x = self.middle_blks(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(doubled(x, up, skips.pop()))
        return (image + self.ending(x))[..., :height, :width]

    def pool_locally(self, train_size: Sequence[int], fast: bool) -> None:
        """Pool windows of one and a half times the training patch: see `archs.local_pooling`."""
        size = patch_size(train_size)
        for level, encoder in enumerate(self.encoders):
            pool_locally(encoder, level, self.padder_size, size, fast)
            pool_locally(self.decoders[-1 - level], level, self.padder_size, size, fast)
        pool_locally(self.middle_blks, len(self.encoders), self.padder_size, size, fast)


@ARCHS.register()
class NAFNet(UShape):
    """U-shaped network of NAF blocks.

    ``forward``: (B, img_channel, H, W) in [0, 1] -> same shape, a correction added to the
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

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
    ) -> None:
        super().__init__(NAFBlock, img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)


@ARCHS.register()
class NAFNetLocal(NAFNet):
    """NAFNet whose means are local where the image is larger than the training patch; NAFNet's weights.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.
        train_size: [batch, channels, height, width] of the patches that the weights were trained on.
        fast_imp: the original's faster approximation of the local means: see `archs.local_pooling.LocalMean`.

    Raises:
        UserError: different numbers of encoder and decoder stages, or `train_size` is no size.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        train_size: Sequence[int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)
        self.pool_locally(train_size, fast_imp)


@ARCHS.register()
class Baseline(UShape):
    """The plain network from which NAFNet was found by leaving out: see `NAFNet`, and `BaselineBlock` for what differs.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums: see `NAFNet`.
        dw_expand: channels of depthwise convolutions over those of their stage.
        ffn_expand: channels inside the second half of a block over those of its stage.

    Raises:
        UserError: different numbers of encoder and decoder stages.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        dw_expand: Count = 1,
        ffn_expand: Count = 2,
    ) -> None:
        super().__init__(
            lambda c: BaselineBlock(c, dw_expand, ffn_expand),
            img_channel,
            width,
            middle_blk_num,
            enc_blk_nums,
            dec_blk_nums,
        )


@ARCHS.register()
class BaselineLocal(Baseline):
    """Baseline whose means are local where the image is larger than the training patch; Baseline's weights.

    Args:
        img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums, dw_expand, ffn_expand: see `Baseline`.
        train_size, fast_imp: see `NAFNetLocal`.

    Raises:
        UserError: different numbers of encoder and decoder stages, or `train_size` is no size.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        dw_expand: Count = 1,
        ffn_expand: Count = 2,
        train_size: Sequence[int] = (1, 3, 256, 256),
        fast_imp: bool = False,
    ) -> None:
        super().__init__(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums, dw_expand, ffn_expand)
        self.pool_locally(train_size, fast_imp)
