"""Triton kernels of `gradient.derivative_sums`: an image is read once, no derivative is written but its sign, a byte a pixel.

Forward one launch and one that adds partial sums; backward one, which gathers the signs through the stencils. In place of about
15 launches and 21 maps, 1.25 forward and 1.25 backward. Limit: bytes; of a patch the launches.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile
from .planes import dense, steps

PIXELS = 256
"""Pixels of a program."""


@triton.jit
def _sign(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return tl.where(x > 0, 1, tl.where(x < 0, -1, 0))


@triton.jit
def _sums(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, stencils, signs, partial, channels, of_sample, of_channel, step, height, width, blocks, inner, fewer,  # noqa: ANN001
    PIXELS: tl.constexpr,
):  # fmt: skip
    """A byte holds both signs: 3 times one more than the first, and one more than the second."""
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    row, column = at // width, at % width
    x += plane // channels * of_sample + plane % channels * of_channel
    first = tl.zeros((PIXELS,), tl.float32)
    second = first
    for k in range(9):
        r, c = row + k // 3 - 1, column + k % 3 - 1
        value = tl.load(
            x + (r * width + c) * step, mask=here & (r >= 0) & (r < height) & (c >= 0) & (c < width), other=0.0
        )
        first += value * tl.load(stencils + k)
        second += value * tl.load(stencils + 9 + k)
    whole = here & (row >= inner) & (row < height - inner) & (column >= inner) & (column < width - inner)
    first = tl.where(whole & (row < height - fewer), first, 0.0)
    second = tl.where(whole & (column < width - fewer), second, 0.0)
    both = 3 * _sign(first) + _sign(second) + 4
    tl.store(signs + plane * height * width + at, both.to(tl.int8), mask=here)
    where = partial + (plane * blocks + tl.program_id(0) % blocks) * 2
    tl.store(where, tl.sum(tl.abs(first)))
    tl.store(where + 1, tl.sum(tl.abs(second)))


@triton.jit
def _signs_back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, signs, stencils, of_x, channels, of_sample, of_channel, step, height, width, blocks,  # noqa: ANN001
    PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    row, column = at // width, at % width
    signs += plane * height * width
    first = tl.zeros((PIXELS,), tl.float32)
    second = first
    for k in range(9):
        r, c = row - k // 3 + 1, column - k % 3 + 1
        inside = here & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        both = tl.load(signs + r * width + c, mask=inside, other=4).to(tl.int32)
        first += (both // 3 - 1).to(tl.float32) * tl.load(stencils + k)
        second += (both % 3 - 1).to(tl.float32) * tl.load(stencils + 9 + k)
    sample, channel = plane // channels, plane % channels
    total = first * tl.load(grad + 2 * sample) + second * tl.load(grad + 2 * sample + 1)
    tl.store(of_x + sample * of_sample + channel * of_channel + at * step, total, mask=here)


def _fake(x: Tensor, stencils: Tensor, inner: int, fewer: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], 2), torch.empty(x.shape, device=x.device, dtype=torch.int8)


def _run(x: Tensor, stencils: Tensor, inner: int, fewer: int) -> tuple[Tensor, Tensor]:
    signs, x, held = _fake(x, stencils, inner, fewer)[1], dense(x), tile(PIXELS)
    planes, (height, width) = x.shape[0] * x.shape[1], x.shape[2:]
    blocks = triton.cdiv(height * width, held)
    partial = x.new_empty(x.shape[0], x.shape[1] * blocks, 2)
    launch(
        _sums, (planes * blocks,), x, stencils, signs, partial, *steps(x), height, width, blocks, inner, fewer,
        PIXELS=held,
    )  # fmt: skip
    return partial.sum(1), signs


def _fake_backward(grad: Tensor, signs: Tensor, stencils: Tensor, like: Tensor, inner: int, fewer: int) -> Tensor:
    return torch.empty_like(like)


def _run_backward(grad: Tensor, signs: Tensor, stencils: Tensor, like: Tensor, inner: int, fewer: int) -> Tensor:
    """The gradient of x, in the layout of `like`."""
    of_x, held = torch.empty_like(dense(like)), tile(PIXELS)
    (batch, channels), (height, width) = like.shape[:2], like.shape[2:]
    blocks = triton.cdiv(height * width, held)
    launch(
        _signs_back, (batch * channels * blocks,), grad.contiguous(), signs, stencils, of_x, *steps(of_x), height, width,
        blocks, PIXELS=held,
    )  # fmt: skip
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, stencils, *ctx.rest = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], stencils, x)


def _gradients(ctx: Any, backward: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None


fused = operator("gradient", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, stencils, inner, fewer)`` of float32: sums of absolute derivatives by two stencils (2, 3, 3), (B, 2), and signs.

Both leave out `inner` pixels at every border, the first `fewer` rows below, the second as many columns to the right.
"""
