"""Restormer: a U-shaped transformer whose attention runs between channels; with a prior in every block, DiffIR's restorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import UserError
from ..core.ops.channel_attention import self_attention
from ..core.ops.layer_norm import layer_norm
from ..core.ops.pixelwise import channels, gated_feed_forward, linear, pixels
from . import ARCHS
from .blocks import ChannelLayerNorm, conv3x3, inner_width, matrix, need_levels, pointwise, refuse_unfit
from .edsr import pixel_shuffle_head

Modulation = tuple[Tensor, Tensor]
"""A factor and an offset for every image and channel: (B, C) each."""


class LayerNorm(nn.Module):
    """Layer normalisation over channels, then a modulation where there is one.

    Args:
        dim: C.
        kind: "BiasFree" has no offset and does not subtract the mean; anything else is the usual form.
    """

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.body = ChannelLayerNorm(dim, bias=kind != "BiasFree")

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        """Pixel-major (B, H, W, C) -> same."""
        gain: Tensor = self.body.weight
        offset: Tensor | None = self.body.bias
        if modulation is not None:
            scale, shift = modulation
            gain = gain * scale
            offset = shift if offset is None else torch.addcmul(shift, offset, scale)
        return layer_norm(x, gain, offset, self.body.eps, centred=self.body.bias is not None)


class Modulated(nn.Module):
    """A component that a prior may modulate: its normalised input is multiplied and added to, per image and channel.

    DiffIR's dynamic modulation. The factors are not offsets from 1: a zero prior silences the component.
    """

    kernel: nn.Sequential | None

    def modulation(self, z: Tensor | None) -> Modulation | None:
        """Factors and offsets (B, C) for the prior (B, prior), or None where there is none."""
        if self.kernel is None or z is None:
            return None
        scale, shift = self.kernel(z).chunk(2, dim=1)
        return scale, shift


def prior_kernel(prior: int, dim: int) -> nn.Sequential | None:
    """What makes the modulation of `dim` channels from a vector of length `prior`; None without one."""
    return nn.Sequential(nn.Linear(prior, 2 * dim, bias=False)) if prior else None


class Attention(Modulated):
    """Multi-head attention between channels (Restormer's MDTA, eq. 1); with a prior, DiffIR's DMTA.

    Args:
        dim: C.
        heads: number of heads; divides C.
        bias: whether the convolutions have biases.
        prior: length of the prior vector, 0 for none.
    """

    def __init__(self, dim: int, heads: int, bias: bool, prior: int = 0) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.kernel = prior_kernel(prior, dim)
        self.qkv = pointwise(dim, 3 * dim, bias)
        self.qkv_dwconv = conv3x3(3 * dim, 3 * dim, bias, groups=3 * dim)
        self.project_out = pointwise(dim, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pixel-major (B, H, W, C), normalised and modulated -> same."""
        depthwise, out = self.qkv_dwconv, self.project_out
        qkv = linear(x, matrix(self.qkv), self.qkv.bias)
        return self_attention(
            qkv, self.temperature, matrix(out), out.bias, before=depthwise.weight, before_bias=depthwise.bias
        )


class FeedForward(Modulated):
    """Gated feed-forward network (Restormer's GDFN, eq. 2); with a prior, DiffIR's DGFN.

    Args:
        dim: C.
        expansion: width inside each of the two paths, ``int(C * expansion)``.
        bias: whether the convolutions have biases.
        prior: length of the prior vector, 0 for none.
    """

    def __init__(self, dim: int, expansion: float, bias: bool, prior: int = 0) -> None:
        super().__init__()
        inner = inner_width(dim, expansion)
        self.project_in = pointwise(dim, 2 * inner, bias)
        self.dwconv = conv3x3(2 * inner, 2 * inner, bias, groups=2 * inner)
        self.project_out = pointwise(inner, dim, bias)
        self.kernel = prior_kernel(prior, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pixel-major (B, H, W, C), normalised and modulated -> same."""
        first, depthwise, out = self.project_in, self.dwconv, self.project_out
        return gated_feed_forward(x, matrix(first), first.bias, depthwise.weight, depthwise.bias, matrix(out), out.bias)


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each normalised before and added after. (B, C, H, W) -> same."""

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, norm: str, prior: int = 0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, norm)
        self.attn = Attention(dim, heads, bias, prior)
        self.norm2 = LayerNorm(dim, norm)
        self.ffn = FeedForward(dim, expansion, bias, prior)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        x = pixels(x)
        x = x + self.attn(self.norm1(x, self.attn.modulation(z)))
        x = x + self.ffn(self.norm2(x, self.ffn.modulation(z)))
        return channels(x)


class Stage(nn.ModuleList):
    """Blocks one after the other, all with the same prior.

    Args:
        blocks: the blocks.
        use_checkpoint: keep only what goes in and out of each block, and compute it again in the backward pass.
    """

    def __init__(self, blocks: Sequence[TransformerBlock], use_checkpoint: bool) -> None:
        super().__init__(blocks)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and the prior (B, L) or None, -> (B, C, H, W)."""
        for block in self:
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, z, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, z)
        return x


class PatchEmbed(nn.Module):
    """The first convolution, from image to features."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.proj = conv3x3(inputs, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, dim, H, W)."""
        return self.proj(x)


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, 2C, H / 2, W / 2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(dim, dim // 2), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C / 2, 2H, 2W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(dim, 2 * dim), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class RestormerBody(nn.Module):
    """Four levels of transformer blocks, halving the size and doubling the channels from one to the next.

    ``forward(image, z)``: (B, inp_channels, H, W), H and W multiples of 8, and the prior (B, prior) if there is one ->
    (B, out_channels, H, W), not clamped. Works on channels-last memory inside, whatever it is given.

    Args:
        prior: length of the vector that modulates every block; 0 for none.
        scale: output size / input size: above 1 the last convolution stands behind pixel shuffles, and what they make is added
            to the enlarged image, each pixel repeated.

    The others are those of `Restormer`.
    """

    sees_whole = "attention over the whole picture"
    size_multiple = 8

    def __init__(
        self,
        inp_channels: int,
        out_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        num_refinement_blocks: int,
        heads: Sequence[int],
        ffn_expansion_factor: float,
        bias: bool,
        LayerNorm_type: str,
        dual_pixel_task: bool = False,
        prior: int = 0,
        use_checkpoint: bool = False,
        scale: int = 1,
    ) -> None:
        super().__init__()
        need_levels(dim, num_blocks=num_blocks, heads=heads)
        if inp_channels < out_channels and not dual_pixel_task:
            raise UserError(f"inp_channels ({inp_channels}) must not be smaller than out_channels ({out_channels})")
        self.inp_channels = inp_channels
        self.out_channels = out_channels

        def stage(width: int, level: int, blocks: int) -> Stage:
            options = (width, heads[level], ffn_expansion_factor, bias, LayerNorm_type, prior)
            return Stage([TransformerBlock(*options) for _ in range(blocks)], use_checkpoint)

        # Encoder, bottleneck and decoder, halving and doubling the size between levels.
        n = num_blocks
        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = stage(dim, 0, n[0])
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = stage(2 * dim, 1, n[1])
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = stage(4 * dim, 2, n[2])
        self.down3_4 = Downsample(4 * dim)
        self.latent = stage(8 * dim, 3, n[3])
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = pointwise(8 * dim, 4 * dim, bias)
        self.decoder_level3 = stage(4 * dim, 2, n[2])
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = pointwise(4 * dim, 2 * dim, bias)
        self.decoder_level2 = stage(2 * dim, 1, n[1])
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = stage(2 * dim, 0, n[0])
        self.refinement = stage(2 * dim, 0, num_refinement_blocks)
        # The last layers: what they make is an image, of `scale` times the size.
        self.skip_conv = pointwise(dim, 2 * dim, bias) if dual_pixel_task else None
        self.scale = scale
        if scale > 1:
            last = nn.Conv2d(2 * dim, out_channels, 3, padding=1)
            self.tail = nn.Sequential(pixel_shuffle_head(2 * dim, scale), last)
        else:
            self.output = conv3x3(2 * dim, out_channels, bias)

    def forward(self, image: Tensor, z: Tensor | None = None) -> Tensor:
        refuse_unfit(image, self.inp_channels, self.size_multiple)
        shallow = self.patch_embed(image.contiguous(memory_format=torch.channels_last))
        level1 = self.encoder_level1(shallow, z)
        level2 = self.encoder_level2(self.down1_2(level1), z)
        level3 = self.encoder_level3(self.down2_3(level2), z)
        x = self.latent(self.down3_4(level3), z)
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), level3], dim=1)), z)
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], dim=1)), z)
        x = self.decoder_level1(torch.cat([self.up2_1(x), level1], dim=1), z)
        x = self.refinement(x, z)
        if self.scale > 1:
            return self.tail(x) + F.interpolate(image[:, : self.out_channels], scale_factor=self.scale, mode="nearest")
        if self.skip_conv is not None:
            return self.output(x + self.skip_conv(shallow))
        return image[:, : self.out_channels] + self.output(x)


