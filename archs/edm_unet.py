"""The U-Nets of score-based generation with parameter names of EDM's implementation: DDPM++, NCSN++ and what lies between.

Song et al., "Score-based generative modeling through stochastic differential equations" (ICLR 2021), as described by Karras et
al., "Elucidating the design space of diffusion-based generative models" (NeurIPS 2022), appendix C and table 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError, did_you_mean
from ..core.ops.precision import at_least_float32

EmbeddingType = Literal["positional", "fourier"]
EncoderType = Literal["standard", "skip", "residual"]
DecoderType = Literal["standard", "skip"]

SKIP_SCALE = math.sqrt(0.5)
"""Factor that keeps the variance of a sum of two branches."""
LinearOrConv = TypeVar("LinearOrConv", nn.Linear, nn.Conv2d)
SMALL = 1e-5
"""Gain of layers that end a residual branch: a fresh block is nearly the identity."""


def initialised(layer: LinearOrConv, gain: float = 1.0) -> LinearOrConv:
    """Glorot's uniform weights times `gain`, zero bias. Returns `layer`."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


# -------------------------------------------------------------------------------- layers
class GroupNorm(nn.GroupNorm):
    """Group normalisation with at most 32 groups of at least 4 channels; statistics in float32 at least."""

    def __init__(self, channels: int) -> None:
        groups = min(32, channels // 4)
        if groups == 0 or channels % groups:
            raise UserError(
                f"{channels} channels (of model_channels and channel_mult) cannot be normalised in {groups} equal groups"
            )
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
            return F.group_norm(wide, self.num_groups, weight, bias, self.eps).to(x.dtype)


def filter_buffer(taps: Sequence[int]) -> Tensor:
    """The separable filter with those taps as a kernel (1, 1, k, k) of sum 1.

    Raises:
        UserError: an odd number of taps, which would shift the image by half a pixel.
    """
    if not taps or len(taps) % 2:
        raise UserError(
            f"resample_filter needs an even number of taps, such as [1, 1] or [1, 3, 3, 1], not {list(taps)}"
        )
    line = torch.tensor(taps, dtype=torch.float32)
    return (line[:, None] * line / line.sum() ** 2)[None, None]


def resample(x: Tensor, kernel: Tensor, up: bool, padding: int | None = None) -> Tensor:
    """Halve or double the resolution of (B, C, H, W), each channel filtered by `kernel` (1, 1, k, k) of sum 1.

    Taps (1, 1) shrink by the mean of 2 x 2 pixels and enlarge by repetition. `padding` is the filter's own when None.
    """
    channels = x.shape[1]
    padding = (kernel.shape[-1] - 1) // 2 if padding is None else padding
    kernel = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    if up:
        return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)


