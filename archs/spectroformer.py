"""Spectroformer: a transformer whose queries come from the spectrum of the image, for underwater image enhancement.

Khan, Mishra, Mehta, Phutke, Vipparthi, Nandi, Murala, "Spectroformer: Multi-Domain Query Cascaded Transformer Network for
Underwater Image Enhancement", WACV 2024.

Parameter names are those of the published replica, so its checkpoints load with ``strict=True``. The same functions are
computed in a leaner order: attention matrices are multiplied into the 1 x 1 convolutions around them, 1 x 1 convolutions
into each other, and upsampled maps are never formed before they are summed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.ops.channel_attention import cross_attention, self_attention
from ..core.ops.pixelwise import channels, linear, pixels
from ..core.ops.spectral_mixing import spectral_mixing
from . import ARCHS
from .blocks import (
    ChannelLayerNorm,
    GatedFeedForward,
    adaptive_kernel,
    as_conv,
    conv3x3,
    expand,
    fourier_magnitudes,
    fused_upsample,
    matrix,
    need_levels,
    pad_to,
    pointwise,
    spread,
    xavier_init,
)


def named_norm(dim: int) -> nn.Sequential:
    """Channel layer normalisation, its parameters one level deeper (``norm1.body.weight``) as in Restormer's checkpoints."""
    return nn.Sequential(OrderedDict(body=ChannelLayerNorm(dim)))


class FDFP(nn.Module):
    """Frequency-domain feature perceptron: two 1 x 1 convolutions on real and imaginary parts of the half spectrum."""

    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = pointwise(2 * dim, 2 * dim, bias)
        self.conv2 = pointwise(2 * dim, 2 * dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> planes (B, dim, H, W), float32 or float64."""
        return spectral_mixing(pixels(x), matrix(self.conv1), self.conv1.bias, matrix(self.conv2), self.conv2.bias)


class MQCA(nn.Module):
    """Multi-domain query cascaded attention: transposed attention twice, the second time with queries from the spectrum.

    Both stages share their temperatures. (B, dim, H, W) -> same.
    """

    def __init__(self, dim: int, num_heads: int, bias: bool = False) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv1 = pointwise(dim, 3 * dim, bias)
        self.qkv1_dwconv = conv3x3(3 * dim, 3 * dim, bias, groups=3 * dim)
        self.project_out1 = pointwise(dim, dim, bias)
        self.fdfp = FDFP(dim, bias)
        self.kv2 = pointwise(dim, 2 * dim, bias)
        self.kv2_dwconv = conv3x3(2 * dim, 2 * dim, bias, groups=2 * dim)
        self.project_out2 = pointwise(dim, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        # kv2(project_out1(...)) is one 1 x 1 convolution, which the attention matrices are multiplied into.
        weight, bias = matrix(self.kv2) @ matrix(self.project_out1), self.kv2.bias
        if bias is not None and self.project_out1.bias is not None:
            bias = bias + matrix(self.kv2) @ self.project_out1.bias
        qkv, last = expand(x, self.qkv1, self.qkv1_dwconv), self.kv2_dwconv
        kv = self_attention(qkv, self.temperature, weight, bias, last.weight, last.bias)
        weight, bias = matrix(self.project_out2), self.project_out2.bias
        return channels(cross_attention(self.fdfp(x), kv, self.temperature, weight, bias))


class MQCT(nn.Module):
    """Transformer block: ``u = x + MQCA(norm(x))``, ``u + GDFN(norm(u))``. (B, dim, H, W) -> same."""

    def __init__(self, dim: int, num_heads: int, ffn_expansion_factor: float = 2.66, bias: bool = False) -> None:
        super().__init__()
        self.norm1 = named_norm(dim)
        self.attn = MQCA(dim, num_heads, bias)
        self.norm2 = named_norm(dim)
        self.ffn = GatedFeedForward(dim, ffn_expansion_factor, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class DownSample(nn.Module):
    """Half the size: 3 x 3 convolution, pixel unshuffle, 1 x 1 convolution. (B, in, H, W) -> (B, out, H/2, W/2)."""

    def __init__(self, in_dim: int, out_dim: int, bias: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(in_dim, in_dim // 2, bias), nn.PixelUnshuffle(2))
        self.adjust = pointwise(2 * in_dim, out_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        y = pixels(self.body(x))
        return channels(linear(y, matrix(self.adjust), self.adjust.bias))


class DFU(nn.Module):
    """Deep Fourier upsampling (Zhou et al., NeurIPS 2022): (B, in, H, W) -> (B, out, 2H, 2W). See `fourier_magnitudes`."""

    def __init__(self, in_dim: int, out_dim: int, bias: bool = False, snap: bool = True) -> None:
        super().__init__()
        self.snap = snap
        self.amp_conv1 = pointwise(in_dim, in_dim, bias)
        self.amp_conv2 = pointwise(in_dim, in_dim, bias)
        self.pha_conv1 = pointwise(in_dim, in_dim, bias)
        self.pha_conv2 = pointwise(in_dim, in_dim, bias)
        self.post = pointwise(in_dim, out_dim, bias)

    def magnitudes(self, x: Tensor) -> Tensor:
        """What the upsampled map holds on even rows and columns, before `post`: planes (B, in, H, W)."""
        amplitude, phase = (self.amp_conv1, self.amp_conv2), (self.pha_conv1, self.pha_conv2)
        return fourier_magnitudes(x, amplitude, phase, self.snap)

    def forward(self, x: Tensor) -> Tensor:
        return spread(self.magnitudes(x), self.post)


class HFSUB(nn.Module):
    """Hybrid Fourier-spatial upsampling: `DFU` and a pixel shuffle, fused by a 1 x 1 convolution.

    (B, in, H, W) -> (B, out, 2H, 2W).
    """

    def __init__(self, in_dim: int, out_dim: int, bias: bool = False, snap: bool = True) -> None:
        super().__init__()
        self.dfu = DFU(in_dim, out_dim, bias, snap)
        self.spatial_up = nn.ModuleList([conv3x3(in_dim, 4 * out_dim, bias)])
        self.fusion = pointwise(2 * out_dim, out_dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        return fused_upsample(x, self.dfu.magnitudes(x), self.dfu.post, as_conv(self.spatial_up[0]), self.fusion)


class AKC(nn.Module):
    """Adaptive-kernel channel gate: sigmoid of a 1-D convolution across the channel means (ECA, Wang et al., CVPR 2020)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        size = max(3, adaptive_kernel(dim))
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]

    def gate(self, means: Tensor) -> Tensor:
        """Channel means (B, C) -> factors (B, C) between 0 and 1."""
        return self.conv(means[:, None])[:, 0].sigmoid()


