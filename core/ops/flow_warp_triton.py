"""Triton kernels of `flow_warp.flow_warp`: no grid is made, and gradients repeat bit for bit.

Forward one launch in place of eight. Backward one that gathers the flow's gradient and adds up the image's, each share rounded
to a whole multiple of a power of two: sums of whole numbers do not depend on their order, as those of atomic additions of
floats do. The step is that of a sample's largest gradient over 2^(60 - log2 of its pixels), 2^-40 of it at a million, so that
64 bits never overflow. With the search for the largest and the way back to floats four launches and a buffer of 8 bytes an
element; one where the image needs no gradient. Limit: bytes, 4 (bilinear) or 16 (bicubic) reads of neighbours, mostly cached.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile
from .planes import dense, steps

TILE, CHANNELS = 512, 16
"""Elements of a program's tile, and channels at most."""
ELEMENTS = 1024
"""Elements of a program that goes through a map."""


@triton.jit
def _weight(t, k, BICUBIC: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Of the k-th neighbour on a line, t beyond the last one that is not after the place; and its slope by t."""
    if BICUBIC:  # Keys' convolution with a = -0.75, as in PyTorch
        d = tl.abs(t + 1.0 - k)
        near = d <= 1.0
        weight = tl.where(near, (1.25 * d - 2.25) * d * d + 1.0, ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0)
        slope = tl.where(near, (3.75 * d - 4.5) * d, (-2.25 * d + 7.5) * d - 6.0)
        slope = tl.where(k < 2, slope, -slope)
    else:
        weight = 1.0 - tl.abs(t - k)
        slope = t * 0 + (2.0 * k - 1.0)
    return weight, slope


@triton.jit
def _place(  # type: ignore[no-untyped-def]  # noqa: ANN202
    at, moved, line, size, span, factor, offset, here,  # noqa: ANN001
    LINES: tl.constexpr, BICUBIC: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """Along one axis: the last pixel that is not after the place, the distance from it, and the place's slope by the flow.

    Rounded as the grid of the plain form is, and as `grid_sample` goes on from it: at whole places, as of a flow of zero, the
    gradient of the flow depends on the side that rounding is to.
    """
    if LINES:
        grid = tl.load(line + at, mask=here, other=0.0) + tl.div_rn(moved, tl.zeros_like(moved) + span * 0.5)
    else:
        grid = tl.div_rn(2.0 * (at.to(tl.float32) + moved), tl.zeros_like(moved) + span) - 1.0
    place = (grid + 1.0) * factor + offset
    slope = tl.zeros_like(place) + 2.0 * factor / span
    known = place == place
    if BORDER and not BICUBIC:
        slope = tl.where((place > 0) & (place < size - 1), slope, 0.0)
        bounded = tl.minimum(tl.maximum(place, 0.0), (size - 1).to(tl.float32))
    else:  # beyond, all neighbours are outside
        bounded = tl.minimum(tl.maximum(place, -4.0), (size + 3).to(tl.float32))
    bounded = tl.where(known, bounded, 0.0)
    first = tl.floor(bounded)
    # What is no number stays none, as a weight.
    return first.to(tl.int32), tl.where(known, bounded - first, place), slope


@triton.jit
def _places(  # type: ignore[no-untyped-def]  # noqa: ANN202
    moved, flow_pair, row, column, here, height, width, across_line, down_line,  # noqa: ANN001
    span_x, factor_x, offset_x, span_y, factor_y, offset_y,  # noqa: ANN001
    LINES: tl.constexpr, BICUBIC: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """`_place` along both axes, of pixels that the flow at `moved` displaces: first across, then down."""
    right = tl.load(moved, mask=here, other=0.0).to(tl.float32)
    down = tl.load(moved + flow_pair, mask=here, other=0.0).to(tl.float32)
    left, across, slope_x = _place(
        column, right, across_line, width, span_x, factor_x, offset_x, here, LINES, BICUBIC, BORDER
    )
    top, along, slope_y = _place(row, down, down_line, height, span_y, factor_y, offset_y, here, LINES, BICUBIC, BORDER)
    return left, across, slope_x, top, along, slope_y


@triton.jit
def _neighbour(  # type: ignore[no-untyped-def]  # noqa: ANN202
    first, size, k, BICUBIC: tl.constexpr, BORDER: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """The k-th one's number along an axis, and whether it is a pixel."""
    number = first + k - (1 if BICUBIC else 0)
    inside = (number >= 0) & (number < size)
    if BORDER and BICUBIC:
        number = tl.minimum(tl.maximum(number, 0), size - 1)
        inside = number >= 0
    return number, inside


@triton.jit
def _warp(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, flow, y, channels, of_sample, of_channel, step, height, width, blocks,  # noqa: ANN001
    flow_sample, flow_row, flow_column, flow_pair, across_line, down_line,  # noqa: ANN001
    span_x, factor_x, offset_x, span_y, factor_y, offset_y,  # noqa: ANN001
    LINES: tl.constexpr, BICUBIC: tl.constexpr, BORDER: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    x += sample * of_sample
    y += sample * of_sample
    here = at < height * width
    row, column = at // width, at % width
    TAPS: tl.constexpr = 4 if BICUBIC else 2
    moved = flow + sample * flow_sample + row * flow_row + column * flow_column
    # Where each pixel looks: its first neighbour, and the fractions between them.
    left, across, _, top, along, _ = _places(
        moved, flow_pair, row, column, here, height, width, across_line, down_line,
        span_x, factor_x, offset_x, span_y, factor_y, offset_y, LINES, BICUBIC, BORDER,
    )  # fmt: skip
    # Each channel: the weighted sum of the neighbours.
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        planes = channel[None, :] * of_channel
        there = here[:, None] & (channel < channels)[None, :]
        total = tl.zeros((PIXELS, CHANNELS), tl.float32)
        for k in range(TAPS * TAPS):
            r, r_inside = _neighbour(top, height, k // TAPS, BICUBIC, BORDER)
            c, c_inside = _neighbour(left, width, k % TAPS, BICUBIC, BORDER)
            w_row, _ = _weight(along, k // TAPS, BICUBIC)
            w_column, _ = _weight(across, k % TAPS, BICUBIC)
            where = x + planes + ((r * width + c) * step)[:, None]
            value = tl.load(where, mask=there & (r_inside & c_inside)[:, None], other=0.0).to(tl.float32)
            total += (w_row * w_column)[:, None] * value
        tl.store(y + planes + (at * step)[:, None], total.to(y.dtype.element_ty), mask=there)


@triton.jit
def _power(k):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """2^k, k from -126 to 127, exactly."""
    return ((k + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exponents(largest, room):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Two that together make the largest number, by its bits, at most 2^room."""
    exponent = room - ((largest >> 23) - 126)
    return exponent // 2, exponent - exponent // 2


@triton.jit
def _largest(grad, found, elements, blocks, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Of absolute values, by their bits, in which NaN is larger than all."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    g = tl.abs(tl.load(grad + sample * elements + at, mask=at < elements, other=0.0).to(tl.float32))
    tl.atomic_max(found + sample, tl.max(g.to(tl.int32, bitcast=True), 0))


@triton.jit
def _warp_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, x, flow, largest, sums, of_flow, channels, of_sample, of_channel, step, height, width, blocks,  # noqa: ANN001
    flow_sample, flow_row, flow_column, flow_pair, across_line, down_line,  # noqa: ANN001
    span_x, factor_x, offset_x, span_y, factor_y, offset_y,  # noqa: ANN001
    room,  # noqa: ANN001
    LINES: tl.constexpr, BICUBIC: tl.constexpr, BORDER: tl.constexpr, OF_X: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    x += sample * of_sample
    grad += sample * of_sample
    sums += sample * of_sample
    here = at < height * width
    row, column = at // width, at % width
    TAPS: tl.constexpr = 4 if BICUBIC else 2
    moved = flow + sample * flow_sample + row * flow_row + column * flow_column
    # Where each pixel looks: its first neighbour, and the fractions between them.
    left, across, slope_x, top, along, slope_y = _places(
        moved, flow_pair, row, column, here, height, width, across_line, down_line,
        span_x, factor_x, offset_x, span_y, factor_y, offset_y, LINES, BICUBIC, BORDER,
    )  # fmt: skip
    of_right = tl.zeros((PIXELS,), tl.float32)
    of_down = of_right
    if OF_X:
        half, other = _exponents(tl.load(largest + sample), room)
        half, other = _power(half), _power(other)
    # Each channel: what moves with the flow, and what each neighbour gets, as integers, whose sum has no order.
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        planes = channel[None, :] * of_channel
        there = here[:, None] & (channel < channels)[None, :]
        g = tl.load(grad + planes + (at * step)[:, None], mask=there, other=0.0).to(tl.float32)
        for k in range(TAPS * TAPS):
            r, r_inside = _neighbour(top, height, k // TAPS, BICUBIC, BORDER)
            c, c_inside = _neighbour(left, width, k % TAPS, BICUBIC, BORDER)
            w_row, d_row = _weight(along, k // TAPS, BICUBIC)
            w_column, d_column = _weight(across, k % TAPS, BICUBIC)
            inside = there & (r_inside & c_inside)[:, None]
            where = planes + ((r * width + c) * step)[:, None]
            both = tl.sum(g * tl.load(x + where, mask=inside, other=0.0).to(tl.float32), 1)
            of_right += both * w_row * d_column
            of_down += both * d_row * w_column
            if OF_X:
                share = g * (w_row * w_column)[:, None] * half * other
                share = tl.where(share == share, tl.floor(share + 0.5), 0.0)
                tl.atomic_add(sums + where, share.to(tl.int64), mask=inside, sem="relaxed")
    # The gradient of the flow.
    own = of_flow + (sample * height * width + at) * 2
    tl.store(own, (of_right * slope_x).to(of_flow.dtype.element_ty), mask=here)
    tl.store(own + 1, (of_down * slope_y).to(of_flow.dtype.element_ty), mask=here)


@triton.jit
def _settled(  # type: ignore[no-untyped-def]  # noqa: ANN202
    sums, largest, of_x, elements, blocks, room, ELEMENTS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """Floats again; not a number where a gradient was none."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    here = at < elements
    bits = tl.load(largest + sample)
    half, other = _exponents(bits, room)
    value = tl.load(sums + sample * elements + at, mask=here, other=0).to(tl.float32) * _power(-half) * _power(-other)
    value = tl.where(bits < 0x7F800000, value, float("nan"))
    tl.store(of_x + sample * elements + at, value.to(of_x.dtype.element_ty), mask=here)


def _axes(x: Tensor, aligned: bool) -> list[float]:
    """Across and down: what a flow is divided by, twice that of the grid; and how the grid becomes a place."""
    found: list[float] = []
    for size in (x.shape[3], x.shape[2]):
        found += [max(size - 1, 1), *((size - 1) / 2, 0.0)] if aligned else [max(size - 1, 1), size / 2, -0.5]
    return [float(number) for number in found]


def _lines(x: Tensor, across: Tensor | None, down: Tensor | None) -> tuple[Tensor, Tensor]:
    return x if across is None else across, x if down is None else down


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    """Programs for a sample's pixels, pixels and channels that one holds, and programs for a sample's elements."""
    held = block(x.shape[1], 1, CHANNELS)
    pixels = tile(TILE // held)
    return triton.cdiv(x.shape[2] * x.shape[3], pixels), pixels, held, triton.cdiv(x[:1].numel(), tile(ELEMENTS))


def _fake(
    x: Tensor, flow: Tensor, across: Tensor | None, down: Tensor | None, bicubic: bool, border: bool, aligned: bool
) -> Tensor:
    return torch.empty_like(x)


def _run(
    x: Tensor, flow: Tensor, across: Tensor | None, down: Tensor | None, bicubic: bool, border: bool, aligned: bool
) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    blocks, pixels, held, _ = _sizes(x)
    launch(
        _warp, (x.shape[0] * blocks,), x, flow, y, *steps(x), x.shape[2], x.shape[3], blocks, *flow.stride(),
        *_lines(x, across, down), *_axes(x, aligned), LINES=across is not None, BICUBIC=bicubic, BORDER=border,
        PIXELS=pixels, CHANNELS=held,
    )  # fmt: skip
    return y


def _fake_backward(
    grad: Tensor, x: Tensor, flow: Tensor, across: Tensor | None, down: Tensor | None, bicubic: bool, border: bool,
    aligned: bool, of_image: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x) if of_image else x.new_empty(0), flow.new_empty(flow.shape)


def _run_backward(
    grad: Tensor, x: Tensor, flow: Tensor, across: Tensor | None, down: Tensor | None, bicubic: bool, border: bool,
    aligned: bool, of_image: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of x and of the flow."""
    x = dense(x)
    of_x, of_flow = _fake_backward(grad, x, flow, across, down, bicubic, border, aligned, of_image)
    grad = grad if grad.stride() == x.stride() else torch.empty_like(x, dtype=grad.dtype).copy_(grad)
    blocks, pixels, held, pieces = _sizes(x)
    samples, elements = x.shape[0], x[:1].numel()
    room = 60 - max(x.shape[2] * x.shape[3] - 1, 1).bit_length()
    sums = torch.zeros_like(x, dtype=torch.int64) if of_image else of_x
    largest = torch.zeros(samples, dtype=torch.int32, device=x.device) if of_image else of_x
    if of_image:
        launch(_largest, (samples * pieces,), grad, largest, elements, pieces, ELEMENTS=tile(ELEMENTS))
    launch(
        _warp_backward, (samples * blocks,), grad, x, flow, largest, sums, of_flow, *steps(x), x.shape[2], x.shape[3],
        blocks, *flow.stride(), *_lines(x, across, down), *_axes(x, aligned), room, LINES=across is not None,
        BICUBIC=bicubic, BORDER=border, OF_X=of_image, PIXELS=pixels, CHANNELS=held,
    )  # fmt: skip
    if of_image:
        launch(_settled, (samples * pieces,), sums, largest, of_x, elements, pieces, room, ELEMENTS=tile(ELEMENTS))
    return of_x, of_flow


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:]


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_image = ctx.needs_input_grad[0]
    of_x, of_flow = backward(grad, *ctx.saved_tensors, *ctx.rest, of_image)
    return of_x if of_image else None, of_flow if ctx.needs_input_grad[1] else None, *[None] * 5


fused = operator("flow_warp", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, flow, across, down, bicubic, border, aligned)``: x (N, C, H, W) at every pixel plus flow (N, H, W, 2).

`across` (W) and `down` (H) are the grid where nothing moves, or None for pixels that are added to the flow first.
"""
