"""How differently two images order the neighbours of every pixel: the soft census distance, in memory of a few maps.

Written as maps of all neighbours it needs several maps per neighbour, of which there are 49. Here neighbours are visited one
after another, and each pair of pixels once, since it counts the same for both; the backward pass visits them again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from .dispatch import float32_obstacle, use_kernel
from .self_test import case

SOFT_SIGN = 0.81
"""Constant of differences in [0, 1] images: s(d) = d / sqrt(0.81 + d^2)."""
SOFT_COUNT = 0.1
"""Constant of differences u of these: u^2 / (0.1 + u^2)."""


def census_distance(pred: Tensor, target: Tensor, patch_size: int = 7) -> Tensor:
    """Mean over neighbours n of each pixel p of ``u^2 / (0.1 + u^2)``, ``u = s(pred_n - pred_p) - s(target_n - target_p)``.

    s(d) = d / sqrt(0.81 + d^2) is a soft sign. Neighbours are the pixels of the patch around p, p among them; beyond the border
    images are 0. On a GPU one Triton kernel does it, and one its gradient (`core.ops.census_triton`), equal to float32's
    rounding. Differentiable once, in `pred`.

    Args:
        pred: gray images, (B, H, W), float32 or float64.
        target: gray images to compare with, as `pred`; they get no gradient.
        patch_size: side of the neighbourhood, odd.

    Returns:
        (B, H, W).

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    if pred.dim() != 3 or pred.shape != target.shape or patch_size < 1 or not patch_size % 2:
        raise UserError(
            f"census_distance: pred and target must be (B, H, W) of one shape and patch_size odd; "
            f"they are {tuple(pred.shape)}, {tuple(target.shape)} and {patch_size}"
        )
    if use_kernel("census", functools.partial(_obstacle, pred, target), pred):
        from .census_triton import fused

        result: Tensor = fused(pred, target.detach(), patch_size, SOFT_SIGN, SOFT_COUNT)
        return result
    plain: Tensor = _Census.apply(pred, target, patch_size)
    return plain


@case("census", (1, 6, 7), (1, 6, 7), sized=lambda side, width: ((1, side**2, width),) * 2)
def _case(pred: Tensor, target: Tensor) -> Tensor:
    return census_distance(pred, target.detach(), 3)


def _obstacle(pred: Tensor, target: Tensor) -> str | None:
    """Why the fused kernel cannot run, or None."""
    return float32_obstacle("census", pred=pred, target=target)


class _Census(Function):
    """Keeps both images."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, patch_size: int) -> Tensor:
        ctx.save_for_backward(pred, target)
        ctx.patch_size = patch_size
        radius = patch_size // 2
        p, t = padded(pred, radius), padded(target, radius)
        total = torch.zeros_like(p)
        for here, there in pairs(p, radius):
            u = soft_sign(p[there] - p[here])[0].sub_(soft_sign(t[there] - t[here])[0]).square_()
            counted = u.div_(u + SOFT_COUNT)
            total[here] += counted
            total[there] += counted
        return cropped(total, radius) / patch_size**2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        pred, target = ctx.saved_tensors
        radius = ctx.patch_size // 2
        p, t, g = (padded(x, radius) for x in (pred, target, grad))
        total = torch.zeros_like(p)
        for here, there in pairs(p, radius):
            sign, slope = soft_sign(p[there] - p[here])
            u = sign - soft_sign(t[there] - t[here])[0]
            # d/du of u^2 / (c + u^2) is 2 c u / (c + u^2)^2; both ends of a pair count it.
            pull = (g[here] + g[there]) * slope * u / (u.square() + SOFT_COUNT).square()
            total[there] += pull
            total[here] -= pull
        return cropped(total, radius) * (2 * SOFT_COUNT / ctx.patch_size**2), None, None


def soft_sign(d: Tensor) -> tuple[Tensor, Tensor]:
    """s(d) and its derivative, 0.81 / (0.81 + d^2)^(3/2), both of the shape of `d`."""
    r = torch.rsqrt(d.square() + SOFT_SIGN)
    return d * r, SOFT_SIGN * r**3


def padded(x: Tensor, radius: int) -> Tensor:
    """(B, H, W) with `radius` zeros on every side."""
    return F.pad(x, (radius,) * 4)


def cropped(x: Tensor, radius: int) -> Tensor:
    """The inverse of `padded`: (B, H + 2 r, W + 2 r) -> (B, H, W)."""
    return x[:, radius : x.shape[1] - radius, radius : x.shape[2] - radius]


def pairs(x: Tensor, radius: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For half of the neighbours, where pixels are in (B, H, W) and where those neighbours of theirs are."""
    height, width = x.shape[1:]
    for down in range(radius + 1):
        for right in range(-radius if down else 1, radius + 1):
            left = max(-right, 0)
            here = (slice(None), slice(0, height - down), slice(left, width - max(right, 0)))
            there = (slice(None), slice(down, height), slice(max(right, 0), width - left))
            yield here, there
