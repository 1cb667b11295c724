"""The AGSSF family: the four networks that preceded Phaseformer in Spectroformer's repositories.

A U-shape of transposed-attention blocks with Fourier-spatial upsampling (UpS) and, in two variants, spatial-frequency attention
(SFCA) on the skip connections. Parameter names are those of the published code, so its checkpoints load with
``strict=True``. What the published networks compute in vain is not computed here: see `SpectroformerAGSSF`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.channel_attention import cross_attention, self_attention, self_attention_and_map
from ..core.ops.pixelwise import channels, linear, pixels
from ..core.ops.precision import full_precision
from ..core.ops.spectral_mixing import spectral_mixing
from . import ARCHS
from .blocks import (
    ChannelLayerNorm,
    adaptive_kernel,
    as_conv,
    conv3x3,
    expand,
    feed_forward,
    fourier_magnitudes,
    fused_upsample,
    inner_width,
    matrix,
    need_levels,
    pad_to,
    pointwise,
    spread,
    xavier_init,
)

Variant = Literal["agssf1", "official", "model", "without_ca"]
Gate = Literal["legacy", "spatial"]
Query = Literal["dead", "active"]


class FeedForward(nn.Module):
    """Restormer's gated feed-forward network with the family's parameter names. (B, dim, H, W) -> same."""

    def __init__(self, dim: int, expansion: float) -> None:
        super().__init__()
        inner = inner_width(dim, expansion)
        self.project_in = pointwise(dim, 2 * inner)
        self.conv = conv3x3(2 * inner, 2 * inner, groups=2 * inner)
        self.project_out = pointwise(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, self.project_in, self.conv, self.project_out)


class AGSSFBlock(nn.Module):
    """Transformer block: ``u = x + attn(norm(x))``, ``u + ffn(norm(u))``. (B, dim, H, W) -> same."""

    def __init__(self, dim: int, expansion: float, attn: nn.Module) -> None:
        super().__init__()
        self.norm1 = ChannelLayerNorm(dim)
        self.attn = attn
        self.norm2 = ChannelLayerNorm(dim)
        self.ffn = FeedForward(dim, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class MDTA(nn.Module):
    """Transposed attention, then attention once more to what came out of it. (B, dim, H, W) -> same.

    Args:
        dim: channels.
        heads: attention heads.
        freq_query: "dead" applies the first attention matrix a second time, which is what three of the four published
            networks do: they compute a query from the spectrum and drop it. "active" is the fourth: the second matrix
            compares that query with the keys of the first stage. Either way the keys of the second stage (the first half of
            ``kv`` and ``kv_conv``) are never used.
    """

    def __init__(self, dim: int, heads: int, freq_query: Query) -> None:
        super().__init__()
        self.freq_query = freq_query
        self.temperature = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.qkv = pointwise(dim, 3 * dim)
        self.qkv_conv = conv3x3(3 * dim, 3 * dim, groups=3 * dim)
        self.project_out = pointwise(dim, dim)
        self.kv = pointwise(dim, 2 * dim)
        self.q1X1_1 = pointwise(dim, dim)
        self.q1X1_2 = pointwise(dim, dim)
        self.kv_conv = conv3x3(2 * dim, 2 * dim, groups=2 * dim)
        self.project_outf = pointwise(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        dim = x.shape[1]
        qkv = expand(x, self.qkv, self.qkv_conv)
        # The values' half of kv(project_out(...)) is one 1 x 1 convolution.
        weight, kernel = matrix(self.kv)[dim:] @ matrix(self.project_out), self.kv_conv.weight[dim:]
        if self.freq_query == "dead":
            v, attention = self_attention_and_map(qkv, self.temperature, weight, kernel=kernel)
            with torch.autocast(x.device.type, enabled=False):
                mixing = matrix(self.project_outf).to(attention.dtype) @ attention
            return channels(linear(v, mixing))
        v = self_attention(qkv, self.temperature, weight, kernel=kernel)
        first, second = matrix(self.q1X1_1), matrix(self.q1X1_2)
        q = spectral_mixing(pixels(x), first, None, second, None, real_part=True, norm="backward")
        kv = torch.cat((qkv[..., dim : 2 * dim], v), dim=-1)
        return channels(cross_attention(q, kv, self.temperature, matrix(self.project_outf)))


class PhaseGate(nn.Module):
    """Channel gate: sigmoid of a 1-D convolution across one number per channel (called AGSSF, later ECA).

    Args:
        dim: channels, which set the kernel size.
        kind: "legacy" feeds the mean of the channel's phase-only image, as published. That mean is the sign of the
            channel's sum over H W (its DC phasor), so the gate is 0.5 to within 1e-5 at 256 x 256, whatever it learns.
            "spatial" feeds the channel's mean.
    """

    def __init__(self, dim: int, kind: Gate) -> None:
        super().__init__()
        self.kind = kind
        size = adaptive_kernel(dim)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> same."""
        return x * self.factors(x)[:, :, None, None].to(x.dtype)

    def factors(self, x: Tensor) -> Tensor:
        """What the gate multiplies each channel of (B, dim, H, W) by: (B, dim), between 0 and 1."""
        precise = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            if self.kind == "legacy":
                total = x.detach().sum((2, 3), dtype=precise)
                pooled = torch.where(total < 0, -1.0, 1.0).to(precise) / (x.shape[2] * x.shape[3])
            else:
                pooled = x.mean((2, 3), dtype=precise)
            return F.conv1d(pooled[:, None], self.conv.weight.to(precise), padding="same")[:, 0].sigmoid()


