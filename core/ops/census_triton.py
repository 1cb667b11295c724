"""Triton kernels of `census.census_distance`: both images are read where they are, one map is written, nothing else is kept.

A program takes some pixels and goes through all of their neighbours; the gradient is gathered, not scattered: what a
neighbour's distance does to this pixel is what this pixel's does to the neighbour, with the other sign. One launch forward and
one backward; 12 and 16 bytes a pixel, where maps of all 49 neighbours take about 4 KB. Limit: arithmetic. Importing this
needs Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator

PIXELS = 256
"""Pixels of one program."""


@triton.jit
def _census(  # type: ignore[no-untyped-def]  # noqa: ANN202
    pred, target, grad, out, height, width, count,  # noqa: ANN001
    SIGN: tl.constexpr, SOFT: tl.constexpr, PATCH: tl.constexpr, BACKWARD: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    here = pixel < count
    column = pixel % width
    row = (pixel // width) % height
    p = tl.load(pred + pixel, mask=here, other=0.0)
    t = tl.load(target + pixel, mask=here, other=0.0)
    if BACKWARD:
        g = tl.load(grad + pixel, mask=here, other=0.0)
    total = tl.zeros((PIXELS,), tl.float32)
    # Every neighbour: the differences of both images as soft signs, and their distance or its derivative.
    for k in range(PATCH * PATCH):
        down = k // PATCH - PATCH // 2
        right = k % PATCH - PATCH // 2
        inside = here & (row + down >= 0) & (row + down < height) & (column + right >= 0) & (column + right < width)
        neighbour = pixel + down * width + right
        d = tl.load(pred + neighbour, mask=inside, other=0.0) - p
        e = tl.load(target + neighbour, mask=inside, other=0.0) - t
        r = tl.rsqrt(d * d + SIGN)
        u = d * r - e * tl.rsqrt(e * e + SIGN)
        v = u * u + SOFT
        if BACKWARD:
            both = g + tl.load(grad + neighbour, mask=inside, other=0.0)
            total -= both * u / (v * v) * r * r * r
        else:
            total += u * u / v
    scale = 2 * SOFT * SIGN if BACKWARD else 1.0
    tl.store(out + pixel, total * (scale / (PATCH * PATCH)), mask=here)


def _fake(pred: Tensor, target: Tensor, patch_size: int, sign: float, count: float) -> Tensor:
    return torch.empty(pred.shape, device=pred.device, dtype=pred.dtype)


def _run(pred: Tensor, target: Tensor, patch_size: int, sign: float, count: float) -> Tensor:
    return _launch(pred, target, None, patch_size, sign, count)


def _fake_backward(grad: Tensor, pred: Tensor, target: Tensor, patch_size: int, sign: float, count: float) -> Tensor:
    return torch.empty(pred.shape, device=pred.device, dtype=pred.dtype)


def _run_backward(grad: Tensor, pred: Tensor, target: Tensor, patch_size: int, sign: float, count: float) -> Tensor:
    return _launch(pred, target, grad.contiguous(), patch_size, sign, count)


def _launch(pred: Tensor, target: Tensor, grad: Tensor | None, patch_size: int, sign: float, count: float) -> Tensor:
    pred, target, out = pred.contiguous(), target.contiguous(), _fake(pred, target, patch_size, sign, count)
    launch(
        _census, (triton.cdiv(pred.numel(), PIXELS),), pred, target, pred if grad is None else grad, out, pred.shape[1],
        pred.shape[2], pred.numel(), SIGN=sign, SOFT=count, PATCH=patch_size, BACKWARD=grad is not None, PIXELS=PIXELS,
    )  # fmt: skip
    return out


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None, None


fused = operator("census", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(pred, target, patch_size, sign, count)``: of float32; `sign` is added under the root, `count` to the squares."""
