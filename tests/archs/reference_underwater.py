"""The underwater networks written down formula by formula: no shortcut, no fused kernel, nothing shared with `relume`.

What the tests compare the package's networks with, and what ``make bench`` times them against. Full complex spectra, tiled
spectra, explicit angles and magnitudes, ``F.normalize``: everything as the formulas state it. Parameter names are those of the
published checkpoints, so one state dict loads into both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


def conv(c_in: int, c_out: int, kernel: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=bias)


def spectrum(x: Tensor, snap: bool) -> Tensor:
    """Full 2-D spectrum; with `snap`, the imaginary part of bins that are real for real images is +0."""
    f = torch.fft.fft2(x)
    if snap:
        h, w = f.shape[-2:]
        real = torch.zeros(h, w, dtype=torch.bool)
        for i in {0, h // 2} if h % 2 == 0 else {0}:
            for j in {0, w // 2} if w % 2 == 0 else {0}:
                real[i, j] = True
        f = torch.complex(f.real, torch.where(real, torch.zeros(()), f.imag))
    return f


def phase_only(x: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.exp(1j * torch.angle(torch.fft.fft2(x)))).real


class Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, EPS).permute(0, 3, 1, 2)


class BodyNorm(nn.Module):
    """Restormer's, on the pixels as rows: (x - mean) / sqrt(var + eps) * w + b."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = Norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        mean, variance = rows.mean(-1, keepdim=True), rows.var(-1, keepdim=True, unbiased=False)
        rows = (rows - mean) / torch.sqrt(variance + EPS) * self.body.weight + self.body.bias
        return rows.transpose(1, 2).reshape(x.shape)


def heads_of(x: Tensor, heads: int) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, heads, c // heads, h * w)


