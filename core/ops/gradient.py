"""Derivatives of images by small stencils, and the sums of their sizes."""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .constants import constant
from .dispatch import float32_obstacle, use_kernel
from .self_test import case

Derivative = Literal["laplacian", "sobel", "neighbours"]
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
SOBEL_X = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
SOBEL_Y = ((-1.0, -2.0, -1.0), (0.0, 0.0, 0.0), (1.0, 2.0, 1.0))
DOWN = ((0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 1.0, 0.0))
RIGHT = ((0.0, 0.0, 0.0), (0.0, -1.0, 1.0), (0.0, 0.0, 0.0))
STENCILS = {"laplacian": (LAPLACIAN,), "sobel": (SOBEL_X, SOBEL_Y), "neighbours": (DOWN, RIGHT)}


def derivatives(x: Tensor, operator: Derivative) -> list[Tensor]:
    """Maps of derivatives of (B, C, H, W), each channel by itself.

    Args:
        x: images.
        operator: ``laplacian``, the five-point Laplacian where it fits, (B, C, H - 2, W - 2); ``sobel``, horizontal and
            vertical Sobel derivatives with zeros around the image; ``neighbours``, what the pixel below and the pixel to the
            right are more, (B, C, H - 1, W) and (B, C, H, W - 1).
    """
    if operator == "neighbours":
        return [x.diff(dim=2), x.diff(dim=3)]
    padding, channels = int(operator == "sobel"), x.shape[1]
    stencils = constant(STENCILS[operator], x)[:, None, None].expand(-1, channels, 1, 3, 3)
    with torch.autocast(x.device.type, enabled=False):
        return [F.conv2d(x, stencil, padding=padding, groups=channels) for stencil in stencils]


def derivative_sums(x: Tensor, operator: Derivative) -> Tensor:
    """The absolute values of `derivatives`, summed over each image: (B, maps).

    Raises:
        UserError: it is no image, or smaller than the stencil; kernels are forced on and cannot run.
    """
    least = {"laplacian": 3, "sobel": 1, "neighbours": 2}[operator]
    if x.dim() != 4 or min(x.shape[2:]) < least:
        raise UserError(
            f"derivative_sums: for {operator} x must be (B, C, H, W) with sides of at least {least}; it is {tuple(x.shape)}"
        )
    if fuses(x):
        from .gradient_triton import fused

        stencils = STENCILS[operator]
        both = constant((stencils[0], stencils[1] if len(stencils) > 1 else ((0.0,) * 3,) * 3), x)
        sums: Tensor = fused(x, both, int(operator == "laplacian"), int(operator == "neighbours"))[0]
        return sums[:, : len(stencils)]
    return torch.stack([d.abs().flatten(1).sum(1) for d in derivatives(x, operator)], 1)


def fuses(x: Tensor) -> bool:
    """Whether `derivative_sums` would run its kernels on this image (B, C, H, W)."""
    return use_kernel("gradient", functools.partial(_obstacle, x), x)


@case("gradient", (2, 2, 5, 7), sized=lambda side, width: ((1, 1, max(side**2 // 64, 3), 64 * width),))
def _case(x: Tensor) -> Tensor:
    d = x - x.detach().flip(2, 3).roll(1, 3)  # as of a prediction and a target
    return derivative_sums(d, "sobel") + derivative_sums(d, "neighbours") + derivative_sums(d, "laplacian")


def _obstacle(x: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    return float32_obstacle("gradient", x=x)
