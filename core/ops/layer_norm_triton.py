"""Triton kernels of `layer_norm`: every map is read once, and written once, in the forward and in the backward pass.

Importing this needs Triton. A program takes some rows (pixels) of one image and all their channels; sums over pixels, which the
gradients of gains and offsets need, are left as one partial sum per program.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

TILE = 2048
"""Elements that a program holds at once."""
STEPS = 8
"""Tiles that a program goes through."""


@triton.jit
def _forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, gain, offset, y, mean, scale, rows, channels, per_image, eps,  # noqa: ANN001
    HAS_OFFSET: tl.constexpr, CENTRED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    column = tl.arange(0, WIDTH)
    inside = column < channels
    g = tl.load(gain + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_OFFSET:
        o = tl.load(offset + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = image.to(tl.int64) * rows
    where = (first + row)[:, None] * channels + column[None, :]
    here = (row < rows)[:, None] & inside[None, :]
    v = tl.load(x + where, mask=here, other=0.0).to(tl.float32)
    m = tl.sum(v, 1) / channels
    deviation = tl.where(here, v - m[:, None], 0.0)
    r = tl.rsqrt(tl.sum(deviation * deviation, 1) / channels + eps)
    normal = (deviation if CENTRED else v) * r[:, None] * g[None, :]
    if HAS_OFFSET:
        normal += o[None, :]
    tl.store(y + where, normal.to(y.dtype.element_ty), mask=here)
    tl.store(mean + first + row, m, mask=row < rows)
    tl.store(scale + first + row, r, mask=row < rows)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, gain, mean, scale, grad_x, grad_gain, grad_offset, rows, channels, per_image,  # noqa: ANN001
    CENTRED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1)
    column = tl.arange(0, WIDTH)
    inside = column < channels
    g = tl.load(gain + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    sum_gain = tl.zeros((WIDTH,), tl.float32)
    sum_offset = tl.zeros((WIDTH,), tl.float32)
    first = image.to(tl.int64) * rows
    for step in range(STEPS):
        row = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        where = (first + row)[:, None] * channels + column[None, :]
        here = (row < rows)[:, None] & inside[None, :]
        d = tl.load(grad + where, mask=here, other=0.0).to(tl.float32)
        v = tl.load(x + where, mask=here, other=0.0).to(tl.float32)
        m = tl.load(mean + first + row, mask=row < rows, other=0.0)
        r = tl.load(scale + first + row, mask=row < rows, other=0.0)
        normal = tl.where(here, v - m[:, None], 0.0) * r[:, None]
        shown = normal if CENTRED else v * r[:, None]
        sum_gain += tl.sum(d * shown, 0)
        sum_offset += tl.sum(d, 0)
        d = d * g[None, :]
        along = tl.sum(d * shown, 1) / channels
        # The norm takes out of the gradient what points along the map itself, and, where the mean is subtracted, its mean.
        inner = d - normal * along[:, None]
        if CENTRED:
            inner -= (tl.sum(d, 1) / channels)[:, None]
        tl.store(grad_x + where, (inner * r[:, None]).to(grad_x.dtype.element_ty), mask=here)
    partial = (image * tl.num_programs(0) + tl.program_id(0)) * channels + column
    tl.store(grad_gain + partial, sum_gain, mask=inside)
    tl.store(grad_offset + partial, sum_offset, mask=inside)


def tiling(channels: int) -> tuple[int, int]:
    """Rows and columns of a tile, powers of two."""
    width = triton.next_power_of_2(channels)
    return max(1, TILE // width), width


class FusedLayerNorm(Function):
    """Keeps x and two numbers per pixel. `dtype` is that of the result; sums are in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
    ) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        batch, channels = x.shape[0], x.shape[-1]
        rows = x.numel() // (batch * channels)
        y = torch.empty_like(x, dtype=dtype)
        mean, scale = (torch.empty(batch * rows, device=x.device, dtype=torch.float32) for _ in range(2))
        height, width = tiling(channels)
        _forward[(triton.cdiv(rows, height), batch)](
            x, gain, gain if offset is None else offset.contiguous(), y, mean, scale, rows, channels,
            channels if gain.dim() == 2 else 0, eps, offset is not None, centred, height, width,
        )  # fmt: skip
        ctx.save_for_backward(x, gain, mean, scale)
        ctx.centred, ctx.offset = centred, None if offset is None else (offset.shape, offset.dtype)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, mean, scale = ctx.saved_tensors
        batch, channels = x.shape[0], x.shape[-1]
        rows = x.numel() // (batch * channels)
        height, width = tiling(channels)
        programs = triton.cdiv(rows, height * STEPS)
        grad_x = torch.empty_like(x)
        sums = torch.empty(2, batch, programs, channels, device=x.device, dtype=torch.float32)
        _backward[(programs, batch)](
            grad.contiguous(), x, gain, mean, scale, grad_x, sums[0], sums[1], rows, channels,
            channels if gain.dim() == 2 else 0, ctx.centred, height, width, STEPS,
        )  # fmt: skip
        of_gain, of_offset = sums.sum((1, 2) if gain.dim() == 1 else 2)
        of_offset = None if ctx.offset is None else of_offset.reshape(ctx.offset[0]).to(ctx.offset[1])
        return grad_x, of_gain.to(gain.dtype), of_offset, None, None, None
