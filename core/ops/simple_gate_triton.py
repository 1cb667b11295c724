"""Triton kernels of `simple_gate`: the product of two halves, with its mean over the image where that is asked for.

Forward one launch, which reads both halves and writes their product, 3 C elements a pixel; a mean adds partial sums of
programs and one launch that adds them up, where it took a pass of its own. Backward one launch, which writes both halves of
one gradient and adds the mean's on the way, 5 C; without it two launches, and two more with a mean. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile, tile_steps

TILE = 2048
"""Elements of each half that a program holds at once."""
STEPS = 4
"""Tiles that a program goes through."""
WIDEST = 256
"""Channels of a tile, at most."""


@triton.jit
def _gate(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, partial, pixels, channels, blocks,  # noqa: ANN001
    MEAN: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = tl.program_id(0) % blocks
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = column < channels
    total = tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        row = (program * STEPS + step) * ROWS + tl.arange(0, ROWS)
        here = (row < pixels)[:, None] & known[None, :]
        where = (image * pixels + row)[:, None]
        first = x + where * (2 * channels) + column[None, :]
        a = tl.load(first, mask=here, other=0.0).to(tl.float32)
        b = tl.load(first + channels, mask=here, other=0.0).to(tl.float32)
        out = (a * b).to(y.dtype.element_ty)
        tl.store(y + where * channels + column[None, :], out, mask=here)
        if MEAN:  # of what was rounded, as if it were taken from the map
            total += tl.sum(out.to(tl.float32), 0)
    if MEAN:
        tl.store(partial + (image * blocks + program) * channels + column, total / pixels, mask=known)


@triton.jit
def _gate_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, of_mean, x, of_x, pixels, channels, blocks,  # noqa: ANN001
    MAP: tl.constexpr, MEAN: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    program = tl.program_id(0) % blocks
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    known = column < channels
    shared = tl.zeros((WIDTH,), tl.float32)
    if MEAN:
        shared += tl.load(of_mean + image * channels + column, mask=known, other=0.0).to(tl.float32) / pixels
    for step in range(STEPS):
        row = (program * STEPS + step) * ROWS + tl.arange(0, ROWS)
        here = (row < pixels)[:, None] & known[None, :]
        where = (image * pixels + row)[:, None]
        first = where * (2 * channels) + column[None, :]
        a = tl.load(x + first, mask=here, other=0.0).to(tl.float32)
        b = tl.load(x + first + channels, mask=here, other=0.0).to(tl.float32)
        d = tl.zeros((ROWS, WIDTH), tl.float32) + shared[None, :]
        if MAP:
            d += tl.load(grad + where * channels + column[None, :], mask=here, other=0.0).to(tl.float32)
        tl.store(of_x + first, (d * b).to(of_x.dtype.element_ty), mask=here)
        tl.store(of_x + first + channels, (d * a).to(of_x.dtype.element_ty), mask=here)


def _sizes(x: Tensor) -> tuple[tuple[int, int], tuple[int, int, int], dict[str, int]]:
    """Grid; pixels of an image, channels of a half and programs of an image; sizes of tiles."""
    batch, channels = x.shape[0], x.shape[-1] // 2
    pixels = x.shape[1] * x.shape[2]
    width = block(channels, most=WIDEST)
    rows = max(1, tile(TILE) // width)
    held = tile_steps(STEPS, triton.cdiv(pixels, rows))
    blocks = triton.cdiv(pixels, rows * held)
    grid = (batch * blocks, triton.cdiv(channels, width))
    return grid, (pixels, channels, blocks), {"ROWS": rows, "WIDTH": width, "STEPS": held}


def _fake(x: Tensor, pool: bool) -> tuple[Tensor, Tensor]:
    channels = x.shape[-1] // 2
    y = torch.empty((*x.shape[:-1], channels), device=x.device, dtype=x.dtype)
    return y, torch.empty((x.shape[0], channels) if pool else (0,), device=x.device, dtype=x.dtype)


def _run(x: Tensor, pool: bool) -> tuple[Tensor, Tensor]:
    y, mean = _fake(x, pool)
    grid, sizes, tiles = _sizes(x)
    partial = torch.empty(x.shape[0], sizes[2], sizes[1], device=x.device, dtype=torch.float32) if pool else x
    launch(_gate, grid, x.contiguous(), y, partial, *sizes, MEAN=pool, **tiles)
    return y, torch.sum(partial, 1).to(x.dtype) if pool else mean


def _fake_backward(grad: Tensor | None, of_mean: Tensor | None, x: Tensor) -> Tensor:
    return torch.empty(x.shape, device=x.device, dtype=x.dtype)


def _run_backward(grad: Tensor | None, of_mean: Tensor | None, x: Tensor) -> Tensor:
    of_x = _fake_backward(grad, of_mean, x)
    x = x.contiguous()
    grid, sizes, tiles = _sizes(x)
    given = [x if t is None else t.contiguous() for t in (grad, of_mean)]
    launch(
        _gate_backward, grid, *given, x, of_x, *sizes, MAP=grad is not None, MEAN=of_mean is not None, **tiles
    )  # fmt: skip
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    if not inputs[1]:
        ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, backward: Any, grad: Tensor | None, of_mean: Tensor | None) -> tuple[Tensor | None, ...]:
    return backward(grad, of_mean, ctx.saved_tensors[0]), None


fused = operator("simple_gate", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, pool)``: the product of the halves (B, H, W, C), and its means (B, C), or nothing without `pool`."""
