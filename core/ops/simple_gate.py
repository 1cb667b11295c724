"""NAFNet's simple gate, the product of two halves of the channels, and its mean over the image, which its attention takes."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from .dispatch import compiler_obstacle, device_obstacle, use_kernel
from .projection import mean_pixel
from .self_test import case


def gate_halves(x: Tensor) -> Tensor:
    """Product of the two halves of the channels: pixel-major (B, H, W, 2 C) -> (B, H, W, C), in the dtype of `x`.

    Raises:
        UserError: `x` has no such shape, or kernels are forced on and cannot run.
    """
    if _fuses(x):
        from .simple_gate_triton import fused

        product: Tensor = fused(x, False)[0]
        return product
    return _plain(x)


def gate_halves_and_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """`gate_halves`, and its mean over the image, (B, C).

    Raises:
        UserError: as there.
    """
    if _fuses(x):
        from .simple_gate_triton import fused

        both: tuple[Tensor, Tensor] = fused(x, True)
        return both
    product = _plain(x)
    return product, mean_pixel(product)


@case("simple_gate", (2, 3, 5, 24), sized=lambda side, c: ((1, side, side, 2 * c),))
def _case(x: Tensor) -> Tensor:
    product, mean = gate_halves_and_mean(x)
    return product + mean[:, None, None]


def _fuses(x: Tensor) -> bool:
    if x.dim() != 4 or x.shape[-1] % 2 or x.shape[-1] == 0:
        raise UserError(f"gate_halves: x must be (B, H, W, 2 C); it is {tuple(x.shape)}")
    return use_kernel("simple_gate", functools.partial(_obstacle, x), x, (*x.shape[:3], x.shape[3] // 2))


def _obstacle(x: Tensor) -> str | None:
    """Why the fused kernels cannot run, or None."""
    return compiler_obstacle("simple_gate") or device_obstacle("simple_gate", x=x)


def _plain(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # which plans memory by itself
        return halves_product(x)
    result: Tensor = _GateHalves.apply(x)
    return result


class _GateHalves(Function):
    """Keeps x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return halves_product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return halves_product_backward(grad, *ctx.saved_tensors)


def halves_product(x: Tensor) -> Tensor:
    """`gate_halves` in PyTorch, (..., 2 C) -> (..., C), without a gradient."""
    a, b = x.chunk(2, -1)
    return a * b


def halves_product_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient (..., 2 C) of `halves_product` from that of its result (..., C): both halves are written into one map."""
    result = torch.empty_like(x)
    for mine, other in zip(result.chunk(2, -1), reversed(x.chunk(2, -1)), strict=True):
        torch.mul(grad, other, out=mine)
    return result
