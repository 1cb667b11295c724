"""Bands of Laplacian pyramids (Burt and Adelson, 1983), and the sizes of what is in them."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .banded import BINOMIAL, BURT_ADELSON
from .constants import constant
from .dispatch import float32_obstacle, use_kernel
from .self_test import case


def _filtered(x: Tensor, taps: tuple[float, ...], border: str, gain: float = 1.0) -> Tensor:
    """Every channel of (B, C, H, W) filtered by rows and by columns, at its size."""
    line = constant(taps, x) * gain**0.5
    x = F.pad(x, (2, 2, 2, 2), mode=border)
    channels = x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        x = F.conv2d(x, line.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
        return F.conv2d(x, line.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def enlarged(x: Tensor) -> Tensor:
    """(B, C, H, W) at twice the size: zeros between the pixels, then four times the binomial filter, mirrored at borders."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = x
    return _filtered(spread, BINOMIAL, "reflect", 4.0)


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Bands of (B, C, H, W) from fine to coarse, and what is left: `levels` + 1 maps; linear in x; sides of 3 at least."""
    pyramid = []
    for _ in range(levels):
        smaller = _filtered(x, BINOMIAL, "reflect")[..., ::2, ::2]
        back = enlarged(smaller)
        if back.shape != x.shape:  # of odd sizes
            back = F.interpolate(back, size=x.shape[-2:], mode="bilinear", align_corners=False)
        pyramid.append(x - back)
        x = smaller
    return [*pyramid, x]


def edge_band(x: Tensor) -> Tensor:
    """The finest band as MPRNet has it, of (B, C, H, W): Burt and Adelson's filter, borders replicated."""
    sparse = torch.zeros_like(x)
    sparse[:, :, ::2, ::2] = 4 * _filtered(x, BURT_ADELSON, "replicate")[:, :, ::2, ::2]
    return x - _filtered(sparse, BURT_ADELSON, "replicate")


def fuses(d: Tensor) -> bool:
    """Whether the functions here would run their kernels on this difference of images (B, C, H, W)."""
    return use_kernel("laplacian", functools.partial(_obstacle, d), d)


def pyramid_size(d: Tensor, levels: int, low_pass: bool) -> Tensor:
    """Sum over levels of the mean absolute values of the bands of `laplacian_pyramid`, of each image: (B,).

    Args:
        d: (B, C, H, W), sides of at least 2 ** levels + 1.
        levels: bands, 1 at least.
        low_pass: whether what is left counts as a band.

    Raises:
        UserError: too small, or kernels are forced on and cannot run.
    """
    if d.dim() != 4 or levels < 1 or min(d.shape[-2:]) <= 2**levels:
        raise UserError(
            f"pyramid_size: {levels} levels need (B, C, H, W) with sides of more than 2 ** levels; it is {tuple(d.shape)}"
        )
    if fuses(d):
        return _fused(d, levels, low_pass, False, 0.0)
    pyramid = laplacian_pyramid(d, levels)
    return torch.stack([band.abs().flatten(1).mean(1) for band in (pyramid if low_pass else pyramid[:-1])]).sum(0)


def edge_size(d: Tensor, eps: float) -> Tensor:
    """The mean of sqrt(e^2 + eps^2) over the `edge_band` e of each image (B, C, H, W): (B,).

    Raises:
        UserError: it is no such batch, or kernels are forced on and cannot run.
    """
    if d.dim() != 4:
        raise UserError(f"edge_size: d must be (B, C, H, W); it is {tuple(d.shape)}")
    if fuses(d):
        return _fused(d, 1, False, True, eps * eps)
    return torch.sqrt(edge_band(d).square() + eps * eps).flatten(1).mean(1)


def _fused(d: Tensor, levels: int, low_pass: bool, edge: bool, offset: float) -> Tensor:
    from .laplacian_triton import fused

    sizes: Tensor = fused(d, levels, low_pass, edge, offset)[0]
    return sizes


@case("laplacian", (2, 2, 9, 12), sized=lambda side, width: ((1, 1, max(side**2 // 64, 9), 64 * width),))
def _case(x: Tensor) -> Tensor:
    # Differences on both sides of zero, and not many of them close to it: there signs turn by rounding.
    d = x - x.detach().flip(2, 3).roll(1, 3)
    return pyramid_size(d, 2, True) + edge_size(d, 1e-3)


def _obstacle(d: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    return float32_obstacle("laplacian", d=d)
