"""Triton kernels of `rmsnorm_gated`: x and z are read once, the result is written once; backward 3 reads and 2 writes.

One launch forward, one and a sum of partial sums backward; without them 12 and 32 passes. x and z may be slices of a wider map:
their rows need not be contiguous. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile, tile_steps

TILE = 1024
"""Elements that a program holds at once."""
STEPS = 8
"""Tiles that a program of the backward pass goes through."""


@triton.jit
def _load(source, row, column, stride, mask):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.load(source + row[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _rms_forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, z, weight, y, scale, rows, x_stride, z_stride, groups, size, eps,  # noqa: ANN001
    GATED: tl.constexpr, BEFORE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inner = tl.arange(0, WIDTH)
    column = group * size + inner
    here = (row < rows)[:, None] & (inner < size)[None, :]
    v = _load(x, row, column, x_stride, here)
    if GATED:
        gate = _load(z, row, column, z_stride, here)
        gate = gate * tl.sigmoid(gate)
        if not BEFORE:
            v = v * gate
    r = tl.rsqrt(tl.sum(v * v, 1) / size + eps)
    out = v * r[:, None] * tl.load(weight + column, mask=inner < size, other=0.0).to(tl.float32)[None, :]
    if GATED and BEFORE:
        out = out * gate
    tl.store(y + row[:, None] * (groups * size) + column[None, :], out.to(y.dtype.element_ty), mask=here)
    tl.store(scale + row * groups + group, r, mask=row < rows)


@triton.jit
def _rms_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, z, weight, scale, grad_x, grad_z, partial, rows, x_stride, z_stride, groups, size,  # noqa: ANN001
    GATED: tl.constexpr, BEFORE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    inner = tl.arange(0, WIDTH)
    column = group * size + inner
    w = tl.load(weight + column, mask=inner < size, other=0.0).to(tl.float32)[None, :]
    of_weight = tl.zeros((WIDTH,), tl.float32)
    # Rows: first the gradient through the gate, then that through the norm.
    for step in range(STEPS):
        row = (tl.program_id(0).to(tl.int64) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        here = (row < rows)[:, None] & (inner < size)[None, :]
        out = row[:, None] * (groups * size) + column[None, :]
        d = tl.load(grad + out, mask=here, other=0.0).to(tl.float32)
        v = _load(x, row, column, x_stride, here)
        r = tl.load(scale + row * groups + group, mask=row < rows, other=0.0)[:, None]
        if GATED:
            raw = _load(z, row, column, z_stride, here)
            sigma = tl.sigmoid(raw)
            gate = raw * sigma
            slope = sigma * (1 + raw * (1 - sigma))
            if BEFORE:
                tl.store(grad_z + out, (d * v * r * w * slope).to(grad_z.dtype.element_ty), mask=here)
                d = d * gate
                t = v
            else:
                t = v * gate
        else:
            t = v
        of_weight += tl.sum(d * t * r, 0)
        d = d * w
        d = r * (d - t * r * r * (tl.sum(d * t, 1) / size)[:, None])
        if GATED and not BEFORE:
            tl.store(grad_z + out, (d * v * slope).to(grad_z.dtype.element_ty), mask=here)
            d = d * gate
        tl.store(grad_x + out, d.to(grad_x.dtype.element_ty), mask=here)
    # The gradient of the weight, one sum for each program.
    where = (tl.program_id(0).to(tl.int64) * groups + group) * size + inner
    tl.store(partial + where, of_weight, mask=inner < size)


def _rows(t: Tensor) -> Tensor:
    """(..., D) as (rows, D) whose last axis is contiguous: a view of a slice of a contiguous map."""
    t = t.reshape(-1, t.shape[-1])
    return t if t.stride(1) == 1 else t.contiguous()


def _tiling(size: int) -> tuple[int, int]:
    width = block(size)
    return max(1, tile(TILE) // width), width


def _fake(
    x: Tensor, weight: Tensor, z: Tensor | None, eps: float, size: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor]:
    scale = torch.empty((*x.shape[:-1], x.shape[-1] // size), device=x.device, dtype=torch.float32)
    return torch.empty(x.shape, device=x.device, dtype=x.dtype), scale


def _run(
    x: Tensor, weight: Tensor, z: Tensor | None, eps: float, size: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor]:
    y, scale = _fake(x, weight, z, eps, size, norm_before_gate)
    x, gate, groups = _rows(x), _rows(x if z is None else z), x.shape[-1] // size
    height, width = _tiling(size)
    launch(
        _rms_forward, (triton.cdiv(len(x), height), groups), x, gate, weight.contiguous(), y, scale, len(x), x.stride(0),
        gate.stride(0), groups, size, eps, GATED=z is not None, BEFORE=norm_before_gate, ROWS=height, WIDTH=width,
    )  # fmt: skip
    return y, scale


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor | None, scale: Tensor, size: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of_z = torch.empty(x.shape if z is not None else (0,), device=x.device, dtype=x.dtype if z is None else z.dtype)
    of_weight = torch.empty(weight.shape, device=x.device, dtype=torch.float32)
    return torch.empty(x.shape, device=x.device, dtype=x.dtype), of_weight, of_z


def _run_backward(
    grad: Tensor, x: Tensor, weight: Tensor, z: Tensor | None, scale: Tensor, size: int, norm_before_gate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of_x, _, of_z = _fake_backward(grad, x, weight, z, scale, size, norm_before_gate)
    x, gate, groups = _rows(x), _rows(x if z is None else z), x.shape[-1] // size
    height, width = _tiling(size)
    held = tile_steps(STEPS, triton.cdiv(len(x), height))
    programs = triton.cdiv(len(x), height * held)
    partial = torch.empty(programs, groups * size, device=x.device, dtype=torch.float32)
    launch(
        _rms_backward, (programs, groups), grad.contiguous(), x, gate, weight.contiguous(), scale, of_x, of_z, partial,
        len(x), x.stride(0), gate.stride(0), groups, size, GATED=z is not None, BEFORE=norm_before_gate, ROWS=height,
        WIDTH=width, STEPS=held,
    )  # fmt: skip
    return of_x, partial.sum(0), of_z


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, z, _, size, before = inputs
    ctx.save_for_backward(x, weight, z, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.rest = size, before


def _gradients(ctx: Any, backward: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    z, weight = ctx.saved_tensors[2], ctx.saved_tensors[1]
    of_x, of_weight, of_z = backward(grad, *ctx.saved_tensors, *ctx.rest)
    return of_x, of_weight.to(weight.dtype), None if z is None else of_z, None, None, None


fused = operator("rms_norm", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, weight, z, eps, group size, norm before gate)``: the norm in the dtype of x, and the scale of every group."""