class SSFB(nn.Module):
    """Spatio-spectral fusion of a skip connection: (encoder, decoder), each (B, dim, H, W) -> (B, dim, H, W)."""

    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.spatial_conv1 = pointwise(dim, dim, bias)
        self.spatial_act = nn.PReLU()
        self.spatial_dwconv = conv3x3(dim, dim, bias, groups=dim)
        self.spectral_conv1 = pointwise(2 * dim, 2 * dim, bias)
        self.spectral_conv2 = pointwise(2 * dim, 2 * dim, bias)
        self.fusion_conv = pointwise(dim, dim, bias)
        self.akc = AKC(dim)
        self.identity_spatial = pointwise(dim, dim, bias)
        self.identity_spectral = pointwise(dim, dim, bias)
        self.compress = pointwise(2 * dim, dim, bias)

    def forward(self, enc: Tensor, dec: Tensor) -> Tensor:
        x = pixels(enc)
        spatial = self.spatial_act(channels(linear(x, matrix(self.spatial_conv1), self.spatial_conv1.bias)))
        first, second = self.spectral_conv1, self.spectral_conv2
        spectral = spectral_mixing(x, matrix(first), first.bias, matrix(second), second.bias).permute(0, 2, 3, 1)
        # Both identity branches read the same map, so their kernels add up. (Kernels, not views of them: autograd would give
        # two views one gradient in the same memory, which clipping in place would then scale twice.)
        identity = linear(x, (self.identity_spatial.weight + self.identity_spectral.weight).flatten(1))
        both = pixels(self.spatial_dwconv(spatial)) + identity + spectral.to(identity.dtype)
        for branch in (self.identity_spatial, self.identity_spectral):
            both = both if branch.bias is None else both + branch.bias

        # compress(cat(gate * fusion_conv(both), dec)): the gate needs only means, so it becomes part of a matrix per image.
        of_gated, of_dec = matrix(self.compress).chunk(2, dim=1)
        fusion, bias = matrix(self.fusion_conv), self.fusion_conv.bias
        gate = self.akc.gate(linear(both.mean((1, 2)), fusion, bias))
        gated = of_gated * gate[:, None]
        y = linear(both, gated @ fusion) + linear(pixels(dec), of_dec, self.compress.bias)
        if bias is not None:
            y = y + (gated @ bias)[:, None, None]
        return channels(y)


