"""Triton kernels of gated attention in shifted windows, from the image and into it: no roll, no partition, no mask in memory.

A program takes one window (in the interpreter 8) and head: its tokens are gathered by index arithmetic, scores stay in
registers, and the gate is applied at the store. Forward one launch, 4 maps moved; backward one, which computes the scores
again, 8 maps. Each token belongs to one window, so that gradients need no sums between programs. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile

SLICE = 16
"""Channels of a head that are multiplied at once. Their number, `SIZE`, is a constant: where the compiler does not know that of
30 channels two are read at once, offsets fill the registers and spill."""


@triton.jit
def _place(  # type: ignore[no-untyped-def]  # noqa: ANN202
    windows, height, width, down, across, side, shift,  # noqa: ANN001
    TOKENS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Of a program's tokens: the pixel in the batch of images, whether it is one, and which part of the image it is from."""
    token = tl.arange(0, TOKENS)
    window = tl.program_id(0).to(tl.int64) * (TOKENS // PADDED) + token // PADDED
    token = token % PADDED
    row = window // across % down * side + token // side
    column = window % across * side + token % side
    # What the cyclic shift brought in from the other side is apart from the rest.
    region = tl.where(row >= height - shift, 2, 0) + tl.where(column >= width - shift, 1, 0)
    pixel = (row + shift) % height * width + (column + shift) % width
    image = window // across // down
    return image * height * width + pixel, (token < side * side) & (window < windows), region


@triton.jit
def _load(source, row, column, real, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Some channels of a head, for rows of the map that begin at `row`."""
    mask = real[:, None] & (column < SIZE)[None, :]
    return tl.load(source + row[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _scores(  # type: ignore[no-untyped-def]  # noqa: ANN202
    q, k, row, real, region, side, scale, apart,  # noqa: ANN001
    TOKENS: tl.constexpr, PADDED: tl.constexpr, SIZE: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    s = tl.zeros((TOKENS, TOKENS), tl.float32)
    for first in range(0, SIZE, SLICE):
        d = first + tl.arange(0, SLICE)
        keys = tl.trans(_load(k, row, d, real, SIZE))
        s += tl.dot(_load(q, row, d, real, SIZE), keys, input_precision="tf32x3")
    s = s * scale + tl.where(region[:, None] == region[None, :], 0.0, apart)
    token = tl.arange(0, TOKENS)
    s = tl.where((token % PADDED < side * side)[None, :], s, -float("inf"))
    if PADDED < TOKENS:
        s = tl.where((token // PADDED)[:, None] == (token // PADDED)[None, :], s, -float("inf"))
    s = tl.exp(s - tl.max(s, 1)[:, None])
    return s / tl.sum(s, 1)[:, None]


@triton.jit
def _window_forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    qkv, gate, out, windows, height, width, down, across, side, shift, heads, scale, apart,  # noqa: ANN001
    TOKENS: tl.constexpr, PADDED: tl.constexpr, SIZE: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    pixel, real, region = _place(windows, height, width, down, across, side, shift, TOKENS, PADDED)
    channels = heads * SIZE
    q, three, one = qkv + head * SIZE, pixel * (3 * channels), pixel * channels
    v = q + 2 * channels
    p = _scores(q, q + channels, three, real, region, side, scale, apart, TOKENS, PADDED, SIZE, SLICE)
    g = tl.sigmoid(tl.load(gate + pixel * heads + head, mask=real, other=0.0).to(tl.float32))
    for first in range(0, SIZE, SLICE):
        d = first + tl.arange(0, SLICE)
        y = tl.dot(p, _load(v, three, d, real, SIZE), input_precision="tf32x3") * g[:, None]
        where = out + head * SIZE + one[:, None] + d[None, :]
        tl.store(where, y.to(out.dtype.element_ty), mask=real[:, None] & (d < SIZE)[None, :])


@triton.jit
def _window_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, qkv, gate, of_qkv, of_gate, windows, height, width, down, across, side, shift, heads, scale, apart,  # noqa: ANN001
    TOKENS: tl.constexpr, PADDED: tl.constexpr, SIZE: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    pixel, real, region = _place(windows, height, width, down, across, side, shift, TOKENS, PADDED)
    channels = heads * SIZE
    # Some channels at a time: all of a wide head, in two halves of the digits each, are more than registers hold.
    q, three, of_y, one = qkv + head * SIZE, pixel * (3 * channels), grad + head * SIZE, pixel * channels
    k, v = q + channels, q + 2 * channels
    of_q = of_qkv + head * SIZE
    p = _scores(q, k, three, real, region, side, scale, apart, TOKENS, PADDED, SIZE, SLICE)
    p = tl.where(real[:, None], p, 0.0)
    g = tl.sigmoid(tl.load(gate + pixel * heads + head, mask=real, other=0.0).to(tl.float32))
    d_p = tl.zeros((TOKENS, TOKENS), tl.float32)
    for first in range(0, SIZE, SLICE):
        d = first + tl.arange(0, SLICE)
        mask = real[:, None] & (d < SIZE)[None, :]
        d_y = _load(of_y, one, d, real, SIZE)
        d_v = tl.dot(tl.trans(p), d_y * g[:, None], input_precision="tf32x3")
        tl.store(of_q + 2 * channels + three[:, None] + d[None, :], d_v.to(of_qkv.dtype.element_ty), mask=mask)
        d_p += tl.dot(d_y, tl.trans(_load(v, three, d, real, SIZE)), input_precision="tf32x3")
    # The gate's gradient is that of its result times the result, which is p v: both are in these sums.
    of_g = tl.sum(p * d_p, 1)
    tl.store(of_gate + pixel * heads + head, (of_g * g * (1 - g)).to(of_gate.dtype.element_ty), mask=real)
    d_s = p * (d_p - of_g[:, None]) * (g * scale)[:, None]
    for first in range(0, SIZE, SLICE):
        d = first + tl.arange(0, SLICE)
        mask = real[:, None] & (d < SIZE)[None, :]
        where = of_q + three[:, None] + d[None, :]
        d_q = tl.dot(d_s, _load(k, three, d, real, SIZE), input_precision="tf32x3")
        tl.store(where, d_q.to(of_qkv.dtype.element_ty), mask=mask)
        d_k = tl.dot(tl.trans(d_s), _load(q, three, d, real, SIZE), input_precision="tf32x3")
        tl.store(where + channels, d_k.to(of_qkv.dtype.element_ty), mask=mask)


def _sizes(qkv: Tensor, heads: int, side: int, shift: int, scale: float, apart: float) -> tuple[Any, ...]:
    """Grid, what both kernels are told of the image, and the sizes of tiles."""
    batch, height, width, channels = qkv.shape
    down, across = height // side, width // side
    size, windows, padded = channels // 3 // heads, batch * down * across, block(side * side)
    together = block(windows, least=1, most=max(tile(1) // 4, 1))  # 8 in the interpreter
    tiles = {"TOKENS": together * padded, "PADDED": padded, "SIZE": size, "SLICE": min(tile(SLICE), block(size))}
    numbers = (windows, height, width, down, across, side, shift, heads, scale, apart)
    return (triton.cdiv(windows, together), heads), numbers, tiles


def _fake(qkv: Tensor, gate: Tensor, side: int, shift: int, scale: float, apart: float) -> Tensor:
    return torch.empty((*qkv.shape[:3], qkv.shape[3] // 3), device=qkv.device, dtype=qkv.dtype)


def _run(qkv: Tensor, gate: Tensor, side: int, shift: int, scale: float, apart: float) -> Tensor:
    out = _fake(qkv, gate, side, shift, scale, apart)
    grid, image, tiles = _sizes(qkv, gate.shape[3], side, shift, scale, apart)
    launch(_window_forward, grid, qkv.contiguous(), gate.contiguous(), out, *image, **tiles)
    return out


def _fake_backward(
    grad: Tensor, qkv: Tensor, gate: Tensor, side: int, shift: int, scale: float, apart: float
) -> tuple[Tensor, Tensor]:
    of_qkv = torch.empty(qkv.shape, device=qkv.device, dtype=qkv.dtype)
    return of_qkv, torch.empty(gate.shape, device=gate.device, dtype=gate.dtype)


def _run_backward(
    grad: Tensor, qkv: Tensor, gate: Tensor, side: int, shift: int, scale: float, apart: float
) -> tuple[Tensor, Tensor]:
    of_qkv, of_gate = _fake_backward(grad, qkv, gate, side, shift, scale, apart)
    grid, image, tiles = _sizes(qkv, gate.shape[3], side, shift, scale, apart)
    tensors = (grad.contiguous(), qkv.contiguous(), gate.contiguous(), of_qkv, of_gate)
    launch(_window_backward, grid, *tensors, *image, **tiles, warps=8)
    return of_qkv, of_gate


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *backward(grad, *ctx.saved_tensors, *ctx.rest), None, None, None, None


fused = operator("window_attention", _run, _fake, _run_backward, _fake_backward, _setup, _gradients, lowered=True)
"""``fused(qkv, gate, side, shift, scale, apart)``: see `core.ops.window_attention`."""
