"""Triton kernels of `phase_vectors` between its two Fourier transforms: every bin is read once and written once.

Forward one launch: a spectrum is read, its unit vectors and their factors are written, 5 floats a bin, in place of ten launches
and 24. Backward one launch, 7 floats in place of 17. Limit: bytes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile

BINS = 1024
"""Bins of a program."""


@triton.jit
def _column_scale(column, columns, width, inner):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """`inner`, but over the root of 2 for the columns of a half spectrum that are their own mirror images."""
    edge = (column == 0) | ((column == columns - 1) & (width % 2 == 0))
    return tl.where(edge, inner * 0.7071067811865476, inner)


@triton.jit
def _unit(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f, vectors, inverse, bins, columns, width, inner, EMPTY: tl.constexpr, BINS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
    here = at < bins
    re = tl.load(f + 2 * at, mask=here, other=0.0)
    im = tl.load(f + 2 * at + 1, mask=here, other=0.0)
    power = re * re + im * im
    empty = power < EMPTY
    over = tl.where(empty, 0.0, tl.rsqrt(tl.where(empty, 1.0, power)))
    scale = _column_scale((at % columns).to(tl.int32), columns, width, inner)
    tl.store(vectors + 2 * at, tl.where(empty, 1.0, re * over) * scale, mask=here)
    tl.store(vectors + 2 * at + 1, im * over * scale, mask=here)
    tl.store(inverse + at, over, mask=here)


@triton.jit
def _turn(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, vectors, inverse, of_f, bins, columns, width, inner,  # noqa: ANN001
    SHARED: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """``i u <i u, g> / |F|``; with SHARED over how often the full spectrum has the bin."""
    at = tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
    here = at < bins
    scale = _column_scale((at % columns).to(tl.int32), columns, width, inner)
    re = tl.load(vectors + 2 * at, mask=here, other=0.0) / scale
    im = tl.load(vectors + 2 * at + 1, mask=here, other=0.0) / scale
    along = re * tl.load(grad + 2 * at + 1, mask=here, other=0.0) - im * tl.load(grad + 2 * at, mask=here, other=0.0)
    turn = along * tl.load(inverse + at, mask=here, other=0.0) * scale
    if SHARED:
        turn = turn * tl.where(scale < inner, 1.0, 0.5)
    tl.store(of_f + 2 * at, -im * turn, mask=here)
    tl.store(of_f + 2 * at + 1, re * turn, mask=here)


def _sizes(f: Tensor, width: int) -> tuple[tuple[int], tuple[int, int, int, float], int]:
    """Grid; bins, columns, width of the planes and scale of most columns; bins of a program."""
    held, bins = tile(BINS), f.numel() // 2
    inner = math.sqrt(2 / (f.shape[-3] * width)) if bins else 1.0
    return (triton.cdiv(bins, held),), (bins, f.shape[-2], width, inner), held


def _fake(f: Tensor, width: int, empty: float) -> tuple[Tensor, Tensor]:
    return torch.empty(f.shape, device=f.device), torch.empty(f.shape[:-1], device=f.device)


def _run(f: Tensor, width: int, empty: float) -> tuple[Tensor, Tensor]:
    vectors, inverse = _fake(f, width, empty)
    grid, sizes, held = _sizes(f, width)
    launch(_unit, grid, f.contiguous(), vectors, inverse, *sizes, EMPTY=empty, BINS=held)
    return vectors, inverse


def _fake_backward(grad: Tensor, vectors: Tensor, inverse: Tensor, width: int, shared: bool) -> Tensor:
    return torch.empty(vectors.shape, device=vectors.device)


def _run_backward(grad: Tensor, vectors: Tensor, inverse: Tensor, width: int, shared: bool) -> Tensor:
    of_f = _fake_backward(grad, vectors, inverse, width, shared)
    grid, sizes, held = _sizes(vectors, width)
    launch(_turn, grid, grad.contiguous(), vectors, inverse, of_f, *sizes, SHARED=shared, BINS=held)
    return of_f


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*output)
    ctx.mark_non_differentiable(output[1])
    ctx.width = inputs[1]


def _gradients(ctx: Any, backward: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return backward(grad, *ctx.saved_tensors, ctx.width, False), None, None


unit = operator("phase", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``unit(f, width, empty)``: of a half spectrum (B, C, H, width // 2 + 1, 2) the scaled unit vectors, and 1 / |F| or 0."""
unit_backward = torch.ops.relume.phase_backward
"""``unit_backward(grad, vectors, inverse, width, shared)``: of the spectrum; with `shared` as rfft2's adjoint takes it."""
