"""Triton kernels of `smoothness.smoothness_sums`: flow and image are read once forward, and no map is written.

Forward one launch and one that adds partial sums, in place of 18; backward one, which makes the weights of a pixel's four
neighbours anew from the image. Limit: bytes; of a patch the launches.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: ANN001, ANN202
# Triton reads annotations of kernels itself and knows its own only.

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
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _weight(image, channels, of_channel, step, row, column, height, width, down, right):
    """exp(-d) between pixels and those `down` or `right` of them; 0 where one of the two is outside."""
    inside = (row >= 0) & (column >= 0) & (row + down < height) & (column + right < width)
    at, other = (row * width + column) * step, ((row + down) * width + column + right) * step
    total = tl.zeros(row.shape, tl.float32)
    for _ in range(channels):
        total += tl.abs(tl.load(image + other, mask=inside, other=0.0) - tl.load(image + at, mask=inside, other=0.0))
        image += of_channel
    return tl.where(inside, tl.exp(-total / channels), 0.0)


@triton.jit
def _sums(
    flow, image, partial, flows, of_flow, of_flow_channel, flow_step, channels, of_image, of_channel, step,
    height, width, blocks, PIXELS: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    # Rows below the last one have no neighbours, and weights of 0.
    row, column = at // width, at % width
    image += sample * of_image
    flow += sample * of_flow
    across = _weight(image, channels, of_channel, step, row, column, height, width, 0, 1)
    along = _weight(image, channels, of_channel, step, row, column, height, width, 1, 0)
    changes, falls = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
    for _ in range(flows):
        here = tl.load(flow + at * flow_step, mask=row < height, other=0.0)
        right = tl.load(flow + (at + 1) * flow_step, mask=(row < height) & (column + 1 < width), other=0.0)
        below = tl.load(flow + (at + width) * flow_step, mask=row + 1 < height, other=0.0)
        changes += across * tl.abs(right - here)
        falls += along * tl.abs(below - here)
        flow += of_flow_channel
    where = partial + (sample * blocks + tl.program_id(0) % blocks) * 2
    tl.store(where, tl.sum(changes, 0))
    tl.store(where + 1, tl.sum(falls, 0))


@triton.jit
def _slopes(
    grad, flow, image, of_x, flows, of_flow, of_flow_channel, flow_step, channels, of_image, of_channel, step,
    height, width, blocks, PIXELS: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    row, column = at // width, at % width
    image += sample * of_image
    flow += sample * of_flow
    of_x += sample * of_flow
    across, along = tl.load(grad + 2 * sample), tl.load(grad + 2 * sample + 1)
    to_right = across * _weight(image, channels, of_channel, step, row, column, height, width, 0, 1)
    to_left = across * _weight(image, channels, of_channel, step, row, column - 1, height, width, 0, 1)
    to_below = along * _weight(image, channels, of_channel, step, row, column, height, width, 1, 0)
    to_above = along * _weight(image, channels, of_channel, step, row - 1, column, height, width, 1, 0)
    for _ in range(flows):
        here = tl.load(flow + at * flow_step, mask=row < height, other=0.0)
        right = tl.load(flow + (at + 1) * flow_step, mask=(row < height) & (column + 1 < width), other=0.0)
        left = tl.load(flow + (at - 1) * flow_step, mask=(row < height) & (column > 0), other=0.0)
        below = tl.load(flow + (at + width) * flow_step, mask=row + 1 < height, other=0.0)
        above = tl.load(flow + (at - width) * flow_step, mask=(row < height) & (row > 0), other=0.0)
        slope = to_left * _sign(here - left) - to_right * _sign(right - here)
        slope += to_above * _sign(here - above) - to_below * _sign(below - here)
        tl.store(of_x + at * flow_step, slope, mask=row < height)
        flow += of_flow_channel
        of_x += of_flow_channel


def _blocks(flow: Tensor) -> int:
    return int(triton.cdiv(flow.shape[2] * flow.shape[3], tile(PIXELS)))


def _fake(flow: Tensor, image: Tensor) -> Tensor:
    return flow.new_empty(len(flow), 2)


def _run(flow: Tensor, image: Tensor) -> Tensor:
    flow, image, blocks = dense(flow), dense(image), _blocks(flow)
    partial = flow.new_empty(len(flow), blocks, 2)
    launch(
        _sums, (len(flow) * blocks,), flow, image, partial, *steps(flow), *steps(image), *flow.shape[2:], blocks,
        PIXELS=tile(PIXELS),
    )  # fmt: skip
    return partial.sum(1)


def _fake_backward(grad: Tensor, flow: Tensor, image: Tensor) -> Tensor:
    return torch.empty_like(flow)


def _run_backward(grad: Tensor, flow: Tensor, image: Tensor) -> Tensor:
    """The gradient of the flow, in its layout."""
    flow, image, blocks = dense(flow), dense(image), _blocks(flow)
    of_x = torch.empty_like(flow)
    launch(
        _slopes, (len(flow) * blocks,), grad.contiguous(), flow, image, of_x, *steps(flow), *steps(image), *flow.shape[2:],
        blocks, PIXELS=tile(PIXELS),
    )  # fmt: skip
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor, None]:
    return backward(grad, *ctx.saved_tensors), None


fused = operator("smoothness", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(flow, image)`` of float32: sums of weighted absolute differences across and along, (B, 2)."""
