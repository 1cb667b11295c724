"""Triton kernels of gated attention in shifted windows, from the image and into it: no roll, no partition, no mask in memory.

A program takes one window and head: its tokens are gathered by index arithmetic, scores stay in registers, and the gate is
applied at the store. Forward one launch, 4 maps moved; backward one, which computes the scores again, 8 maps. Each token
belongs to one window, so that gradients need no sums between programs. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator


@triton.jit
def _place(  # type: ignore[no-untyped-def]  # noqa: ANN202
    window, height, width, down, across, side, shift,  # noqa: ANN001
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Of a window's tokens: the pixel in the batch of images, whether it is one, and which part of the image it is from."""
    token = tl.arange(0, TOKENS)
    row = window // across % down * side + token // side
    column = window % across * side + token % side
    # What the cyclic shift brought in from the other side is apart from the rest.
    region = tl.where(row >= height - shift, 2, 0) + tl.where(column >= width - shift, 1, 0)
    pixel = (row + shift) % height * width + (column + shift) % width
    image = window // across // down
    return image * height * width + pixel, token < side * side, region


@triton.jit
def _scores(q, k, real, region, scale, apart):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    s = tl.dot(q, tl.trans(k), input_precision="tf32x3") * scale
    s += tl.where(region[:, None] == region[None, :], 0.0, apart)
    s = tl.where(real[None, :], s, -float("inf"))
    s = tl.exp(s - tl.max(s, 1)[:, None])
    return s / tl.sum(s, 1)[:, None]


@triton.jit
def _window_forward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    qkv, gate, out, height, width, down, across, side, shift, heads, size, scale, apart,  # noqa: ANN001
    TOKENS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    window, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixel, real, region = _place(window, height, width, down, across, side, shift, TOKENS)
    d = tl.arange(0, SIZE)
    mask = real[:, None] & (d < size)[None, :]
    channels = heads * size
    base = qkv + pixel[:, None] * (3 * channels) + (head * size + d)[None, :]
    q = tl.load(base, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(base + channels, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(base + 2 * channels, mask=mask, other=0.0).to(tl.float32)
    y = tl.dot(_scores(q, k, real, region, scale, apart), v, input_precision="tf32x3")
    g = tl.sigmoid(tl.load(gate + pixel * heads + head, mask=real, other=0.0).to(tl.float32))
    where = pixel[:, None] * channels + (head * size + d)[None, :]
    tl.store(out + where, (y * g[:, None]).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _window_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, qkv, gate, of_qkv, of_gate, height, width, down, across, side, shift, heads, size, scale, apart,  # noqa: ANN001
    TOKENS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    window, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixel, real, region = _place(window, height, width, down, across, side, shift, TOKENS)
    d = tl.arange(0, SIZE)
    mask = real[:, None] & (d < size)[None, :]
    channels = heads * size
    # Queries and keys are loaded for the scores and again for their gradients: held in between they are more than registers.
    three = pixel[:, None] * (3 * channels) + (head * size + d)[None, :]
    q = tl.load(qkv + three, mask=mask, other=0.0).to(tl.float32)
    k = tl.load(qkv + three + channels, mask=mask, other=0.0).to(tl.float32)
    p = tl.where(real[:, None], _scores(q, k, real, region, scale, apart), 0.0)
    g = tl.sigmoid(tl.load(gate + pixel * heads + head, mask=real, other=0.0).to(tl.float32))
    d_y = tl.load(grad + pixel[:, None] * channels + (head * size + d)[None, :], mask=mask, other=0.0).to(tl.float32)
    d_v = tl.dot(tl.trans(p), d_y * g[:, None], input_precision="tf32x3")
    tl.store(of_qkv + three + 2 * channels, d_v.to(of_qkv.dtype.element_ty), mask=mask)
    v = tl.load(qkv + three + 2 * channels, mask=mask, other=0.0).to(tl.float32)
    d_p = tl.dot(d_y, tl.trans(v), input_precision="tf32x3")
    # The gate's gradient is that of its result times the result, which is p v: both are in these sums.
    of_g = tl.sum(p * d_p, 1)
    tl.store(of_gate + pixel * heads + head, (of_g * g * (1 - g)).to(of_gate.dtype.element_ty), mask=real)
    d_s = p * (d_p - of_g[:, None]) * (g * scale)[:, None]
    k = tl.load(qkv + three + channels, mask=mask, other=0.0).to(tl.float32)
    d_q = tl.dot(d_s, k, input_precision="tf32x3")
    tl.store(of_qkv + three, d_q.to(of_qkv.dtype.element_ty), mask=mask)
    q = tl.load(qkv + three, mask=mask, other=0.0).to(tl.float32)
    d_k = tl.dot(tl.trans(d_s), q, input_precision="tf32x3")
    tl.store(of_qkv + three + channels, d_k.to(of_qkv.dtype.element_ty), mask=mask)


def _sizes(qkv: Tensor, heads: int, side: int, shift: int, scale: float, apart: float) -> tuple[Any, ...]:
    """Grid, what both kernels are told of the image, and the sizes of tiles."""
    batch, height, width, channels = qkv.shape
    down, across = height // side, width // side
    size = channels // 3 // heads
    tiles = {"TOKENS": block(side * side), "SIZE": block(size)}
    return (batch * down * across, heads), (height, width, down, across, side, shift, heads, size, scale, apart), tiles


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