class Resample(nn.Module):
    """`resample` with a stored filter."""

    resample_filter: Tensor

    def __init__(self, up: bool, taps: Sequence[int]) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("resample_filter", filter_buffer(taps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W) where `up` was set, else (B, C, H / 2, W / 2)."""
        return resample(x, self.resample_filter, self.up)


class ResamplingConv(nn.Conv2d):
    """`resample`, then a convolution with a kernel of odd `size`."""

    resample_filter: Tensor

    def __init__(self, channels: int, out_channels: int, size: int, up: bool, taps: Sequence[int]) -> None:
        super().__init__(channels, out_channels, size, padding=size // 2)
        self.up = up
        self.register_buffer("resample_filter", filter_buffer(taps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2 H, 2 W) where `up` was set, else (B, out, H / 2, W / 2)."""
        return super().forward(resample(x, self.resample_filter, self.up))


class ShrinkingConv(nn.Conv2d):
    """A 3 x 3 convolution, then `resample` to half the size; the border is padded once, for both."""

    resample_filter: Tensor

    def __init__(self, channels: int, out_channels: int, taps: Sequence[int]) -> None:
        super().__init__(channels, out_channels, 3, padding=1 + (len(taps) - 1) // 2)
        self.register_buffer("resample_filter", filter_buffer(taps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / 2, W / 2)."""
        return resample(super().forward(x), self.resample_filter, up=False, padding=0)


class PositionalEmbedding(nn.Module):
    """(B,) -> (B, channels): sines, then cosines, of x times frequencies spaced geometrically from 1 to 1e-4, both included."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, device=x.device, dtype=x.dtype) / (half - 1)
        angles = x[:, None] * 1e-4**exponents
        return torch.cat([angles.sin(), angles.cos()], 1)


class FourierEmbedding(nn.Module):
    """(B,) -> (B, channels): sines, then cosines, of 2 pi x times fixed random frequencies of standard deviation 16."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, None] * (2 * math.pi * self.freqs.to(x.dtype))
        return torch.cat([angles.sin(), angles.cos()], 1)


# -------------------------------------------------------------------------------- blocks
class UNetBlock(nn.Module):
    """Residual block with the embedding added between its convolutions, then, optionally, self-attention over pixels.

    h = conv0(silu(norm0(x))) + affine(emb);  y = (conv1(drop(silu(norm1(h)))) + skip(x)) / sqrt 2
    y <- (proj(attention(qkv(norm2(y)))) + y) / sqrt 2

    Args:
        channels, out_channels: channels of the input and of the output.
        emb_channels: E; the embedding is (B, E).
        dropout: probability of dropout.
        attention: whether there is self-attention, of one head of `out_channels`.
        resize: change of size: ``up`` doubles, ``down`` halves the resolution, in conv0 and in skip.
        taps: filter of the resizing.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float,
        attention: bool = False,
        resize: Literal["up", "down"] | None = None,
        taps: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        self.dropout = dropout

        def convolution(size: int) -> nn.Conv2d:
            if resize is not None:
                return ResamplingConv(channels, out_channels, size, resize == "up", taps)
            return nn.Conv2d(channels, out_channels, size, padding=size // 2)

        self.norm0 = GroupNorm(channels)
        self.conv0 = initialised(convolution(3))
        self.affine = initialised(nn.Linear(emb_channels, out_channels))
        self.norm1 = GroupNorm(out_channels)
        self.conv1 = initialised(nn.Conv2d(out_channels, out_channels, 3, padding=1), SMALL)
        self.skip = initialised(convolution(1)) if resize or channels != out_channels else None
        self.norm2 = GroupNorm(out_channels) if attention else None
        if attention:
            self.qkv = initialised(nn.Conv2d(out_channels, 3 * out_channels, 1), math.sqrt(0.2))
            self.proj = initialised(nn.Conv2d(out_channels, out_channels, 1), SMALL)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = h + self.affine(emb.to(self.affine.weight.dtype))[:, :, None, None]
        h = self.conv1(F.dropout(F.silu(self.norm1(h)), self.dropout, self.training))
        y = SKIP_SCALE * (h + (x if self.skip is None else self.skip(x)))
        if self.norm2 is None:
            return y
        return SKIP_SCALE * (self.proj(self.attend(self.qkv(self.norm2(y)))) + y)

    @staticmethod
    def attend(qkv: Tensor) -> Tensor:
        """(B, 3C, H, W) -> (B, C, H, W); query, key and value of channel c are the planes 3c, 3c + 1, 3c + 2.

        The fused kernels keep the softmax in float32 whatever the inputs are.
        """
        # (B, C, 3, HW) -> three of (B, 1, HW, C)
        q, k, v = qkv.flatten(2).unflatten(1, (-1, 3)).permute(2, 0, 3, 1)[:, :, None].unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, qkv.shape[2:])
        # All that follows would inherit its layout, in which a CPU's convolutions of small maps take half as long again.
        return y if qkv.is_contiguous(memory_format=torch.channels_last) else y.contiguous()


# -------------------------------------------------------------------------------- network
@dataclass(frozen=True)
class UNetPlan:
    """What encoder and decoder have in common.

    Args:
        resolutions: resolution of each level, finest first.
        base_width: channels before the first block.
        widths: channels of each level.
        num_blocks: blocks per level of the encoder; one more in the decoder.
        attention: whether a level has attention.
        image_channels: channels of the image.
        taps: resampling filter.
        block: ``block(channels, out_channels, attention, resize)``.
    """

    resolutions: list[int]
    base_width: int
    widths: list[int]
    num_blocks: int
    attention: list[bool]
    image_channels: int
    taps: Sequence[int]
    block: Callable[..., UNetBlock]

    def key(self, level: int, name: str) -> str:
        """Name of a layer, such as ``32x32_block0``."""
        return f"{self.resolutions[level]}x{self.resolutions[level]}_{name}"


class Encoder(nn.ModuleDict):
    """Levels of blocks from fine to coarse. With `skip` or `residual` the image itself, shrunk, is added at every level.

    ``forward``: image (B, C, H, W), embedding (B, E) -> every intermediate map, finest first. `skip_channels` are their widths.
    """

    def __init__(self, plan: UNetPlan, kind: EncoderType) -> None:
        super().__init__()
        self.plan = plan
        self.kind = kind
        self.skip_channels: list[int] = []
        channels, image = plan.image_channels, plan.image_channels
        for level, width in enumerate(plan.widths):
            if level == 0:
                self[plan.key(0, "conv")] = initialised(nn.Conv2d(channels, plan.base_width, 3, padding=1))
                channels = plan.base_width
            else:
                self[plan.key(level, "down")] = plan.block(channels, channels, False, "down")
                if kind == "skip":
                    self[plan.key(level, "aux_down")] = Resample(False, plan.taps)
                    self[plan.key(level, "aux_skip")] = initialised(nn.Conv2d(image, channels, 1))
                elif kind == "residual":
                    self[plan.key(level, "aux_residual")] = initialised(ShrinkingConv(image, channels, plan.taps))
                    image = channels
            self.skip_channels.append(channels)
            for i in range(plan.num_blocks):
                self[plan.key(level, f"block{i}")] = plan.block(channels, width, plan.attention[level])
                channels = width
                self.skip_channels.append(channels)

    def forward(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        image, maps = x, []
        for level in range(len(self.plan.widths)):
            key = partial(self.plan.key, level)
            if level == 0:
                x = self[key("conv")](x)
            else:
                x = self[key("down")](x, emb)
                if self.kind == "skip":
                    image = self[key("aux_down")](image)
                    x = x + self[key("aux_skip")](image)
                elif self.kind == "residual":
                    x = image = SKIP_SCALE * (x + self[key("aux_residual")](image))
            maps.append(x)
            for i in range(self.plan.num_blocks):
                x = self[key(f"block{i}")](x, emb)
                maps.append(x)
        return maps


class Decoder(nn.ModuleDict):
    """Levels of blocks from coarse to fine; each block also sees a map of the encoder, last in, first out.

    With `skip` every level adds to an image that is enlarged from level to level; otherwise the last level makes it.
    ``forward``: the encoder's maps, embedding (B, E) -> image.
    """

    def __init__(self, plan: UNetPlan, kind: DecoderType, skip_channels: list[int]) -> None:
        super().__init__()
        self.plan = plan
        self.kind = kind
        skips = list(skip_channels)
        coarsest = len(plan.widths) - 1
        channels = plan.widths[-1]
        for level in range(coarsest, -1, -1):
            width = plan.widths[level]
            if level == coarsest:
                self[plan.key(level, "in0")] = plan.block(channels, channels, True)
                self[plan.key(level, "in1")] = plan.block(channels, channels, False)
            else:
                self[plan.key(level, "up")] = plan.block(channels, channels, False, "up")
            for i in range(plan.num_blocks + 1):
                attention = plan.attention[level] and i == plan.num_blocks
                self[plan.key(level, f"block{i}")] = plan.block(channels + skips.pop(), width, attention)
                channels = width
            if kind == "skip" or level == 0:
                if level != coarsest and kind == "skip":
                    self[plan.key(level, "aux_up")] = Resample(True, plan.taps)
                self[plan.key(level, "aux_norm")] = GroupNorm(width)
                last = nn.Conv2d(width, plan.image_channels, 3, padding=1)
                self[plan.key(level, "aux_conv")] = initialised(last, SMALL)

    def forward(self, maps: list[Tensor], emb: Tensor) -> Tensor:
        maps = list(maps)
        x, image = maps[-1], None
        coarsest = len(self.plan.widths) - 1
        for level in range(coarsest, -1, -1):
            key = partial(self.plan.key, level)
            for name in ("in0", "in1") if level == coarsest else ("up",):
                x = self[key(name)](x, emb)
            for i in range(self.plan.num_blocks + 1):
                x = self[key(f"block{i}")](torch.cat([x, maps.pop()], 1), emb)
            if self.kind == "skip" or level == 0:
                made = self[key("aux_conv")](F.silu(self[key("aux_norm")](x)))
                image = made if image is None else self[key("aux_up")](image) + made
        assert image is not None
        return image


class SongUNet(nn.Module):
    """U-Net whose blocks are modulated by a noise level, a class and augmentations; for the arguments see `OneStepGenerator`.

    DDPM++ by default; NCSN++ with ``embedding_type: fourier``, ``channel_mult_noise: 2``, ``encoder_type: residual`` and
    ``resample_filter: [1, 3, 3, 1]``.

    Raises:
        UserError: sizes or channels that cannot be halved or grouped, an unknown kind of embedding, encoder or decoder.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int = 3,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        label_dropout: float = 0.0,
        embedding_type: EmbeddingType = "positional",
        channel_mult_noise: int = 1,
        encoder_type: EncoderType = "standard",
        decoder_type: DecoderType = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        # Refuse options that do not go together.
        levels = len(channel_mult)
        self.size_multiple = 2 ** (levels - 1)
        if img_resolution % self.size_multiple:
            raise UserError(f"img_resolution {img_resolution} cannot be halved {levels - 1} times for {levels} levels")
        for name, value, known in (
            ("embedding_type", embedding_type, EmbeddingType),
            ("encoder_type", encoder_type, EncoderType),
            ("decoder_type", decoder_type, DecoderType),
        ):
            if value not in get_args(known):
                hint = did_you_mean(value, get_args(known))
                raise UserError(f"{name} cannot be '{value}'.{hint} Accepted: {', '.join(get_args(known))}.")
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        if noise_channels % 2 or noise_channels < 4:
            raise UserError(
                f"model_channels times channel_mult_noise must be an even number from 4 on, not {noise_channels}"
            )
        # Embeddings of the noise level, the class and the augmentation.
        embedding = PositionalEmbedding if embedding_type == "positional" else FourierEmbedding
        self.map_noise = embedding(noise_channels)
        self.map_label = initialised(nn.Linear(label_dim, noise_channels)) if label_dim else None
        self.map_augment = initialised(nn.Linear(augment_dim, noise_channels, bias=False)) if augment_dim else None
        self.map_layer0 = initialised(nn.Linear(noise_channels, emb_channels))
        self.map_layer1 = initialised(nn.Linear(emb_channels, emb_channels))

        def block(channels: int, out: int, attention: bool, resize: Literal["up", "down"] | None = None) -> UNetBlock:
            return UNetBlock(channels, out, emb_channels, dropout, attention, resize, resample_filter)

        # Encoder and decoder, from one plan.
        resolutions = [img_resolution >> level for level in range(levels)]
        plan = UNetPlan(
            resolutions=resolutions,
            base_width=model_channels,
            widths=[model_channels * mult for mult in channel_mult],
            num_blocks=num_blocks,
            attention=[resolution in attn_resolutions for resolution in resolutions],
            image_channels=img_channels,
            taps=resample_filter,
            block=block,
        )
        self.enc = Encoder(plan, encoder_type)
        self.dec = Decoder(plan, decoder_type, self.enc.skip_channels)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """One pass.

        Args:
            x: (B, img_channels, H, W), H and W multiples of `size_multiple`.
            noise_labels: what to embed of the noise level, (B,).
            class_labels: (B, label_dim) one-hot or any weights, or (B,) int64; zeros when None.
            augment_labels: (B, augment_dim); nothing is added when None.

        Returns:
            (B, img_channels, H, W), in the dtype of the last convolution.

        Raises:
            UserError: a size that cannot be halved, labels that the network does not take.
        """
        if any(side % self.size_multiple for side in x.shape[-2:]):
            raise UserError(
                f"images of {tuple(x.shape[-2:])} pixels: both sides must be multiples of {self.size_multiple}"
            )
        emb = self.embed(noise_labels, class_labels, augment_labels)
        output: Tensor = self.dec(self.enc(x, emb), emb)
        return output

    def embed(self, noise_labels: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """The modulation (B, E), in float32 at least: small differences of the noise level matter.

        Raises:
            UserError: labels are given that the network does not take, or are of another shape.
        """
        with torch.autocast(noise_labels.device.type, enabled=False):
            dtype = torch.promote_types(self.map_layer0.weight.dtype, torch.float32)
            emb = self.map_noise(noise_labels.to(dtype))
            if self.map_label is not None:
                labels = self.one_hot(class_labels, emb)
                if self.training and self.label_dropout:
                    labels = labels * (torch.rand_like(labels[:, :1]) >= self.label_dropout)
                emb = emb + precise_linear(self.map_label, labels * math.sqrt(self.label_dim))
            elif class_labels is not None and class_labels.numel():
                raise UserError("class labels were given to a network without classes; set label_dim")
            if augment_labels is not None:
                if self.map_augment is None:
                    raise UserError("augmentation labels were given to a network without them; set augment_dim")
                wanted = (len(noise_labels), self.map_augment.in_features)
                if augment_labels.shape != wanted:
                    raise UserError(f"augmentation labels of shape {tuple(augment_labels.shape)}, not {wanted}")
                emb = emb + precise_linear(self.map_augment, augment_labels)
            emb = F.silu(precise_linear(self.map_layer0, emb))
            return F.silu(precise_linear(self.map_layer1, emb))

    def one_hot(self, class_labels: Tensor | None, like: Tensor) -> Tensor:
        """Class labels as (B, label_dim) in the dtype of `like` (B, ...).

        Raises:
            UserError: the labels are of another shape, or not from 0 to ``label_dim - 1``.
        """
        if class_labels is None:
            return like.new_zeros(like.shape[0], self.label_dim)  # len() is a constant to torch.export
        if class_labels.dim() == 1 and not class_labels.is_floating_point():
            if not class_labels.is_cuda and bool(((class_labels < 0) | (class_labels >= self.label_dim)).any()):
                raise UserError(f"class labels must be from 0 to {self.label_dim - 1} (label_dim {self.label_dim})")
            class_labels = F.one_hot(class_labels.long(), self.label_dim)
        if class_labels.shape != (len(like), self.label_dim):
            raise UserError(
                f"class labels of shape {tuple(class_labels.shape)}: with label_dim {self.label_dim} a batch of {len(like)} "
                f"needs ({len(like)}, {self.label_dim}), or ({len(like)},) integers"
            )
        return class_labels.to(like.dtype)


def precise_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer, (..., in) -> (..., out), in float32 at least, whatever the dtype of its weights."""
    weight = at_least_float32(layer.weight)
    return F.linear(x.to(weight.dtype), weight, None if layer.bias is None else layer.bias.to(weight.dtype))
