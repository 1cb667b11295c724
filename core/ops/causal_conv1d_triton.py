"""Triton kernels of `causal_conv1d`: the input is read once (its K shifts come from the cache), the result is written once.

One launch forward; backward one that leaves the gradient before SiLU, and partial sums of the weights' gradients, and one that
convolves it back. The input may be a slice of a wider map. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile

STEPS = 32
"""Time steps of a program's tile."""
CHANNELS = 32
"""Channels of it."""


@triton.jit
def _inputs(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, before, sample, step, channel, length, channels, stride_b, stride_l, WIDTH: tl.constexpr,  # noqa: ANN001
    HAS_BEFORE: tl.constexpr,
):  # fmt: skip
    """The inputs at `step`, which may lie before the first one or after the last one: zeros, or `before` (B, K - 1, D)."""
    known = (channel < channels)[None, :]
    there = ((step >= 0) & (step < length))[:, None] & known
    v = tl.load(x + sample * stride_b + step[:, None] * stride_l + channel[None, :], mask=there, other=0.0)
    v = v.to(tl.float32)
    if HAS_BEFORE:
        earlier = sample * (WIDTH - 1) + (step + WIDTH - 1)
        old = ((step < 0) & (step > -WIDTH))[:, None] & known
        v += tl.load(before + earlier[:, None] * channels + channel[None, :], mask=old, other=0.0).to(tl.float32)
    return v


@triton.jit
def _conv_forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, before, weight, bias, y, length, channels, stride_b, stride_l, tiles,  # noqa: ANN001
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_BEFORE: tl.constexpr, SILU: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    step = (tl.program_id(0) % tiles).to(tl.int64) * STEPS + tl.arange(0, STEPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    p = tl.zeros((STEPS, CHANNELS), tl.float32)
    if HAS_BIAS:
        p += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(WIDTH):
        w = tl.load(weight + channel * WIDTH + k, mask=known, other=0.0).to(tl.float32)
        p += w[None, :] * _inputs(
            x, before, sample, step - WIDTH + 1 + k, channel, length, channels, stride_b, stride_l, WIDTH, HAS_BEFORE
        )
    if SILU:
        p = p * tl.sigmoid(p)
    where = (sample * length + step)[:, None] * channels + channel[None, :]
    tl.store(y + where, p.to(y.dtype.element_ty), mask=(step < length)[:, None] & known[None, :])


@triton.jit
def _conv_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, before, weight, bias, inner, partial, length, channels, stride_b, stride_l, tiles,  # noqa: ANN001
    WIDTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_BEFORE: tl.constexpr, SILU: tl.constexpr,
    STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient before SiLU, and of weights and bias a sum for every program: (programs, K + 1, D)."""
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    step = (tl.program_id(0) % tiles).to(tl.int64) * STEPS + tl.arange(0, STEPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    where = (sample * length + step)[:, None] * channels + channel[None, :]
    here = (step < length)[:, None] & known[None, :]
    d = tl.load(grad + where, mask=here, other=0.0).to(tl.float32)
    # The gradient before the activation, whose argument is computed again.
    if SILU:
        p = tl.zeros((STEPS, CHANNELS), tl.float32)
        if HAS_BIAS:
            p += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        for k in tl.static_range(WIDTH):
            w = tl.load(weight + channel * WIDTH + k, mask=known, other=0.0).to(tl.float32)
            p += w[None, :] * _inputs(
                x,
                before,
                sample,
                step - WIDTH + 1 + k,
                channel,
                length,
                channels,
                stride_b,
                stride_l,
                WIDTH,
                HAS_BEFORE,
            )
        sigma = tl.sigmoid(p)
        d = d * sigma * (1 + p * (1 - sigma))
    tl.store(inner + where, d.to(inner.dtype.element_ty), mask=here)
    # Sums of this block for each tap, and for the bias.
    out = partial + tl.program_id(0).to(tl.int64) * (WIDTH + 1) * channels + channel
    for k in tl.static_range(WIDTH):
        v = _inputs(
            x, before, sample, step - WIDTH + 1 + k, channel, length, channels, stride_b, stride_l, WIDTH, HAS_BEFORE
        )
        tl.store(out + k * channels, tl.sum(d * v, 0), mask=known)
    tl.store(out + WIDTH * channels, tl.sum(d, 0), mask=known)


@triton.jit
def _conv_back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    inner, weight, grad_x, grad_before, length, channels, tiles,  # noqa: ANN001
    WIDTH: tl.constexpr, HAS_BEFORE: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``dx_t = sum_k w_k inner[t + K - 1 - k]``, for the steps before the first too where they have gradients."""
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    first = WIDTH - 1 if HAS_BEFORE else 0
    step = (tl.program_id(0) % tiles).to(tl.int64) * STEPS + tl.arange(0, STEPS) - first
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = (channel < channels)[None, :]
    total = tl.zeros((STEPS, CHANNELS), tl.float32)
    for k in tl.static_range(WIDTH):
        w = tl.load(weight + channel * WIDTH + k, mask=channel < channels, other=0.0).to(tl.float32)
        later = step + WIDTH - 1 - k
        there = ((later >= 0) & (later < length))[:, None] & known
        where = (sample * length + later)[:, None] * channels + channel[None, :]
        total += w[None, :] * tl.load(inner + where, mask=there, other=0.0)
    where = (sample * length + step)[:, None] * channels + channel[None, :]
    here = ((step >= 0) & (step < length))[:, None] & known
    tl.store(grad_x + where, total.to(grad_x.dtype.element_ty), mask=here)
    if HAS_BEFORE:
        where = (sample * (WIDTH - 1) + step + WIDTH - 1)[:, None] * channels + channel[None, :]
        tl.store(grad_before + where, total.to(grad_before.dtype.element_ty), mask=(step < 0)[:, None] & known)


def _grid(x: Tensor, extra: int = 0) -> tuple[tuple[int, int], int, dict[str, int]]:
    batch, length, channels = x.shape
    steps, width = block(length + extra, most=tile(STEPS)), block(channels, most=tile(CHANNELS))
    tiles = triton.cdiv(length + extra, steps)
    return (batch * tiles, triton.cdiv(channels, width)), tiles, {"STEPS": steps, "CHANNELS": width}


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, silu: bool) -> Tensor:
    return torch.empty(x.shape, device=x.device, dtype=x.dtype)


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, silu: bool) -> Tensor:
    x, y = _rows(x), _fake(x, weight, bias, before, silu)
    grid, tiles, sizes = _grid(x)
    launch(
        _conv_forward, grid, x, x if before is None else before.contiguous(), weight.contiguous(),
        weight if bias is None else bias.contiguous(), y, x.shape[1], x.shape[2], x.stride(0), x.stride(1), tiles,
        WIDTH=weight.shape[1], HAS_BIAS=bias is not None, HAS_BEFORE=before is not None, SILU=silu, **sizes,
    )  # fmt: skip
    return y


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_before = torch.empty((0,) if before is None else before.shape, device=x.device, dtype=x.dtype)
    of_weight = torch.empty(weight.shape, device=x.device, dtype=torch.float32)
    return torch.empty(x.shape, device=x.device, dtype=x.dtype), of_weight, of_weight.new_empty(len(weight)), of_before


