"""Triton kernels of `laplacian.pyramid_size` and `edge_size`: filters are tables (`banded`), no filtered map is written.

Forward a level takes two launches, the next level's map and the band, of which a partial sum and what it adds to the gradient
are kept, one byte a pixel (a sign) or four; one more launch adds partial sums. Backward one launch for each level, from the
coarsest: its own signs, those of the finer band through the adjoint of the doubling, and the coarser gradient through that of
the halving. With five levels 17 launches in place of about 150. Limit: launches; of large images bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .banded import Band, Kind, table
from .launching import launch, operator, tile
from .planes import dense, steps

PIXELS = 256
"""Pixels of a program."""


@triton.jit
def _applied(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, step, row, column, width, starts, weights, across_starts, across_weights, here,  # noqa: ANN001
    K: tl.constexpr, L: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One band matrix applied down and another across the plane `x`, whose pixels are `step` apart, at places of the result."""
    top = tl.load(starts + row, mask=here, other=0)
    left = tl.load(across_starts + column, mask=here, other=0)
    total = tl.zeros((PIXELS,), tl.float32)
    for i in range(K):
        line = tl.zeros((PIXELS,), tl.float32)
        for j in range(L):
            w = tl.load(across_weights + column * L + j, mask=here, other=0.0)
            line += w * tl.load(x + ((top + i) * width + left + j) * step, mask=here, other=0.0).to(tl.float32)
        total += tl.load(weights + row * K + i, mask=here, other=0.0) * line
    return total