def attention_map(q: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    return torch.softmax(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * temperature, dim=-1)


# ---------------------------------------------------------------------------------------------------- Spectroformer
class GDFN(nn.Module):
    def __init__(self, dim: int, ratio: float, bias: bool = False) -> None:
        super().__init__()
        e = int(dim * ratio)
        self.project_in = conv(dim, 2 * e, bias=bias)
        self.dwconv = conv(2 * e, 2 * e, 3, groups=2 * e, bias=bias)
        self.project_out = conv(e, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


def spectral_map(x: Tensor, conv1: nn.Conv2d, conv2: nn.Conv2d) -> Tensor:
    f = torch.fft.rfft2(x, norm="ortho")
    z = conv2(F.gelu(conv1(torch.cat([f.real, f.imag], dim=1))))
    real, imag = z.chunk(2, dim=1)
    return torch.fft.irfft2(torch.complex(real, imag), s=x.shape[-2:], norm="ortho")


class FDFP(nn.Module):
    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(2 * dim, 2 * dim, bias=bias)
        self.conv2 = conv(2 * dim, 2 * dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return spectral_map(x, self.conv1, self.conv2)


class MQCA(nn.Module):
    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv1 = conv(dim, 3 * dim, bias=bias)
        self.qkv1_dwconv = conv(3 * dim, 3 * dim, 3, groups=3 * dim, bias=bias)
        self.project_out1 = conv(dim, dim, bias=bias)
        self.fdfp = FDFP(dim, bias)
        self.kv2 = conv(dim, 2 * dim, bias=bias)
        self.kv2_dwconv = conv(2 * dim, 2 * dim, 3, groups=2 * dim, bias=bias)
        self.project_out2 = conv(dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads_of(t, self.heads) for t in self.qkv1_dwconv(self.qkv1(x)).chunk(3, dim=1))
        o = self.project_out1((attention_map(q, k, self.temperature) @ v).reshape(x.shape))
        q = heads_of(self.fdfp(x), self.heads)
        k, v = (heads_of(t, self.heads) for t in self.kv2_dwconv(self.kv2(o)).chunk(2, dim=1))
        return self.project_out2((attention_map(q, k, self.temperature) @ v).reshape(x.shape))


class MQCT(nn.Module):
    def __init__(self, dim: int, heads: int, ratio: float, bias: bool = False) -> None:
        super().__init__()
        self.norm1 = BodyNorm(dim)
        self.attn = MQCA(dim, heads, bias)
        self.norm2 = BodyNorm(dim)
        self.ffn = GDFN(dim, ratio, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class DownSample(nn.Module):
    def __init__(self, c_in: int, c_out: int, bias: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c_in, c_in // 2, 3, bias=bias), nn.PixelUnshuffle(2))
        self.adjust = conv(2 * c_in, c_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.adjust(self.body(x))


def fourier_upsample(x: Tensor, amplitude: nn.Module, phase: nn.Module, post: nn.Module, snap: bool) -> Tensor:
    f = spectrum(x, snap)
    m, p = amplitude(f.abs()).tile(1, 1, 2, 2), phase(f.angle()).tile(1, 1, 2, 2)
    return post(torch.fft.ifft2(torch.complex(m * torch.cos(p), m * torch.sin(p))).abs())


class DFU(nn.Module):
    def __init__(self, c_in: int, c_out: int, bias: bool = False, snap: bool = True) -> None:
        super().__init__()
        self.snap = snap
        self.amp_conv1, self.amp_conv2 = conv(c_in, c_in, bias=bias), conv(c_in, c_in, bias=bias)
        self.pha_conv1, self.pha_conv2 = conv(c_in, c_in, bias=bias), conv(c_in, c_in, bias=bias)
        self.post = conv(c_in, c_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        leaky = nn.LeakyReLU(0.1)
        return fourier_upsample(
            x,
            lambda t: self.amp_conv2(leaky(self.amp_conv1(t))),  # type: ignore[arg-type]
            lambda t: self.pha_conv2(leaky(self.pha_conv1(t))),  # type: ignore[arg-type]
            self.post,
            self.snap,
        )


class HFSUB(nn.Module):
    def __init__(self, c_in: int, c_out: int, bias: bool = False, snap: bool = True) -> None:
        super().__init__()
        self.dfu = DFU(c_in, c_out, bias, snap)
        self.spatial_up = nn.Sequential(conv(c_in, 4 * c_out, 3, bias=bias), nn.PixelShuffle(2))
        self.fusion = conv(2 * c_out, c_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(torch.cat([self.dfu(x), self.spatial_up(x)], dim=1))


def kernel_size(channels: int, least: int) -> int:
    t = int(abs(math.log2(channels) / 2 + 0.5))
    return max(least, t if t % 2 else t + 1)


class AKC(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        k = kernel_size(dim, 3)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(y)[:, :, None, None]


class SSFB(nn.Module):
    def __init__(self, dim: int, bias: bool = False) -> None:
        super().__init__()
        self.spatial_conv1 = conv(dim, dim, bias=bias)
        self.spatial_act = nn.PReLU()
        self.spatial_dwconv = conv(dim, dim, 3, groups=dim, bias=bias)
        self.spectral_conv1, self.spectral_conv2 = conv(2 * dim, 2 * dim, bias=bias), conv(2 * dim, 2 * dim, bias=bias)
        self.fusion_conv = conv(dim, dim, bias=bias)
        self.akc = AKC(dim)
        self.identity_spatial, self.identity_spectral = conv(dim, dim, bias=bias), conv(dim, dim, bias=bias)
        self.compress = conv(2 * dim, dim, bias=bias)

    def forward(self, enc: Tensor, dec: Tensor) -> Tensor:
        s = self.spatial_dwconv(self.spatial_act(self.spatial_conv1(enc))) + self.identity_spatial(enc)
        f = spectral_map(enc, self.spectral_conv1, self.spectral_conv2) + self.identity_spectral(enc)
        return self.compress(torch.cat([self.akc(self.fusion_conv(s + f)), dec], dim=1))


class Spectroformer(nn.Module):
    def __init__(
        self,
        dim: int = 16,
        num_blocks: Sequence[int] = (2, 3, 3, 4),
        num_refinement_blocks: int = 4,
        num_heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        snap: bool = True,
    ) -> None:
        super().__init__()
        d, n, h, r = dim, num_blocks, num_heads, ffn_expansion_factor

        def level(width: int, i: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(MQCT(width, h[i], r, bias) for _ in range(blocks)))

        self.patch_embed = conv(3, d, 3, bias=bias)
        self.encoder_level1, self.down1_2 = level(d, 0, n[0]), DownSample(d, 2 * d, bias)
        self.encoder_level2, self.down2_3 = level(2 * d, 1, n[1]), DownSample(2 * d, 4 * d, bias)
        self.encoder_level3, self.down3_4 = level(4 * d, 2, n[2]), DownSample(4 * d, 8 * d, bias)
        self.bottleneck = level(8 * d, 3, n[3])
        self.up4_3, self.ssfb3 = HFSUB(8 * d, 4 * d, bias, snap), SSFB(4 * d, bias)
        self.decoder_level3 = level(4 * d, 2, n[2])
        self.up3_2, self.ssfb2 = HFSUB(4 * d, 2 * d, bias, snap), SSFB(2 * d, bias)
        self.decoder_level2 = level(2 * d, 1, n[1])
        self.up2_1, self.ssfb1 = HFSUB(2 * d, d, bias, snap), SSFB(d, bias)
        self.decoder_level1 = level(d, 0, n[0])
        self.refinement = level(d, 0, num_refinement_blocks)
        self.output = conv(d, 3, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.encoder_level1(self.patch_embed(x))
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        d = self.bottleneck(self.down3_4(e3))
        d = self.decoder_level3(self.ssfb3(e3, self.up4_3(d)))
        d = self.decoder_level2(self.ssfb2(e2, self.up3_2(d)))
        d = self.decoder_level1(self.ssfb1(e1, self.up2_1(d)))
        return self.output(self.refinement(d)) + x


# ------------------------------------------------------------------------------------- the AGSSF family, Phaseformer
class Gate(nn.Module):
    """AGSSF / ECA: x * sigmoid(conv1d(mean(phase_only(x))))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        k = kernel_size(dim, 1)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(phase_only(x).mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(y)[:, :, None, None]


class FeedForward(nn.Module):
    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        e = int(dim * ratio)
        self.project_in = conv(dim, 2 * e)
        self.conv = conv(2 * e, 2 * e, 3, groups=2 * e)
        self.project_out = conv(e, dim)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class PhaseMDTA(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.qkv = conv(dim, 3 * dim)
        self.qkv_conv = conv(3 * dim, 3 * dim, 3, groups=3 * dim)
        self.project_out = conv(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_conv(self.qkv(x)).chunk(3, dim=1)
        q, k, v = (heads_of(t, self.heads) for t in (phase_only(q), phase_only(k), v))
        return self.project_out((attention_map(q, k, self.temperature) @ v).reshape(x.shape))


class FrequencyMDTA(PhaseMDTA):
    """`query` says whether the frequency query takes part (model.py) or is computed for nothing (the other variants)."""

    def __init__(self, dim: int, heads: int, query: bool) -> None:
        super().__init__(dim, heads)
        self.query = query
        self.kv = conv(dim, 2 * dim)
        self.q1X1_1, self.q1X1_2 = conv(dim, dim), conv(dim, dim)
        self.kv_conv = conv(2 * dim, 2 * dim, 3, groups=2 * dim)
        self.project_outf = conv(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads_of(t, self.heads) for t in self.qkv_conv(self.qkv(x)).chunk(3, dim=1))
        attention = attention_map(q, k, self.temperature)
        o = self.project_out((attention @ v).reshape(x.shape))
        q_f = torch.fft.ifft2(self.q1X1_2(F.gelu(self.q1X1_1(torch.fft.fft2(x).real)))).real
        k_f, v_f = (heads_of(t, self.heads) for t in self.kv_conv(self.kv(o)).chunk(2, dim=1))
        second = attention_map(heads_of(q_f, self.heads), k if self.query else k_f, self.temperature)
        return self.project_outf(((second if self.query else attention) @ v_f).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, dim: int, ratio: float, attn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.ffn = Norm(dim), attn, Norm(dim), FeedForward(dim, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class SFCA(nn.Module):
    def __init__(self, dim: int, official: bool) -> None:
        super().__init__()
        f = dim if official else 2 * dim
        self.official = official
        self.identity1, self.identity2 = conv(dim, dim, bias=True), conv(dim, dim, bias=True)
        self.conv_1, self.conv_2 = conv(dim, 2 * dim, bias=True), conv(2 * dim, dim, 3, groups=dim, bias=True)
        self.relu_1, self.relu_2 = (nn.PReLU() if official else nn.LeakyReLU(0.2) for _ in range(2))
        self.conv_f1, self.conv_f2 = conv(dim, f, bias=True), conv(f, dim, bias=True)
        self.con2X1 = conv(2 * dim, dim, bias=True)
        self.agssf = Gate(dim)

    def forward(self, x: Tensor) -> Tensor:
        s = self.relu_2(self.conv_2(self.relu_1(self.conv_1(x))))
        f = torch.fft.ifft2(self.conv_f2(F.gelu(self.conv_f1(torch.fft.fft2(x).real)))).real
        if self.official:
            s, f = self.agssf(s), self.agssf(f)
        y = self.con2X1(torch.cat([s + self.identity1(x), f + self.identity2(x)], dim=1))
        return y if self.official else self.agssf(y)


class FourierUp(nn.Module):
    def __init__(self, dim: int, reduce: bool = True, snap: bool = True) -> None:
        super().__init__()
        self.snap = snap
        self.amp_fuse, self.pha_fuse = (
            nn.Sequential(conv(dim, dim, bias=True), nn.LeakyReLU(0.1), conv(dim, dim, bias=True)) for _ in range(2)
        )
        self.post = conv(dim, dim // 2 if reduce else dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return fourier_upsample(x, self.amp_fuse, self.pha_fuse, self.post, self.snap)


class PixelUp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(dim, 2 * dim, 3), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class PixelDown(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(dim, dim // 2, 3), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class UpS(nn.Module):
    def __init__(self, dim: int, snap: bool = True) -> None:
        super().__init__()
        self.Fups, self.Sups, self.reduce = FourierUp(dim, snap=snap), PixelUp(dim), conv(dim, dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(torch.cat([self.Fups(x), self.Sups(x)], dim=1))


class Phaseformer(nn.Module):
    def __init__(
        self,
        num_blocks: Sequence[int] = (2, 3, 3, 4),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        channels: Sequence[int] = (16, 32, 64, 128),
        num_refinement: int = 4,
        expansion_factor: float = 2.66,
    ) -> None:
        super().__init__()
        c, n, h, r = channels, num_blocks, num_heads, expansion_factor

        def level(width: int, heads: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, r, PhaseMDTA(width, heads)) for _ in range(blocks)))

        self.attention = nn.ModuleList(Gate(w) for w in (c[0], c[0], c[1], c[2]))
        self.embed_conv_rgb = conv(3, c[0], 3)
        self.encoders = nn.ModuleList(level(c[i], h[i], n[i]) for i in range(4))
        self.downs = nn.ModuleList(PixelDown(w) for w in c[:3])
        self.ups = nn.ModuleList(PixelUp(w) for w in reversed(c[1:]))
        self.reduces = nn.ModuleList([conv(c[3], c[2]), conv(c[2], c[1])])
        self.decoders = nn.ModuleList([level(c[2], h[2], n[2]), level(c[1], h[1], n[1]), level(c[1], h[0], n[0])])
        self.refinement = level(c[1], h[0], num_refinement)
        self.output, self.output1, self.outputl = conv(8, 3, 3), conv(c[0], 8, 3), conv(c[1], 8, 3)
        self.ups1, self.ups2 = PixelUp(c[1]), PixelUp(c[0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        e1 = self.encoders[0](self.embed_conv_rgb(x))
        e2 = self.encoders[1](self.downs[0](e1))
        e3 = self.encoders[2](self.downs[1](e2))
        e4 = self.encoders[3](self.downs[2](e3))
        d = self.decoders[0](self.reduces[0](torch.cat([self.ups[0](e4), self.attention[0](e3)], dim=1)))
        d = self.decoders[1](self.reduces[1](torch.cat([self.ups[1](d), self.attention[1](e2)], dim=1)))
        d = self.decoders[2](torch.cat([self.ups[2](d), self.attention[2](e1)], dim=1))
        r = self.refinement(d)
        return self.output(self.outputl(r)), self.output(self.output1(self.ups1(r)))


class AGSSF(nn.Module):
    def __init__(
        self,
        num_blocks: Sequence[int] = (2, 3, 3, 4),
        num_heads: Sequence[int] = (1, 2, 4, 8),
        channels: Sequence[int] = (16, 32, 64, 128),
        num_refinement: int = 4,
        expansion_factor: float = 2.66,
        variant: str = "agssf1",
        snap: bool = True,
    ) -> None:
        super().__init__()
        c, n, h, r = channels, num_blocks, num_heads, expansion_factor
        query = variant == "model"

        def level(width: int, heads: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, r, FrequencyMDTA(width, heads, query)) for _ in range(blocks)))

        self.skips = variant in ("agssf1", "official")
        if variant != "without_ca":
            self.attention = nn.ModuleList(SFCA(w, variant == "official") for w in (64, 32, 16, 64))
        self.embed_conv_rgb = conv(3, c[0], 3)
        self.encoders = nn.ModuleList(level(c[i], h[i], n[i]) for i in range(4))
        self.down1, self.down2, self.down3 = (PixelDown(w) for w in c[:3])
        self.ups_1, self.ups_2, self.ups_3, self.ups_4 = (UpS(w, snap) for w in (128, 64, 32, 3))
        self.reduces1, self.reduces2 = conv(c[3], c[2]), conv(c[2], c[1])
        self.decoders = nn.ModuleList([level(c[2], h[2], n[2]), level(c[1], h[1], n[1]), level(c[1], h[0], n[0])])
        self.refinement = level(c[1], h[0], num_refinement)
        self.output, self.output1, self.outputl = conv(8, 3, 3), conv(c[0], 8, 3), conv(c[1], 8, 3)
        self.ups1, self.ups2 = PixelUp(c[1]), PixelUp(c[0])

    def skip(self, i: int, x: Tensor) -> Tensor:
        return self.attention[i](x) if self.skips else x

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.encoders[0](self.embed_conv_rgb(x))
        e2 = self.encoders[1](self.down1(e1))
        e3 = self.encoders[2](self.down2(e2))
        e4 = self.encoders[3](self.down3(e3))
        d = self.decoders[0](self.reduces1(torch.cat([self.ups_1(e4), self.skip(0, e3)], dim=1)))
        d = self.decoders[1](self.reduces2(torch.cat([self.ups_2(d), self.skip(1, e2)], dim=1)))
        d = self.decoders[2](torch.cat([self.ups_3(d), self.skip(2, e1)], dim=1))
        r = self.refinement(d)
        self.ups1(r)  # computed at twice the size and dropped, as published
        return self.output(self.outputl(r))
