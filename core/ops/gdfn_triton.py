"""Triton kernels of what lies between the two products of `gated_feed_forward`: depthwise convolutions, GELU and gate.

Forward one launch: two maps are read (their shifts come from the cache), one is written; plain PyTorch reads and writes 12 maps
in 5 launches. Backward two kinds: gradients before the convolutions, with the gate once more and partial sums of the gradients
of the taps, then each convolved back: 10 maps against 34. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile

PIXELS = 64
"""Pixels of a program's tile."""
CHANNELS = 16
"""Channels of it."""
WARPS = 8
"""Warps of a program: its threads hold four elements of a map, and up to nine shifts of each."""


@triton.jit
def _shifted(  # type: ignore[no-untyped-def]  # noqa: ANN202
    here, pixel, known, pixels, channels, height, width, down, right,  # noqa: ANN001
):  # fmt: skip
    """What lies `down` and `right` of `here`, the places of pixels; 0 outside of their image."""
    row = pixel // width % height + down
    column = pixel % width + right
    there = (pixel < pixels) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    where = here + (down * width + right) * channels
    return tl.load(where, mask=there[:, None] & known[None, :], other=0.0).to(tl.float32)


@triton.jit
def _taps(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, taps, bias, pixel, channel, pixels, channels, height, width,  # noqa: ANN001
    K: tl.constexpr, HAS_BIAS: tl.constexpr, BACK: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A depthwise K x K convolution (zero padding); backwards its transpose."""
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    known = channel < channels
    here = x + pixel[:, None] * channels + channel[None, :]
    if HAS_BIAS:
        total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    for row in range(K):  # not unrolled, else all taps are loaded at once into more than there are registers
        for column in tl.static_range(K):
            w = tl.load(taps + channel * (K * K) + row * K + column, mask=known, other=0.0).to(tl.float32)
            down, right = row - K // 2, column - K // 2
            down, right = (-down, -right) if BACK else (down, right)
            total += w[None, :] * _shifted(here, pixel, known, pixels, channels, height, width, down, right)
    return total


@triton.jit
def _gate(  # type: ignore[no-untyped-def]  # noqa: ANN202
    a, b, taps, bias, out, pixels, channels, height, width,  # noqa: ANN001
    K: tl.constexpr, HAS_BIAS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    u = _taps(a, taps, bias, pixel, channel, pixels, channels, height, width, K, HAS_BIAS, False, PIXELS, CHANNELS)
    v = _taps(
        b, taps + channels * (K * K), bias + channels, pixel, channel, pixels, channels, height, width, K, HAS_BIAS, False,
        PIXELS, CHANNELS,
    )  # fmt: skip
    h = 0.5 * u * (1 + tl.erf(u * 0.7071067811865476)) * v
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    tl.store(out + pixel[:, None] * channels + channel[None, :], h.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _gate_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, a, b, taps, bias, of_u, of_v, out, partial, pixels, channels, height, width,  # noqa: ANN001
    K: tl.constexpr, HAS_BIAS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients before the convolutions, the gate, and sums for taps and biases: (programs, K K + 1, 2 E)."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    # Both halves after their depthwise convolution, computed again.
    u = _taps(a, taps, bias, pixel, channel, pixels, channels, height, width, K, HAS_BIAS, False, PIXELS, CHANNELS)
    v = _taps(
        b, taps + channels * (K * K), bias + channels, pixel, channel, pixels, channels, height, width, K, HAS_BIAS, False,
        PIXELS, CHANNELS,
    )  # fmt: skip
    known = channel < channels
    mask = (pixel < pixels)[:, None] & known[None, :]
    where = pixel[:, None] * channels + channel[None, :]
    d = tl.load(grad + where, mask=mask, other=0.0).to(tl.float32)
    # GELU and its derivative.
    below = 0.5 * (1 + tl.erf(u * 0.7071067811865476))
    gelu = u * below
    d_u = d * v * (below + u * tl.exp(-0.5 * u * u) * 0.3989422804014327)
    d_v = d * gelu
    tl.store(out + where, (gelu * v).to(out.dtype.element_ty), mask=mask)
    tl.store(of_u + where, d_u.to(of_u.dtype.element_ty), mask=mask)
    tl.store(of_v + where, d_v.to(of_v.dtype.element_ty), mask=mask)
    # Sums of this block for each tap, and for the bias.
    base = partial + tl.program_id(0).to(tl.int64) * (K * K + 1) * 2 * channels + channel
    for row in range(K):
        for column in tl.static_range(K):
            down, right = row - K // 2, column - K // 2
            k = row * K + column
            near = _shifted(a + where, pixel, known, pixels, channels, height, width, down, right)
            tl.store(base + k * 2 * channels, tl.sum(d_u * near, 0), mask=known)
            near = _shifted(b + where, pixel, known, pixels, channels, height, width, down, right)
            tl.store(base + (k * 2 + 1) * channels, tl.sum(d_v * near, 0), mask=known)
    tl.store(base + K * K * 2 * channels, tl.sum(d_u, 0), mask=known)
    tl.store(base + (K * K * 2 + 1) * channels, tl.sum(d_v, 0), mask=known)


@triton.jit
def _depthwise_back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, taps, out, pixels, channels, height, width,  # noqa: ANN001
    K: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    d = _taps(grad, taps, taps, pixel, channel, pixels, channels, height, width, K, False, True, PIXELS, CHANNELS)
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    tl.store(out + pixel[:, None] * channels + channel[None, :], d.to(out.dtype.element_ty), mask=mask)


def _sizes(a: Tensor, kernel: Tensor) -> tuple[tuple[int, int], tuple[int, ...], dict[str, Any]]:
    """Grid, what every kernel is told of maps, and the sizes of tiles."""
    pixels, channels = a.numel() // a.shape[-1], a.shape[-1]
    held, width = min(tile(PIXELS), block(pixels)), min(tile(CHANNELS), block(channels))
    grid = (triton.cdiv(pixels, held), triton.cdiv(channels, width))
    return grid, (pixels, channels, *a.shape[1:3]), {"K": kernel.shape[-1], "PIXELS": held, "CHANNELS": width}


def _fake(a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return torch.empty(a.shape, device=a.device, dtype=a.dtype)


def _run(a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    a, b, kernel, out = a.contiguous(), b.contiguous(), kernel.contiguous(), _fake(a, b, kernel, bias)
    grid, shape, tiles = _sizes(a, kernel)
    taps = kernel if bias is None else bias.contiguous()
    launch(_gate, grid, a, b, kernel, taps, out, *shape, HAS_BIAS=bias is not None, **tiles, warps=WARPS)
    return out


def _fake_backward(
    grad: Tensor, a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_a, of_b, out = (torch.empty(a.shape, device=a.device, dtype=a.dtype) for _ in range(3))
    of_kernel = torch.empty(kernel.shape, device=a.device, dtype=kernel.dtype)
    return of_a, of_b, of_kernel, of_kernel.new_empty(kernel.shape[0]), out


def _run_backward(
    grad: Tensor, a: Tensor, b: Tensor, kernel: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of a, b, kernel and bias (2 E), and what `gelu_gate` gave."""
    grad, a, b, kernel = grad.contiguous(), a.contiguous(), b.contiguous(), kernel.contiguous()
    of_u, of_v, of_a, of_b, out = (torch.empty(a.shape, device=a.device, dtype=a.dtype) for _ in range(5))
    grid, shape, tiles = _sizes(a, kernel)
    taps, channels = kernel.shape[-1] ** 2, a.shape[-1]
    partial = torch.empty(grid[0], taps + 1, 2 * channels, device=a.device, dtype=torch.float32)
    launch(
        _gate_backward, grid, grad, a, b, kernel, kernel if bias is None else bias.contiguous(), of_u, of_v, out, partial,
        *shape, HAS_BIAS=bias is not None, **tiles, warps=WARPS,
    )  # fmt: skip
    launch(_depthwise_back, grid, of_u, kernel[:channels], of_a, *shape, **tiles, warps=WARPS)
    launch(_depthwise_back, grid, of_v, kernel[channels:], of_b, *shape, **tiles, warps=WARPS)
    sums = partial.sum(0)
    of_kernel = sums[:taps].t().reshape(kernel.shape).contiguous().to(kernel.dtype)
    return of_a, of_b, of_kernel, sums[taps].to(kernel.dtype, copy=True), out


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *of, of_bias, _ = backward(grad, *ctx.saved_tensors)
    return *of, None if ctx.saved_tensors[3] is None else of_bias


gelu_gate = operator("gdfn", _run, _fake, _run_backward, _fake_backward, _setup, _gradients, lowered=True)
"""``gelu(dw(a)) dw(b)`` of pixel-major (B, H, W, E) with the halves of `kernel` (2 E, 1, K, K) and `bias` (2 E)."""
gate_backward = torch.ops.relume.gdfn_backward
"""Gradients of a, b, kernel and bias, and what `gelu_gate` gave."""