class SFCA(nn.Module):
    """Spatial-frequency attention of a skip connection. (B, dim, H, W) -> same.

    A spatial branch (1 x 1, grouped 3 x 3) and a spectral one (two 1 x 1 convolutions of the real part of the spectrum,
    which makes it symmetric under ``n -> -n``), each added to a 1 x 1 convolution of the input, then concatenated and mixed.

    Args:
        dim: channels.
        official: the authors' last form: learned slopes, no widening in the spectrum, and the gate on each branch before its
            addition; otherwise slopes of 0.2, twice the channels in the spectrum, and the gate at the end.
        gate: kind of channel gate, see `PhaseGate`.
    """

    def __init__(self, dim: int, official: bool, gate: Gate = "legacy") -> None:
        super().__init__()
        inner = dim if official else 2 * dim
        self.official = official
        self.identity1 = pointwise(dim, dim, bias=True)
        self.identity2 = pointwise(dim, dim, bias=True)
        self.conv_1 = pointwise(dim, 2 * dim, bias=True)
        self.relu_1 = nn.PReLU() if official else nn.LeakyReLU(0.2)
        self.conv_2 = conv3x3(2 * dim, dim, bias=True, groups=dim)
        self.relu_2 = nn.PReLU() if official else nn.LeakyReLU(0.2)
        self.conv_f1 = pointwise(dim, inner, bias=True)
        self.conv_f2 = pointwise(inner, dim, bias=True)
        self.con2X1 = pointwise(2 * dim, dim, bias=True)
        self.agssf = PhaseGate(dim, gate)

    def forward(self, x: Tensor) -> Tensor:
        spatial = self.relu_2(self.conv_2(self.relu_1(self.conv_1(x))))
        f1, f2 = self.conv_f1, self.conv_f2
        spectral = spectral_mixing(
            pixels(x), matrix(f1), f1.bias, matrix(f2), f2.bias, real_part=True, norm="backward"
        ).to(spatial.dtype)
        if self.official:
            spatial, spectral = self.agssf(spatial), self.agssf(spectral)
        # Both identity branches are mixed into the same sum: one matrix does it.
        of_spatial, of_spectral = matrix(self.con2X1).chunk(2, dim=1)
        weight = of_spatial @ matrix(self.identity1) + of_spectral @ matrix(self.identity2)
        biases = [conv.bias for conv in (self.identity1, self.identity2) if conv.bias is not None]
        bias = F.linear(torch.cat(biases), matrix(self.con2X1), self.con2X1.bias)
        y = linear(pixels(x), weight, bias) + linear(pixels(spatial), of_spatial)
        y = channels(y + linear(spectral.permute(0, 2, 3, 1), of_spectral))
        return y if self.official else self.agssf(y)


