"""What MambaIR, MambaIRv2 and SRFormer have of SwinIR: all around the layers, which see an image as a sequence of pixels.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV Workshops 2021. Parameter names are the originals'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.pixelwise import channels, pixels
from .edsr import pixel_shuffle_head
from .residual import conv3x3_with_bias

Upsampler = Literal["", "pixelshuffle", "pixelshuffledirect", "nearest+conv"]
Connection = Literal["1conv", "3conv"]
RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""DIV2K's."""
FEATURES = 64
"""Channels at the size of the output."""


def residual_conv(dim: int, kind: Connection) -> nn.Module:
    """The convolution at the end of a group of layers: one, or three with a quarter of the channels between.

    Raises:
        UserError: `kind` is neither ``1conv`` nor ``3conv``.
    """
    if kind == "1conv":
        return conv3x3_with_bias(dim, dim)
    if kind != "3conv":
        raise UserError(f"resi_connection: must be 1conv or 3conv, not '{kind}'")
    return nn.Sequential(
        conv3x3_with_bias(dim, dim // 4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        conv3x3_with_bias(dim // 4, dim),
    )


class PatchEmbed(nn.Module):
    """Only the normalisation of pixels, where there is one, under the original's name."""

    def __init__(self, dim: int, normalised: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if normalised else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return x if self.norm is None else self.norm(x)


class SequenceSR(nn.Module):
    """Features, layers, a residual connection around them, and an enlargement. Subclasses fill `layers`.

    Args:
        in_chans: channels of the image.
        embed_dim: channels inside.
        patch_norm: normalise pixels before the first layer.
        upscale: enlargement.
        img_range: the insides see values this much larger than the input.
        upsampler: ``pixelshuffle``, with 64 channels at each size; ``pixelshuffledirect``, in one step; ``nearest+conv``, by 4
            only; or '', which adds a correction to the input and needs ``upscale: 1``.
        resi_connection: convolution after each group: ``1conv``, or ``3conv`` for three, see `residual_conv`.

    Raises:
        UserError: settings that do not go together.
    """

    sees_whole = "scans of the whole picture"
    size_multiple = 1
    upsamplers: Sequence[str] = get_args(Upsampler)
    """Names of the upsamplers that are accepted."""
    drop_rate = 0.0
    """Share of elements of the features that training leaves out."""
    window_size: int
    """Side of the windows of layers that have them: images are extended to a multiple of it."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        patch_norm: bool,
        upscale: int,
        img_range: float,
        upsampler: str,
        resi_connection: Connection,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        # Options that do not go together.
        if upsampler not in self.upsamplers:
            known = ", ".join(u or "''" for u in self.upsamplers)
            raise UserError(f"{name}: upsampler must be one of {known}, not '{upsampler}'")
        if not upsampler and upscale != 1:
            raise UserError(f"{name}: upscale is {upscale}, which needs an upsampler, such as pixelshuffle")
        if upsampler == "nearest+conv" and upscale != 4:
            raise UserError(f"{name}: the upsampler nearest+conv enlarges by 4; upscale is {upscale}")
        if upsampler == "pixelshuffle" and upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
            raise UserError(f"{name}: the upsampler pixelshuffle enlarges by 3 or a power of two; upscale is {upscale}")
        self.scale, self.img_range, self.upsampler = upscale, img_range, upsampler
        # What comes before the layers, and after them; subclasses fill `layers`.
        self.mean: Tensor
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,))[:, None, None]
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = conv3x3_with_bias(in_chans, embed_dim)
        self.patch_embed = PatchEmbed(embed_dim, patch_norm)
        self.absolute_pos_embed: nn.Parameter | None = None
        self.layers = nn.ModuleList()
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        # The layers that enlarge, whose names depend on the upsampler in the original, too.
        if upsampler in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(conv3x3_with_bias(embed_dim, FEATURES), nn.LeakyReLU())
        if upsampler == "pixelshuffle":
            self.upsample = pixel_shuffle_head(FEATURES, upscale)
        elif upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(conv3x3_with_bias(embed_dim, in_chans * upscale**2), nn.PixelShuffle(upscale))
        elif upsampler == "nearest+conv":
            self.conv_up1, self.conv_up2, self.conv_hr = (conv3x3_with_bias(FEATURES, FEATURES) for _ in range(3))
        if upsampler != "pixelshuffledirect":
            self.conv_last = conv3x3_with_bias(FEATURES if upsampler else embed_dim, in_chans)

    def learn_positions(self, side: int, dim: int) -> None:
        """Add a learned value to each pixel and channel, which allows images of this side only, after extension to windows."""
        self.side = side
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, side**2, dim))
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def init_weights(self) -> None:
        """Linear layers from a truncated normal distribution of deviation 0.02, their biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embedded(self, x: Tensor) -> Tensor:
        """What the first layer sees, of pixels (B, H, W, C).

        Raises:
            UserError: positions are learned (``ape``), and the image is not of ``img_size``.
        """
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            if x.shape[1:3] != (self.side, self.side):
                raise UserError(
                    f"{type(self).__name__}: with ape, images must be {self.side} x {self.side} (img_size); this one is "
                    f"{x.shape[1]} x {x.shape[2]}, extended to a multiple of {self.window_size}"
                )
            x = x + self.absolute_pos_embed.view(1, self.side, self.side, -1)
        return F.dropout(x, self.drop_rate, self.training)

    def layered(self, x: Tensor) -> Tensor:
        """What the layers make of pixels (B, H, W, C): the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, in_chans, upscale H, upscale W)."""
        image = (image - self.mean) * self.img_range
        first = self.conv_first(image)
        x = self.layered(self.embedded(pixels(first)))
        x = self.conv_after_body(channels(self.norm(x))) + first
        return self.enlarged(x, image) / self.img_range + self.mean

    def enlarged(self, x: Tensor, image: Tensor) -> Tensor:
        """The result (B, in_chans, upscale H, upscale W) from features (B, C, H, W) and the input image (B, in_chans, H, W).

        Without an upsampler the features give a correction, to which the image is added.
        """
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        if not self.upsampler:
            return image + self.conv_last(x)
        x = self.conv_before_upsample(x)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


def linear_rates(most: float, count: int) -> list[float]:
    """Rates of stochastic depth, from 0 for the first block to `most` for the last."""
    return [most * i / max(count - 1, 1) for i in range(count)]


def need_heads(name: str, dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    """Refuse attention heads with which network `name` could not make its groups.

    Raises:
        UserError: not one number for each group, or one that does not divide `dim` channels.
    """
    if len(depths) != len(num_heads):
        raise UserError(f"{name}: depths has {len(depths)} groups, num_heads {len(num_heads)}; they must agree")
    if any(heads < 1 or dim % heads for heads in num_heads):
        raise UserError(f"{name}: every entry of num_heads must divide embed_dim {dim}; got {list(num_heads)}")
