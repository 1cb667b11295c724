"""DiffIR and Restormer written down formula by formula: no fused kernel, no layout tricks, nothing shared with `relume`.

What the tests compare the package's networks with, and what ``make bench`` times them against. Parameter names are those of the
published checkpoints, so one state dict loads into both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(c_in: int, c_out: int, kernel: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=bias)


class Affine(nn.Module):
    """Holds the gain and offset of a layer norm, under the original's names."""

    def __init__(self, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        if bias:
            self.bias = nn.Parameter(torch.zeros(dim))


class LayerNorm(nn.Module):
    """Over channels, on the pixels as rows: (x - mean) / sqrt(var + eps) * w + b, or x / sqrt(var + eps) * w."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.with_bias = kind != "BiasFree"
        self.body = Affine(dim, self.with_bias)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        rows = x.flatten(2).transpose(1, 2)
        variance = rows.var(-1, keepdim=True, unbiased=False)
        if self.with_bias:
            rows = (rows - rows.mean(-1, keepdim=True)) / torch.sqrt(
                variance + 1e-5
            ) * self.body.weight + self.body.bias
        else:
            rows = rows / torch.sqrt(variance + 1e-5) * self.body.weight
        return rows.transpose(1, 2).unflatten(2, (h, w))


class Modulated(nn.Module):
    """x * s + b with (s, b) = W z; the identity without a prior."""

    def modulation(self, dim: int, prior: int) -> None:
        if prior:
            self.kernel = nn.Sequential(nn.Linear(prior, 2 * dim, bias=False))

    def modulate(self, x: Tensor, z: Tensor | None) -> Tensor:
        if z is None:
            return x
        s, b = self.kernel(z).view(-1, 2 * x.shape[1], 1, 1).chunk(2, dim=1)
        return x * s + b


class Attention(Modulated):
    """Transposed attention: softmax(temperature * normalised(q) normalised(k)^T) v."""

    def __init__(self, dim: int, heads: int, bias: bool, prior: int = 0) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.modulation(dim, prior)
        self.qkv = conv(dim, 3 * dim, bias=bias)
        self.qkv_dwconv = conv(3 * dim, 3 * dim, 3, groups=3 * dim, bias=bias)
        self.project_out = conv(dim, dim, bias=bias)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        b, c, h, w = x.shape
        heads = len(self.temperature)
        q, k, v = self.qkv_dwconv(self.qkv(self.modulate(x, z))).chunk(3, dim=1)
        q, k, v = (t.reshape(b, heads, c // heads, h * w) for t in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ v).reshape(b, c, h, w))


class FeedForward(Modulated):
    """project_out(gelu(a) * b), (a, b) the halves of dwconv(project_in(x))."""

    def __init__(self, dim: int, expansion: float, bias: bool, prior: int = 0) -> None:
        super().__init__()
        inner = int(dim * expansion)
        self.project_in = conv(dim, 2 * inner, bias=bias)
        self.dwconv = conv(2 * inner, 2 * inner, 3, groups=2 * inner, bias=bias)
        self.project_out = conv(inner, dim, bias=bias)
        self.modulation(dim, prior)

    def forward(self, x: Tensor, z: Tensor | None) -> Tensor:
        a, b = self.dwconv(self.project_in(self.modulate(x, z))).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, norm: str, prior: int = 0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, norm)
        self.attn = Attention(dim, heads, bias, prior)
        self.norm2 = LayerNorm(dim, norm)
        self.ffn = FeedForward(dim, expansion, bias, prior)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), z)
        return x + self.ffn(self.norm2(x), z)


class Resize(nn.Module):
    """A convolution and a pixel (un)shuffle."""

    def __init__(self, dim: int, up: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(dim, 2 * dim if up else dim // 2, 3), nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Patch(nn.Module):
    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = conv(channels, dim, 3)


class Restormer(nn.Module):
    """The U-shaped body; `prior` is the length of the modulating vector, 0 for the plain network."""

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
        LayerNorm_type: str = "WithBias",
        dual_pixel_task: bool = False,
        prior: int = 0,
        scale: int = 1,
    ) -> None:
        super().__init__()

        def stage(width: int, level: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(
                Block(width, heads[level], ffn_expansion_factor, bias, LayerNorm_type, prior) for _ in range(count)
            )

        n = num_blocks
        self.patch_embed = Patch(inp_channels, dim)
        self.encoder_level1 = stage(dim, 0, n[0])
        self.down1_2 = Resize(dim, up=False)
        self.encoder_level2 = stage(2 * dim, 1, n[1])
        self.down2_3 = Resize(2 * dim, up=False)
        self.encoder_level3 = stage(4 * dim, 2, n[2])
        self.down3_4 = Resize(4 * dim, up=False)
        self.latent = stage(8 * dim, 3, n[3])
        self.up4_3 = Resize(8 * dim, up=True)
        self.reduce_chan_level3 = conv(8 * dim, 4 * dim, bias=bias)
        self.decoder_level3 = stage(4 * dim, 2, n[2])
        self.up3_2 = Resize(4 * dim, up=True)
        self.reduce_chan_level2 = conv(4 * dim, 2 * dim, bias=bias)
        self.decoder_level2 = stage(2 * dim, 1, n[1])
        self.up2_1 = Resize(2 * dim, up=True)
        self.decoder_level1 = stage(2 * dim, 0, n[0])
        self.refinement = stage(2 * dim, 0, num_refinement_blocks)
        if dual_pixel_task:
            self.skip_conv = conv(dim, 2 * dim, bias=bias)
        self.dual_pixel_task = dual_pixel_task
        self.scale = scale
        if scale > 1:
            wide = 2 * dim
            steps = [3] if scale == 3 else [2] * int(math.log2(scale))
            head = [m for k in steps for m in (conv(wide, k * k * wide, 3, bias=True), nn.PixelShuffle(k))]
            self.tail = nn.Sequential(nn.Sequential(*head), conv(wide, out_channels, 3, bias=True))
        else:
            self.output = conv(2 * dim, out_channels, 3, bias=bias)

    def forward(self, image: Tensor, z: Tensor | None = None) -> Tensor:
        def through(stage: nn.ModuleList, x: Tensor) -> Tensor:
            for block in stage:
                x = block(x, z)
            return x

        shallow = self.patch_embed.proj(image)
        level1 = through(self.encoder_level1, shallow)
        level2 = through(self.encoder_level2, self.down1_2(level1))
        level3 = through(self.encoder_level3, self.down2_3(level2))
        x = through(self.latent, self.down3_4(level3))
        x = through(self.decoder_level3, self.reduce_chan_level3(torch.cat([self.up4_3(x), level3], 1)))
        x = through(self.decoder_level2, self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], 1)))
        x = through(self.refinement, through(self.decoder_level1, torch.cat([self.up2_1(x), level1], 1)))
        if self.dual_pixel_task:
            return self.output(x + self.skip_conv(shallow))
        if self.scale > 1:
            rows = torch.arange(self.scale * image.shape[2]) // self.scale
            columns = torch.arange(self.scale * image.shape[3]) // self.scale
            return self.tail(x) + image[:, :, rows][:, :, :, columns]
        return self.output(x) + image


class ResBlock(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(n, n, 3, bias=True), nn.LeakyReLU(0.1), conv(n, n, 3, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """Prior extraction: pixel-unshuffled images -> vector of 4 n numbers."""

    def __init__(self, channels: int, n: int, res_blocks: int, folds: tuple[int, ...] = (4, 4)) -> None:
        super().__init__()
        self.folds = folds
        self.E = nn.Sequential(
            conv(channels, n, 3, bias=True),
            nn.LeakyReLU(0.1),
            *[ResBlock(n) for _ in range(res_blocks)],
            conv(n, 2 * n, 3, bias=True),
            nn.LeakyReLU(0.1),
            conv(2 * n, 2 * n, 3, bias=True),
            nn.LeakyReLU(0.1),
            conv(2 * n, 4 * n, 3, bias=True),
            nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool2d(1),
        )
        self.mlp = nn.Sequential(nn.Linear(4 * n, 4 * n), nn.LeakyReLU(0.1), nn.Linear(4 * n, 4 * n), nn.LeakyReLU(0.1))

    def forward(self, *images: Tensor) -> Tensor:
        return self.mlp(
            self.E(torch.cat([F.pixel_unshuffle(x, k) for x, k in zip(images, self.folds, strict=False)], 1)).flatten(1)
        )


class DiffIRS1(nn.Module):
    """Stage 1: the prior comes from the input and the ground truth."""

    def __init__(self, n_encoder_res: int = 6, scale: int = 1, **body: object) -> None:
        super().__init__()
        self.G = Restormer(prior=256, scale=scale, **body)
        self.E = (
            Encoder(3 + 3 * scale**2, 64, n_encoder_res, (1, scale)) if scale > 1 else Encoder(96, 64, n_encoder_res)
        )

    def forward(self, lq: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        z = self.E(lq, gt)
        return self.G(lq, z), z


class Layer(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.resmlp = nn.Sequential(nn.Linear(n, n), nn.LeakyReLU(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.resmlp(x)


class Denoiser(nn.Module):
    def __init__(self, n: int, layers: int, timesteps: int) -> None:
        super().__init__()
        self.period = 10 * timesteps
        self.resmlp = nn.Sequential(nn.Linear(2 * n + 1, n), nn.LeakyReLU(0.1), *[Layer(n) for _ in range(layers)])

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return self.resmlp(torch.cat([c, t.float()[:, None] / self.period, x], 1))


class DiffIRS2(nn.Module):
    """Stage 2: the prior is denoised from noise; `forward` takes that noise instead of drawing it."""

    def __init__(
        self,
        n_encoder_res: int = 6,
        n_denoise_res: int = 1,
        linear_start: float = 0.1,
        linear_end: float = 0.99,
        timesteps: int = 4,
        scale: int = 1,
        **body: object,
    ) -> None:
        super().__init__()
        self.G = Restormer(prior=256, scale=scale, **body)
        self.condition = Encoder(3, 64, n_encoder_res, (1,)) if scale > 1 else Encoder(48, 64, n_encoder_res)
        self.denoise = Denoiser(256, n_denoise_res, timesteps)
        lo, hi = math.sqrt(linear_start), math.sqrt(linear_end)
        self.betas = [(lo + (hi - lo) * i / max(timesteps - 1, 1)) ** 2 for i in range(timesteps)]

    def forward(self, lq: Tensor, noise: Tensor, z: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        alpha_bar = [math.prod(1 - b for b in self.betas[: i + 1]) for i in range(len(self.betas))]
        x = noise if z is None else math.sqrt(alpha_bar[-1]) * z + math.sqrt(1 - alpha_bar[-1]) * noise
        c = self.condition(lq)
        iterates = []
        for i in reversed(range(len(self.betas))):
            before = alpha_bar[i - 1] if i else 1.0
            x0 = self.denoise(x, torch.full((len(x),), i), c)
            x = (
                self.betas[i] * math.sqrt(before) / (1 - alpha_bar[i]) * x0
                + (1 - before) * math.sqrt(1 - self.betas[i]) / (1 - alpha_bar[i]) * x
            )
            iterates.append(x)
        return self.G(lq, x), iterates
