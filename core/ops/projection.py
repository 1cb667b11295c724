"""What ends a branch of NAFNet's blocks, and the mean over pixels that its attention starts from, with few maps written.

Maps are pixel-major: see `core.ops.pixelwise`. Both functions can be differentiated once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .pixelwise import cast_for_autocast, linear
from .shapes import check_shapes


def scaled_projection(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    gain: Tensor,
    attention: Tensor | None = None,
    skip: Tensor | None = None,
) -> Tensor:
    """``skip + gain * linear(attention * y, weight, bias)``: (B, H, W, C) -> (B, H, W, O).

    Scales are folded into the matrix where that is less work than scaling maps.

    Args:
        y: pixel-major.
        weight, bias, gain: (O, C), (O) and (O).
        attention: (B, C), or (B, H, W, C) where it differs between pixels; None is 1.
        skip: (B, H, W, O); None is 0.

    Raises:
        UserError: shapes do not go together.
    """
    batch, height, width, inner = y.shape
    outer = weight.shape[0]
    check_shapes(
        "scaled_projection",
        f"y {tuple(y.shape)} and {outer} channels",
        weight=(weight, (outer, inner)),
        bias=(bias, (outer,)),
        gain=(gain, (outer,)),
        attention=(attention, (batch, inner), tuple(y.shape)),
        skip=(skip, (batch, height, width, outer)),
    )
    if attention is not None and not (attention.dim() == 2 and height * width > inner):
        # Where there are no more pixels than channels, a matrix for each image costs more than the map, as its gradient does.
        y, attention = y * (attention if attention.dim() == 4 else attention[:, None, None]), None
    if batch * height * width <= outer:
        branch = linear(y, weight, bias) * gain
        return branch if skip is None else skip + branch
    y, weight, bias, gain, attention = cast_for_autocast(y, weight, bias, gain, attention)
    result: Tensor = _ScaledProjection.apply(y, weight, bias, gain, attention, skip)
    return result


class _ScaledProjection(Function):
    """Keeps what it is given. The gradients of all scales follow from that of the scaled matrix, without a map."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        gain: Tensor,
        attention: Tensor | None,
        skip: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(y, weight, bias, gain, attention)
        ctx.skips = skip is not None
        matrix = weight * gain[:, None]
        branch = linear(y, matrix if attention is None else matrix * attention[:, None], bias * gain)
        if skip is None:
            return branch
        return branch.add_(skip) if branch.dtype == skip.dtype else skip + branch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, bias, gain, attention = ctx.saved_tensors
        inner = grad.to(y.dtype)
        of_offset, of_attention, matrix = inner.sum((0, 1, 2)), None, weight * gain[:, None]
        if attention is None:
            of_matrix = inner.flatten(0, 2).t() @ y.flatten(0, 2)
            of_y = inner @ matrix
        else:
            of_each = inner.flatten(1, 2).transpose(1, 2) @ y.flatten(1, 2)
            of_attention = (of_each * matrix).sum(1)
            of_matrix = (of_each * attention[:, None]).sum(0)
            of_y = (inner.flatten(1, 2) @ (matrix * attention[:, None])).view(y.shape)
        of_gain = (of_matrix * weight).sum(1) + of_offset * bias
        return of_y, of_matrix.mul_(gain[:, None]), of_offset * gain, of_gain, of_attention, grad if ctx.skips else None


def mean_pixel(x: Tensor) -> Tensor:
    """Mean over an image: (B, H, W, C) -> (B, C)."""
    result: Tensor = _MeanPixel.apply(x)
    return result


class _MeanPixel(Function):
    """Its gradient is one number for all pixels of an image, which need not be written out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        _, height, width, _ = ctx.shape
        of_each: Tensor = grad / (height * width)
        return of_each[:, None, None].expand(ctx.shape)
