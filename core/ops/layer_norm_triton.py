"""Triton kernels of `layer_norm`: every map is read once, and written once, in the forward and in the backward pass.

Importing this needs Triton. A program takes some rows (pixels) of one image and all their channels; sums over pixels, which the
gradients of gains and offsets need, are left as one partial sum per program. Forward one launch, which reads and writes a map;
backward one and the partial sums' own, which read two maps and write one. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile, tile_steps

TILE = 2048
"""Elements that a program holds at once."""
STEPS = 8
"""Tiles that a program goes through."""


@triton.jit
def _forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, gain, offset, y, mean, scale, rows, channels, per_image, eps, blocks,  # noqa: ANN001
    HAS_OFFSET: tl.constexpr, CENTRED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = tl.program_id(0) % blocks
    column = tl.arange(0, WIDTH)
    inside = column < channels
    g = tl.load(gain + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_OFFSET:
        o = tl.load(offset + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    row = program * ROWS + tl.arange(0, ROWS)
    first = image * rows
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
    grad, x, gain, mean, scale, grad_x, grad_gain, grad_offset, rows, channels, per_image, blocks,  # noqa: ANN001
    CENTRED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = tl.program_id(0) % blocks
    column = tl.arange(0, WIDTH)
    inside = column < channels
    g = tl.load(gain + image * per_image + column, mask=inside, other=0.0).to(tl.float32)
    sum_gain = tl.zeros((WIDTH,), tl.float32)
    sum_offset = tl.zeros((WIDTH,), tl.float32)
    first = image * rows
    for step in range(STEPS):
        row = (program * STEPS + step) * ROWS + tl.arange(0, ROWS)
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
    partial = (image * blocks + program) * channels + column
    tl.store(grad_gain + partial, sum_gain, mask=inside)
    tl.store(grad_offset + partial, sum_offset, mask=inside)


def tiling(channels: int) -> tuple[int, int]:
    """Rows and columns of a tile, powers of two."""
    width = triton.next_power_of_2(channels)
    return max(1, tile(TILE) // width), width


def _outputs(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    pixels = x.numel() // max(x.shape[-1], 1)
    numbers = [torch.empty(pixels, device=x.device, dtype=torch.float32) for _ in range(2)]
    return torch.empty(x.shape, device=x.device, dtype=dtype), numbers[0], numbers[1]


def _run(
    x: Tensor, gain: Tensor, offset: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised map, and mean and scale of every pixel."""
    x, gain = x.contiguous(), gain.contiguous()
    y, mean, scale = _outputs(x, dtype)
    batch, rows = x.shape[0], x[0].numel() // x.shape[-1] if len(x) else 0
    height, width = tiling(x.shape[-1])
    launch(
        _forward, (batch * triton.cdiv(rows, height),), x, gain, gain if offset is None else offset.contiguous(), y, mean,
        scale, rows, x.shape[-1], x.shape[-1] if gain.dim() == 2 else 0, eps, triton.cdiv(rows, height),
        HAS_OFFSET=offset is not None, CENTRED=centred, ROWS=height, WIDTH=width,
    )  # fmt: skip
    return y, mean, scale


def _fake(
    x: Tensor, gain: Tensor, offset: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, dtype)


def _run_backward(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor, scale: Tensor, centred: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of x, and those of the gain and of an offset of its shape in one tensor, which takes one launch."""
    x, gain = x.contiguous(), gain.contiguous()
    batch, channels = x.shape[0], x.shape[-1]
    rows = x[0].numel() // channels if batch else 0
    height, width = tiling(channels)
    held = tile_steps(STEPS, triton.cdiv(rows, height))
    programs = triton.cdiv(rows, height * held)
    grad_x = torch.empty(x.shape, device=x.device, dtype=x.dtype)
    sums = torch.empty(2, batch, programs, channels, device=x.device, dtype=torch.float32)
    launch(
        _backward, (batch * programs,), grad.contiguous(), x, gain, mean, scale, grad_x, sums[0], sums[1], rows, channels,
        channels if gain.dim() == 2 else 0, programs, CENTRED=centred, ROWS=height, WIDTH=width, STEPS=held,
    )  # fmt: skip
    return grad_x, sums.sum((1, 2) if gain.dim() == 1 else 2)


def _fake_backward(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor, scale: Tensor, centred: bool
) -> tuple[Tensor, Tensor]:
    of_both = torch.empty((2, *gain.shape), device=x.device, dtype=torch.float32)
    return torch.empty(x.shape, device=x.device, dtype=x.dtype), of_both


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, gain, offset, _, centred, _ = inputs
    ctx.save_for_backward(x, gain, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.centred, ctx.offset = centred, None if offset is None else offset.dtype


def _gradients(ctx: Any, backward: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    gain = ctx.saved_tensors[1]
    of_x, of_both = backward(grad, *ctx.saved_tensors, ctx.centred)
    of_gain, of_offset = of_both.unbind()
    return of_x, of_gain.to(gain.dtype), None if ctx.offset is None else of_offset.to(ctx.offset), None, None, None


fused = operator("layer_norm", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, gain, offset, eps, centred, dtype)``: the norm in `dtype`, and mean and scale of every pixel."""
