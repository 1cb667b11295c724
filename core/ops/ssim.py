"""Structural similarity of two images at one scale, and its contrast-structure factor."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .dispatch import float32_obstacle, use_kernel
from .self_test import case

WIDEST = 33
"""Longest window that the fused kernels take."""


def gaussian(size: int, sigma: float) -> Tensor:
    """A normalised Gaussian of odd length, of shape (size,)."""
    x = torch.arange(size, dtype=torch.float32) - size // 2
    g = torch.exp(-x.square() / (2 * sigma**2))
    return g / g.sum()


def blurred(x: Tensor, window: Tensor) -> Tensor:
    """`x` (B, C, H, W) filtered by the separable `window` (k,), where it fits whole: H - k + 1 by W - k + 1."""
    channels = x.shape[1]
    column = window.to(x.dtype).view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    x = F.conv2d(x, column, groups=channels)
    return F.conv2d(x, column.transpose(2, 3), groups=channels)


def fuses(x: Tensor, y: Tensor, window: Tensor) -> bool:
    """Whether `similarity` would run its kernels on two images (B, C, H, W) and a window (k,)."""
    return use_kernel("ssim", functools.partial(obstacle, "ssim", x, y, window), x)


def similarity(x: Tensor, y: Tensor, window: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM (Wang et al., IEEE TIP 2004) and its contrast-structure factor, averaged over pixels: two tensors (B, C).

    Args:
        x, y: images (B, C, H, W), at least as large as the window.
        window: weights of rows and of columns, (k,), with a sum of 1.
        data_range: largest minus smallest possible pixel value.

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    if x.dim() != 4 or x.shape != y.shape or window.dim() != 1 or min(x.shape[-2:]) < len(window):
        raise UserError(
            f"similarity: x and y must be (B, C, H, W) of one shape, and no smaller than window (k,); they are "
            f"{tuple(x.shape)}, {tuple(y.shape)} and {tuple(window.shape)}"
        )
    if fuses(x, y, window):
        from .ssim_triton import fused

        both: tuple[Tensor, Tensor] = fused(x, y, window, data_range)
        return both
    return plain_similarity(x, y, window, data_range)


def plain_similarity(x: Tensor, y: Tensor, window: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """`similarity`, shapes included, by plain PyTorch, whatever kernels there are, in float64 too."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    with torch.autocast(x.device.type, enabled=False):
        mx, my, xx, yy, xy = blurred(torch.cat([x, y, x * x, y * y, x * y]), window).chunk(5)
    contrast = (2 * (xy - mx * my) + c2) / ((xx - mx * mx) + (yy - my * my) + c2)
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return (luminance * contrast).mean(dim=(2, 3)), contrast.mean(dim=(2, 3))


@case("ssim", (1, 2, 6, 7), (1, 2, 6, 7), sized=lambda side, width: ((1, 1, max(side**2 // 64, 11), 64 * width),) * 2)
def _case(x: Tensor, y: Tensor) -> Tensor:
    window = gaussian(min(x.shape[2], 11) // 2 * 2 - 1, 1.5).to(x)
    value, contrast = similarity(x, y.flip(2), window, 1.0)
    return torch.stack([value, contrast])


def obstacle(op: str, x: Tensor, y: Tensor, window: Tensor) -> str | None:
    """Why the fused kernels of an operator cannot run on two images (B, C, H, W) and a window (k,), or None if they can."""
    if len(window) > WIDEST:
        return f"it takes windows up to {WIDEST}, this one has {len(window)}"
    return float32_obstacle(op, x=x, y=y, window=window)