class FourierUp(nn.Module):
    """Deep Fourier upsampling with biases: (B, dim, H, W) -> (B, dim / 2 or dim, 2 H, 2 W). See `blocks.fourier_magnitudes`.

    Args:
        dim: channels.
        channel_red: halve the channels.
        snap: whether bins that are real in theory get a phase of 0 or +pi, see `core.ops.fourier.polar_spectrum`.
    """

    def __init__(self, dim: int, channel_red: bool = True, snap: bool = True) -> None:
        super().__init__()
        self.snap = snap
        self.amp_fuse = self._perceptron(dim)
        self.pha_fuse = self._perceptron(dim)
        self.post = pointwise(dim, dim // 2 if channel_red else dim, bias=True)

    @staticmethod
    def _perceptron(dim: int) -> nn.ModuleDict:
        return nn.ModuleDict({"0": pointwise(dim, dim, bias=True), "2": pointwise(dim, dim, bias=True)})

    def magnitudes(self, x: Tensor) -> Tensor:
        """What the upsampled map holds on even rows and columns, before `post`: planes (B, dim, H, W)."""
        amplitude, phase = ((as_conv(m["0"]), as_conv(m["2"])) for m in (self.amp_fuse, self.pha_fuse))
        return fourier_magnitudes(x, amplitude, phase, self.snap)

    def forward(self, x: Tensor) -> Tensor:
        return spread(self.magnitudes(x), self.post)


class PixelUp(nn.Module):
    """3 x 3 convolution and pixel shuffle: (B, dim, H, W) -> (B, dim / 2, 2 H, 2 W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(dim, 2 * dim), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PixelDown(nn.Module):
    """3 x 3 convolution and pixel unshuffle: (B, dim, H, W) -> (B, 2 dim, H / 2, W / 2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(dim, dim // 2), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class UpS(nn.Module):
    """`FourierUp` and `PixelUp`, fused by a 1 x 1 convolution: (B, dim, H, W) -> (B, dim / 2, 2 H, 2 W)."""

    def __init__(self, dim: int, snap: bool = True) -> None:
        super().__init__()
        self.Fups = FourierUp(dim, snap=snap)
        self.Sups = PixelUp(dim)
        self.reduce = pointwise(dim, dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        return fused_upsample(x, self.Fups.magnitudes(x), self.Fups.post, as_conv(self.Sups.body[0]), self.reduce)


class DeadParameters(nn.Module):
    """A network whose published form has parameters that its output does not depend on.

    They are kept, frozen, so that checkpoints load while optimizers and DistributedDataParallel pass them by; or dropped, and
    then ignored in checkpoints that have them.
    """

    _dead: frozenset[str] = frozenset()

    def freeze_or_drop(self, patterns: Sequence[str], drop: bool) -> None:
        """Freeze, or `drop`, the parameters whose names match one of the `fnmatch` patterns. Call once all are there."""
        names = [name for name, _ in self.named_parameters() if any(fnmatch(name, p) for p in patterns)]
        self._dead = frozenset(names)
        for name in names:
            owner, _, leaf = name.rpartition(".")
            if drop:
                setattr(self.get_submodule(owner), leaf, None)
            else:
                self.get_parameter(name).requires_grad_(False)
        if drop:
            self.register_load_state_dict_pre_hook(_without_dead)

    def live_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that the output depends on."""
        return (p for name, p in self.named_parameters() if name not in self._dead)


def _without_dead(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(module, DeadParameters)
    for name in module._dead:
        state.pop(prefix + name, None)


def check_widths(channels: Sequence[int], num_blocks: Sequence[int], num_heads: Sequence[int]) -> None:
    """Refuse channels that do not double from level to level, and what `need_levels` refuses.

    Raises:
        UserError: the channels do not double, or the settings do not make four levels.
    """
    if len(channels) != 4 or any(b != 2 * a for a, b in pairwise(channels)):
        raise UserError(f"channels must be four numbers, each twice the previous; got {list(channels)}")
    need_levels(channels[0], num_blocks=num_blocks, num_heads=num_heads)


@ARCHS.register()
class SpectroformerAGSSF(DeadParameters):
    """The networks published before Phaseformer: U-shapes with repeated attention and Fourier-spatial upsampling.

    (B, 3, H, W) -> (B, 3, H, W); no global residual, no clamp. Any size: where H or W is not a multiple of 8 the image is
    mirrored up to one and the result cropped. The options default to what was published, which includes three oddities: the
    query from the spectrum is not used (all but "model"), the gates are constant, and with "backward" norms the upsampling
    responds to the image's size.

    Args:
        num_blocks: transformer blocks of the four levels.
        num_heads: attention heads of the four levels.
        channels: channels of the four levels; each twice the previous.
        num_refinement: blocks at full size after the decoder.
        expansion_factor: inner channels of the feed-forward blocks over their input's.
        variant: "agssf1" (final_model_AGSSF1.py), "official" (Final_model_AGSSF.py, another `SFCA`), "model" (model.py: the
            spectral query is used, plain skip connections) or "without_ca" (the ablation: plain skip connections).
        phase_gate: kind of channel gate, ``legacy`` or ``spatial``, see `PhaseGate`.
        freq_query: kind of query from the spectrum, see `MDTA`; the variant's own when omitted.
        snap_self_conjugate: whether bins that are real in theory get a phase of 0 or +pi, see
            `core.ops.fourier.polar_spectrum`. False is what was published, which makes the output jump by O(0.1) under 1e-7
            of noise at sizes that are not powers of two.
        drop_dead: leave out the parameters that the output does not depend on; checkpoints that have them still load.

    Raises:
        UserError: settings that do not make four levels.
    """

    sees_whole = "Fourier transforms of the whole picture"
    size_multiple = 8

    def __init__(
        self,
        num_blocks: Sequence[int] = (2, 3, 3, 4),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        channels: Sequence[int] = (16, 32, 64, 128),
        num_refinement: int = 4,
        expansion_factor: float = 2.66,
        variant: Variant = "agssf1",
        phase_gate: Gate = "legacy",
        freq_query: Query | None = None,
        snap_self_conjugate: bool = True,
        drop_dead: bool = False,
    ) -> None:
        super().__init__()
        check_widths(channels, num_blocks, num_heads)
        c, n, h = channels, num_blocks, num_heads
        query = freq_query or ("active" if variant == "model" else "dead")

        def blocks(width: int, heads: int, count: int) -> nn.Sequential:
            return nn.Sequential(
                *(AGSSFBlock(width, expansion_factor, MDTA(width, heads, query)) for _ in range(count))
            )

        self.attends = variant in ("agssf1", "official")
        if variant != "without_ca":
            self.attention = nn.ModuleList(SFCA(w, variant == "official", phase_gate) for w in (c[2], c[1], c[0], c[2]))
        # The encoder, its four levels, and the way back up.
        self.embed_conv_rgb = conv3x3(3, c[0])
        self.encoders = nn.ModuleList(blocks(c[i], h[i], n[i]) for i in range(4))
        self.down1, self.down2, self.down3 = PixelDown(c[0]), PixelDown(c[1]), PixelDown(c[2])
        self.ups_1, self.ups_2, self.ups_3, self.ups_4 = (UpS(w, snap_self_conjugate) for w in (c[3], c[2], c[1], 3))
        self.ups1 = PixelUp(c[1])
        self.reduces2 = pointwise(c[2], c[1])
        self.reduces1 = pointwise(c[3], c[2])
        self.decoders = nn.ModuleList([blocks(c[2], h[2], n[2]), blocks(c[1], h[1], n[1]), blocks(c[1], h[0], n[0])])
        self.refinement = blocks(c[1], h[0], num_refinement)
        self.output = conv3x3(8, 3)
        self.output1 = conv3x3(c[0], 8)
        self.ups2 = PixelUp(c[0])
        self.outputl = conv3x3(c[1], 8)
        # Layers that the forward pass never reaches, in the original as here.
        xavier_init(self)
        dead = ["ups_4.*", "ups1.*", "ups2.*", "output1.*", "attention.3.*" if self.attends else "attention.*"]
        self.freeze_or_drop([*dead, *(["*.q1X1_?.weight"] if query == "dead" else [])], drop_dead)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to(x, self.size_multiple).contiguous(memory_format=torch.channels_last)
        # Rounding in front of a phase makes it jump between -pi and pi, and the upsampled map with it: what leads to the
        # first two upsamplings, a third of the work, is not left to half precision.
        with full_precision(x):
            e1 = self.encoders[0](self.embed_conv_rgb(x.to(self.embed_conv_rgb.weight.dtype)))
            e2 = self.encoders[1](self.down1(e1))
            e3 = self.encoders[2](self.down2(e2))
            d = self.encoders[3](self.down3(e3))
            d = self.decoders[0](self.reduces1(torch.cat((self.ups_1(d), self._skip(0, e3)), dim=1)))
            up = self.ups_2(d)
        d = self.decoders[1](self.reduces2(torch.cat((up, self._skip(1, e2)), dim=1)))
        d = self.decoders[2](torch.cat((self.ups_3(d), self._skip(2, e1)), dim=1))
        y = self.output(self.outputl(self.refinement(d)))
        return y[..., :height, :width]

    def _skip(self, i: int, x: Tensor) -> Tensor:
        return self.attention[i](x) if self.attends else x
