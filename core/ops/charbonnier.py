"""Charbonnier's smooth absolute difference of two images, summed."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import UserError
from .dispatch import float32_obstacle, use_kernel
from .self_test import case


def charbonnier_sums(x: Tensor, y: Tensor, offset: float) -> Tensor:
    """``sqrt((x - y)^2 + offset)`` (Charbonnier et al., ICIP 1994), summed over each image.

    Args:
        x, y: (B, ...) of one shape.
        offset: > 0.

    Returns:
        (B).

    Raises:
        UserError: shapes differ, or kernels are forced on and cannot run.
    """
    if x.shape != y.shape or x.dim() < 1:
        raise UserError(
            f"charbonnier_sums: x and y must be of one shape; they are {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if fuses(x, y):
        from .charbonnier_triton import fused

        sums: Tensor = fused(x, y, offset)
        return sums
    return torch.sqrt((x - y).square() + offset).flatten(1).sum(1)


def fuses(x: Tensor, y: Tensor) -> bool:
    """Whether `charbonnier_sums` would run its kernels on these two images (B, C, H, W)."""
    return use_kernel("charbonnier", functools.partial(_obstacle, x, y), x)


@case("charbonnier", (2, 3, 5, 7), (2, 3, 5, 7), sized=lambda side, width: ((1, side, side, width),) * 2)
def _case(x: Tensor, y: Tensor) -> Tensor:
    return charbonnier_sums(x, y.flip(2), 1e-6)


def _obstacle(x: Tensor, y: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    return float32_obstacle("charbonnier", x=x, y=y)