@ARCHS.register()
class Spectroformer(nn.Module):
    """Spectroformer: four-level U-shape with spectral queries, hybrid upsampling and a global residual.

    (B, 3, H, W) -> (B, 3, H, W). Values are meant to be in [0, 1]; the output is not clamped. Any size: where H or W is not
    a multiple of 8 the image is mirrored up to one and the result cropped.

    Args:
        dim: channels of the first level; doubled at each of the next three.
        num_blocks: transformer blocks of the four levels (the last is the bottleneck).
        num_refinement_blocks: blocks at full size after the decoder.
        num_heads: attention heads of the four levels.
        ffn_expansion_factor: inner channels of the feed-forward blocks over their input's.
        bias: whether all convolutions have a bias.
        snap_self_conjugate: see `core.ops.fourier.polar_spectrum`. False is what the original does, which makes its output
            jump by O(0.1) under 1e-7 of noise at sizes that are not powers of two.
        use_checkpoint: recompute each block in the backward pass: less memory, about a third more time.

    Raises:
        UserError: settings that do not make four levels.
    """

    sees_whole = "Fourier transforms of the whole picture"
    size_multiple = 8

    def __init__(
        self,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        num_heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        snap_self_conjugate: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        need_levels(dim, num_blocks=num_blocks, num_heads=num_heads)
        self.use_checkpoint = use_checkpoint

        def blocks(level: int, count: int) -> nn.Sequential:
            width, heads = dim * 2**level, num_heads[level]
            return nn.Sequential(*(MQCT(width, heads, ffn_expansion_factor, bias) for _ in range(count)))

        # Encoder, bottleneck and decoder, halving and doubling the size between levels.
        self.patch_embed = conv3x3(3, dim, bias)
        self.encoder_level1 = blocks(0, num_blocks[0])
        self.down1_2 = DownSample(dim, 2 * dim, bias)
        self.encoder_level2 = blocks(1, num_blocks[1])
        self.down2_3 = DownSample(2 * dim, 4 * dim, bias)
        self.encoder_level3 = blocks(2, num_blocks[2])
        self.down3_4 = DownSample(4 * dim, 8 * dim, bias)
        self.bottleneck = blocks(3, num_blocks[3])
        self.up4_3 = HFSUB(8 * dim, 4 * dim, bias, snap_self_conjugate)
        self.ssfb3 = SSFB(4 * dim, bias)
        self.decoder_level3 = blocks(2, num_blocks[2])
        self.up3_2 = HFSUB(4 * dim, 2 * dim, bias, snap_self_conjugate)
        self.ssfb2 = SSFB(2 * dim, bias)
        self.decoder_level2 = blocks(1, num_blocks[1])
        self.up2_1 = HFSUB(2 * dim, dim, bias, snap_self_conjugate)
        self.ssfb1 = SSFB(dim, bias)
        self.decoder_level1 = blocks(0, num_blocks[0])
        self.refinement = blocks(0, num_refinement_blocks)
        self.output = conv3x3(dim, 3, bias)
        xavier_init(self)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        image = pad_to(x, self.size_multiple)
        e1 = self._run(self.encoder_level1, self.patch_embed(image.contiguous(memory_format=torch.channels_last)))
        e2 = self._run(self.encoder_level2, self.down1_2(e1))
        e3 = self._run(self.encoder_level3, self.down2_3(e2))
        d = self._run(self.bottleneck, self.down3_4(e3))
        d = self._run(self.decoder_level3, self.ssfb3(e3, self.up4_3(d)))
        d = self._run(self.decoder_level2, self.ssfb2(e2, self.up3_2(d)))
        d = self._run(self.decoder_level1, self.ssfb1(e1, self.up2_1(d)))
        y = self.output(self._run(self.refinement, d)) + image
        return y[..., :height, :width]

    def _run(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_checkpoint and self.training else block(x)
        return x