def _run_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_x, _, _, of_before = _fake_backward(grad, x, weight, bias, before, silu)
    x, weight, width = _rows(x), weight.contiguous(), weight.shape[1]
    grid, tiles, sizes = _grid(x)
    inner = torch.empty(x.shape, device=x.device, dtype=torch.float32)
    partial = torch.empty(grid[0], width + 1, x.shape[2], device=x.device, dtype=torch.float32)
    launch(
        _conv_backward, grid, grad.contiguous(), x, x if before is None else before.contiguous(), weight,
        weight if bias is None else bias.contiguous(), inner, partial, x.shape[1], x.shape[2], x.stride(0), x.stride(1),
        tiles, WIDTH=width, HAS_BIAS=bias is not None, HAS_BEFORE=before is not None, SILU=silu, **sizes,
    )  # fmt: skip
    grid, tiles, sizes = _grid(x, 0 if before is None else width - 1)
    launch(
        _conv_back, grid, inner, weight, of_x, of_before, x.shape[1], x.shape[2], tiles, WIDTH=width,
        HAS_BEFORE=before is not None, **sizes,
    )  # fmt: skip
    sums = partial.sum(0)
    return of_x, sums[:width].t().contiguous(), sums[width].clone(), of_before


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.silu = inputs[4]


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    _, weight, bias, before = ctx.saved_tensors
    of_x, of_weight, of_bias, of_before = backward(grad, *ctx.saved_tensors, ctx.silu)
    return (
        of_x,
        of_weight.to(weight.dtype),
        None if bias is None else of_bias.to(bias.dtype),
        None if before is None else of_before,
        None,
    )


fused = operator("causal_conv1d", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, weight, bias, before, silu)`` of x (B, L, D), as `core.ops.causal_conv1d` has it inside."""
