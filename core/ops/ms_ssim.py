"""Structural similarity at several scales, multiplied: MS-SSIM of Wang, Simoncelli and Bovik (Asilomar 2003)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .dispatch import use_kernel
from .self_test import case
from .ssim import gaussian, obstacle, plain_similarity


def fuses(x: Tensor, y: Tensor, window: Tensor) -> bool:
    """Whether `multiscale_similarity` would run its kernels on two images (B, C, H, W) and a window (k,)."""
    return use_kernel("ms_ssim", functools.partial(_obstacle, x, y, window), x)


def multiscale_similarity(x: Tensor, y: Tensor, window: Tensor, exponents: Tensor, data_range: float) -> Tensor:
    """Contrast at every scale and SSIM at the coarsest, to their powers, multiplied, and averaged over channels: (B,).

    A scale has half the sides of the one before, by 2 x 2 averages in which a missing pixel of an odd side is zero. Negative
    factors count as zero.

    Args:
        x, y: images (B, C, H, W).
        window: weights of rows and of columns, (k,), with a sum of 1.
        exponents: exponents of the scales, (S,), finest first.
        data_range: largest minus smallest possible pixel value.

    Raises:
        UserError: shapes do not go together, the window does not fit into the coarsest scale, or kernels are forced on and
            cannot run.
    """
    coarsest = min(x.shape[-2:])
    for _ in range(len(exponents) - 1):
        coarsest = (coarsest + 1) // 2
    if x.dim() != 4 or x.shape != y.shape or window.dim() != 1 or coarsest < len(window):
        raise UserError(
            f"multiscale_similarity: x and y must be (B, C, H, W) of one shape, and window (k,) fit into the last of "
            f"{len(exponents)} scales; they are {tuple(x.shape)}, {tuple(y.shape)} and {tuple(window.shape)}"
        )
    if fuses(x, y, window):
        from .ms_ssim_triton import fused

        sloped = torch.is_grad_enabled() and x.requires_grad
        value: Tensor = fused(x, y, window, exponents, data_range, sloped)[0]
        return value
    factors: list[Tensor] = []
    for scale in range(len(exponents)):
        if scale:
            padding = [side % 2 for side in x.shape[-2:]]
            x, y = (F.avg_pool2d(t, 2, padding=padding) for t in (x, y))
        value, contrast = plain_similarity(x, y, window, data_range)
        factors.append(contrast)
    factors[-1] = value
    powers = torch.relu(torch.stack(factors)) ** exponents.to(x.dtype).view(-1, 1, 1)
    return powers.prod(dim=0).mean(dim=1)


@case(
    "ms_ssim", (1, 2, 9, 10), (1, 2, 9, 10), sized=lambda side, width: ((1, 1, max(side**2 // 64, 22), 64 * width),) * 2
)
def _case(x: Tensor, y: Tensor) -> Tensor:
    window = gaussian(3 if x.shape[2] < 22 else 11, 1.5).to(x)
    near = x + 0.2 * (y - x).detach()  # so that no factor is negative
    return multiscale_similarity(near + 0.0 * y.sum(), x.detach(), window, window.new_tensor([0.4, 0.6]), 1.0)


def _obstacle(x: Tensor, y: Tensor, window: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    if y.requires_grad and torch.is_grad_enabled():
        return "it has no gradient for y"
    return obstacle("ms_ssim", x, y, window)