@ARCHS.register()
class Restormer(RestormerBody):
    """Restoration transformer (Zamir et al., CVPR 2022), with the original's parameter names.

    ``forward``: (B, inp_channels, H, W) in [0, 1], H and W multiples of 8 -> (B, out_channels, H, W): a correction added to
    the input's first `out_channels` channels; not clamped.

    Args:
        inp_channels: channels of the input; 6 for dual-pixel defocus deblurring.
        out_channels: channels of the output.
        dim: channels at full resolution; even.
        num_blocks: blocks of the four levels, from full resolution down.
        num_refinement_blocks: blocks at full resolution after the decoder.
        heads: attention heads of the four levels.
        ffn_expansion_factor: width inside the feed-forward networks / width outside.
        bias: whether the blocks' convolutions have biases.
        LayerNorm_type: "BiasFree" is for Gaussian denoising, where it generalises over noise levels.
        dual_pixel_task: the output is made from features alone, since a pair of views has no one image to correct.
        use_checkpoint: keep less for the backward pass and compute it again; slower.

    Raises:
        UserError: settings that do not make four levels, or fewer channels in than out.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: Literal["WithBias", "BiasFree"] = "WithBias",
        dual_pixel_task: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            num_refinement_blocks=num_refinement_blocks,
            heads=heads,
            ffn_expansion_factor=ffn_expansion_factor,
            bias=bias,
            LayerNorm_type=LayerNorm_type,
            dual_pixel_task=dual_pixel_task,
            use_checkpoint=use_checkpoint,
        )