@triton.jit
def _halve(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, small, starts, weights, across_starts, across_weights,  # noqa: ANN001
    channels, of_sample, of_channel, step, width, down, across, blocks,  # noqa: ANN001
    K: tl.constexpr, L: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < down * across
    x += plane // channels * of_sample + plane % channels * of_channel
    value = _applied(
        x, step, at // across, at % across, width, starts, weights, across_starts, across_weights, here, K, L, PIXELS
    )  # fmt: skip
    tl.store(small + plane * down * across + at, value, mask=here)


@triton.jit
def _band(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, small, slopes, partial, starts, weights, across_starts, across_weights,  # noqa: ANN001
    channels, of_sample, of_channel, step, height, width, down, across, blocks, stride, offset, share,  # noqa: ANN001
    DOUBLED: tl.constexpr, SMOOTH: tl.constexpr, K: tl.constexpr, L: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Of x minus what is doubled (or of x itself): slopes, and the sum of its sizes, times `share`."""
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    sample, channel = plane // channels, plane % channels
    value = tl.load(x + sample * of_sample + channel * of_channel + at * step, mask=here, other=0.0)
    if DOUBLED:
        value -= _applied(
            small + plane * down * across, 1, at // width, at % width, across, starts, weights, across_starts,
            across_weights, here, K, L, PIXELS,
        )  # fmt: skip
    if SMOOTH:
        size = tl.sqrt(value * value + offset)
        slope = value / size
    else:
        size = tl.abs(value)
        slope = tl.where(value > 0, 1.0, tl.where(value < 0, -1.0, 0.0))
    tl.store(slopes + plane * height * width + at, slope.to(slopes.dtype.element_ty), mask=here)
    sizes = tl.sum(tl.where(here, size, 0.0)) * share
    tl.store(partial + sample * stride + channel * blocks + tl.program_id(0) % blocks, sizes)


@triton.jit
def _back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, own, finer, coarser, of_x,  # noqa: ANN001
    fine_starts, fine_weights, fine_across_starts, fine_across_weights,  # noqa: ANN001
    starts, weights, across_starts, across_weights,  # noqa: ANN001
    channels, of_sample, of_channel, step, height, width, fine_height, fine_width, down, across, blocks,  # noqa: ANN001
    share, fine_share,  # noqa: ANN001
    OWN: tl.constexpr, FINER: tl.constexpr, COARSER: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, L: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    sample, channel = plane // channels, plane % channels
    row, column = at // width, at % width
    total = tl.zeros((PIXELS,), tl.float32)
    if OWN:
        total += share * tl.load(own + plane * height * width + at, mask=here, other=0).to(tl.float32)
    if FINER:
        total -= fine_share * _applied(
            finer + plane * fine_height * fine_width, 1, row, column, fine_width, fine_starts, fine_weights,
            fine_across_starts, fine_across_weights, here, M, N, PIXELS,
        )  # fmt: skip
    total *= tl.load(grad + sample)
    if COARSER:
        total += _applied(
            coarser + plane * down * across, 1, row, column, across, starts, weights, across_starts, across_weights, here,
            K, L, PIXELS,
        )  # fmt: skip
    tl.store(of_x + sample * of_sample + channel * of_channel + at * step, total, mask=here)


def _sides(x: Tensor, levels: int) -> list[tuple[int, int]]:
    """Height and width of all levels, and of what is left."""
    found = [(x.shape[2], x.shape[3])]
    for _ in range(levels):
        found.append(((found[-1][0] + 1) // 2, (found[-1][1] + 1) // 2))
    return found


def _kind(edge: bool) -> Kind:
    return "edge" if edge else "binomial"


def _tables(name: Any, size: tuple[int, int], kind: Kind, adjoint: bool, x: Tensor) -> tuple[Band, Band]:
    """By rows and by columns."""
    rows, columns = (table(name, side, kind, adjoint, x.device) for side in size)
    return rows, columns


def _counts(x: Tensor, sides: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of every level elements of one channel's plane, and programs for it."""
    return [(h * w, triton.cdiv(h * w, tile(PIXELS))) for h, w in sides]


def _fake(x: Tensor, levels: int, low_pass: bool, edge: bool, offset: float) -> tuple[Tensor, Tensor]:
    sides = _sides(x, levels)[: levels + low_pass]
    slopes = sum(h * w for h, w in sides) * x.shape[0] * x.shape[1]
    dtype = torch.float32 if edge else torch.int8
    return x.new_empty(x.shape[0]), x.new_empty(slopes, dtype=dtype)


def _run(x: Tensor, levels: int, low_pass: bool, edge: bool, offset: float) -> tuple[Tensor, Tensor]:
    # Memory for all levels: slopes, and one partial sum for each block of pixels.
    slopes = _fake(x, levels, low_pass, edge, offset)[1]
    x, kind, held = dense(x), _kind(edge), tile(PIXELS)
    sides = _sides(x, levels)
    counts = _counts(x, sides)
    (batch, channels), planes = x.shape[:2], x.shape[0] * x.shape[1]
    stride = channels * sum(blocks for _, blocks in counts[: levels + low_pass])
    partial = x.new_empty(batch, stride)
    above, apart = x, steps(x)
    at = programs = 0
    # Each level is halved, and then compared with its enlargement, in two launches.
    for level in range(levels + low_pass):
        (height, width), (pixels, blocks) = sides[level], counts[level]
        doubling = level < levels
        down, across = sides[level + 1] if doubling else (1, 1)
        small = x.new_empty(planes, down, across)
        rows = columns = table("doubled", 3, kind, False, x.device)
        if doubling:
            rows, columns = _tables("halved", sides[level], kind, False, x)
            fewer = counts[level + 1][1]
            launch(
                _halve, (planes * fewer,), above, small, *rows, *columns, *apart, width, down, across, fewer,
                K=rows.weights.shape[1], L=columns.weights.shape[1], PIXELS=held,
            )  # fmt: skip
            rows, columns = _tables("doubled", sides[level], kind, False, x)
        launch(
            _band, (planes * blocks,), above, small, slopes[at:], partial[:, programs:], *rows, *columns, *apart, height,
            width, down, across, blocks, stride, offset, 1 / (channels * pixels), DOUBLED=doubling, SMOOTH=edge,
            K=rows.weights.shape[1], L=columns.weights.shape[1], PIXELS=held,
        )  # fmt: skip
        above, apart = small, (channels, channels * down * across, down * across, 1)
        at, programs = at + planes * pixels, programs + channels * blocks
    return partial.sum(1), slopes


def _fake_backward(grad: Tensor, slopes: Tensor, like: Tensor, levels: int, low_pass: bool, edge: bool) -> Tensor:
    return torch.empty_like(like)


def _run_backward(grad: Tensor, slopes: Tensor, like: Tensor, levels: int, low_pass: bool, edge: bool) -> Tensor:
    """The gradient of x, in the layout of `like`."""
    of_x = torch.empty_like(dense(like))
    kind, held, sides = _kind(edge), tile(PIXELS), _sides(like, levels)
    counts, grad = _counts(like, sides), grad.contiguous()
    channels, planes = like.shape[1], like.shape[0] * like.shape[1]
    places = [0]
    for pixels, _ in counts:
        places.append(places[-1] + planes * pixels)
    shares = [1 / (channels * pixels) for pixels, _ in counts]
    coarser, nothing = of_x, table("halved", 3, kind, True, like.device)
    for level in range(levels, -1, -1):
        (height, width), blocks = sides[level], counts[level][1]
        own, fine, coarse = level < levels or low_pass, level > 0, level < levels
        made = of_x if level == 0 else like.new_empty(planes, height, width)
        apart = steps(of_x) if level == 0 else (channels, channels * height * width, height * width, 1)
        fines = _tables("doubled", sides[level - 1], kind, True, like) if fine else (nothing, nothing)
        coarses = _tables("halved", sides[level], kind, True, like) if coarse else (nothing, nothing)
        launch(
            _back, (planes * blocks,), grad, slopes[places[level] if own else 0 :], slopes[places[level - 1] if fine else 0 :],
            coarser, made, *fines[0], *fines[1], *coarses[0], *coarses[1], *apart, height, width,
            *(sides[level - 1] if fine else (1, 1)), *(sides[level + 1] if coarse else (1, 1)), blocks, shares[level],
            shares[level - 1] if fine else 0.0, OWN=own, FINER=fine, COARSER=coarse, M=fines[0].weights.shape[1],
            N=fines[1].weights.shape[1], K=coarses[0].weights.shape[1], L=coarses[1].weights.shape[1], PIXELS=held,
        )  # fmt: skip
        coarser = made
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, *ctx.rest, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], x)


def _gradients(ctx: Any, backward: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None, None


fused = operator("laplacian", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(d, levels, low_pass, edge, offset)`` of float32: sizes of the bands, (B,), and what their gradients are made of."""
