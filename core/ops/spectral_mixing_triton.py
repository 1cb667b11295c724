"""Triton kernels of `spectral_mixing` between its two Fourier transforms: both 1 x 1 convolutions and GELU in one pass.

A program takes some bins of one image and all of their channels; hidden channels come in slices, of which each is finished
before the next, so that none is written. Forward one launch, which reads and writes 2 C floats a bin; in place of six and
10 C + 3 M. Backward one launch and two products: 6 C + 2 M written and read where eager takes 14 C + 9 M. Products are in
float32 throughout: behind these spectra are phases, which jump with rounding. Limit: bytes; of wide images arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block, launch, operator, tile

BINS = 32
"""Bins of a program."""
WIDE = 128
"""Most channels of the result, or of the image, that 4 warps hold without spilling registers."""
SLICE = 16
"""Channels that are multiplied at once, of the hidden ones and of those that are summed over."""


@triton.jit
def _weights(w, row, column, stride, rows, columns):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(w + row[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def _channels(f, channel, at, count, bins, part):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Real (0) or imaginary (1) parts of some channels of an image's spectrum: (channels, bins)."""
    mask = (channel < count)[:, None] & (at < bins)[None, :]
    return tl.load(f + (channel[:, None] * bins + at[None, :]) * 2 + part, mask=mask, other=0.0)


@triton.jit
def _hidden(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f, w1, b1, m, at, channels, inner, bins,  # noqa: ANN001
    COMPLEX: tl.constexpr, HAS_BIAS: tl.constexpr, BINS: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """``W1 z + b1`` of a slice of hidden channels."""
    h = tl.zeros((SLICE, BINS), tl.float32)
    stride = 2 * channels if COMPLEX else channels
    for first in range(0, channels, SLICE):
        c = first + tl.arange(0, SLICE)
        h += tl.dot(
            _weights(w1, m, c, stride, inner, channels), _channels(f, c, at, channels, bins, 0), input_precision="ieee"
        )
        if COMPLEX:
            h += tl.dot(
                _weights(w1 + channels, m, c, stride, inner, channels), _channels(f, c, at, channels, bins, 1),
                input_precision="ieee",
            )  # fmt: skip
    if HAS_BIAS:
        h += tl.load(b1 + m, mask=m < inner, other=0.0)[:, None]
    return h


@triton.jit
def _mix(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f, w1, b1, w2, b2, out, channels, inner, made, bins, blocks,  # noqa: ANN001
    COMPLEX: tl.constexpr, HAS_BIAS1: tl.constexpr, HAS_BIAS2: tl.constexpr, BINS: tl.constexpr, MADE: tl.constexpr,
    SLICE: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BINS + tl.arange(0, BINS)
    f += image * channels * bins * 2
    o = tl.arange(0, MADE)
    re = tl.zeros((MADE, BINS), tl.float32)
    im = tl.zeros((MADE, BINS), tl.float32)
    if HAS_BIAS2:
        re += tl.load(b2 + o, mask=o < made, other=0.0)[:, None]
        if COMPLEX:
            im += tl.load(b2 + made + o, mask=o < made, other=0.0)[:, None]
    for first in range(0, inner, SLICE):
        m = first + tl.arange(0, SLICE)
        h = _hidden(f, w1, b1, m, at, channels, inner, bins, COMPLEX, HAS_BIAS1, BINS, SLICE)
        g = 0.5 * h * (1 + tl.erf(h * 0.7071067811865476))
        re += tl.dot(_weights(w2, o, m, inner, made, inner), g, input_precision="ieee")
        if COMPLEX:
            im += tl.dot(_weights(w2 + made * inner, o, m, inner, made, inner), g, input_precision="ieee")
    where = out + ((image * made + o)[:, None] * bins + at[None, :]) * 2
    mask = (o < made)[:, None] & (at < bins)[None, :]
    tl.store(where, re, mask=mask)
    tl.store(where + 1, im, mask=mask)


@triton.jit
def _mix_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, f, w1, b1, w2, of_f, gate, of_hidden, channels, inner, made, bins, blocks, columns, width,  # noqa: ANN001
    COMPLEX: tl.constexpr, HAS_BIAS1: tl.constexpr, COUNTED: tl.constexpr, BINS: tl.constexpr, CHANNELS: tl.constexpr,
    SLICE: tl.constexpr,
):  # fmt: skip
    """Gradients of the spectrum and of hidden channels, and those channels after GELU; with COUNTED the latter two times how
    often the full spectrum has the bin."""
    image = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BINS + tl.arange(0, BINS)
    f += image * channels * bins * 2
    grad += image * made * bins * 2
    # Bins of a half spectrum stand for their mirror images, too.
    times = tl.zeros((BINS,), tl.float32) + 1.0
    if COUNTED:
        column = at % columns
        times = tl.where((column == 0) | (2 * column == width), 1.0, 2.0)
    k = tl.arange(0, CHANNELS)
    re = tl.zeros((CHANNELS, BINS), tl.float32)
    im = tl.zeros((CHANNELS, BINS), tl.float32)
    stride = 2 * channels if COMPLEX else channels
    # The hidden layer, a slice of its channels at a time: gradient, derivative of GELU, and the share of the input.
    for first in range(0, inner, SLICE):
        m = first + tl.arange(0, SLICE)
        h = _hidden(f, w1, b1, m, at, channels, inner, bins, COMPLEX, HAS_BIAS1, BINS, SLICE)
        d = tl.zeros((SLICE, BINS), tl.float32)
        for first_o in range(0, made, SLICE):
            o = first_o + tl.arange(0, SLICE)
            w = tl.trans(_weights(w2, o, m, inner, made, inner))
            d += tl.dot(w, _channels(grad, o, at, made, bins, 0), input_precision="ieee")
            if COMPLEX:
                w = tl.trans(_weights(w2 + made * inner, o, m, inner, made, inner))
                d += tl.dot(w, _channels(grad, o, at, made, bins, 1), input_precision="ieee")
        below = 0.5 * (1 + tl.erf(h * 0.7071067811865476))
        d = d * (below + h * tl.exp(-0.5 * h * h) * 0.3989422804014327)
        where = (image * inner + m)[:, None] * bins + at[None, :]
        mask = (m < inner)[:, None] & (at < bins)[None, :]
        tl.store(gate + where, h * below * times[None, :], mask=mask)
        tl.store(of_hidden + where, d * times[None, :], mask=mask)
        re += tl.dot(tl.trans(_weights(w1, m, k, stride, inner, channels)), d, input_precision="ieee")
        if COMPLEX:
            im += tl.dot(tl.trans(_weights(w1 + channels, m, k, stride, inner, channels)), d, input_precision="ieee")
    where = of_f + ((image * channels + k)[:, None] * bins + at[None, :]) * 2
    mask = (k < channels)[:, None] & (at < bins)[None, :]
    tl.store(where, re, mask=mask)
    tl.store(where + 1, im, mask=mask)


class _Sizes:
    """Grid, numbers that both kernels are told, and sizes of tiles."""

    def __init__(self, f: Tensor, w1: Tensor, w2: Tensor, kept: int) -> None:
        batch, self.channels, height, self.columns = f.shape[:4]
        self.complex = w1.shape[1] == 2 * self.channels
        self.made, self.bins = w2.shape[0] // (2 if self.complex else 1), height * self.columns
        wide = block(kept)
        held = max(16, min(tile(BINS), tile(2048) // wide))  # two maps of them are kept in registers
        blocks = triton.cdiv(self.bins, held)
        self.grid = (batch * blocks,)
        self.shape = (self.channels, w1.shape[0], self.made, self.bins, blocks)
        self.wide, self.warps = wide, 8 if wide > WIDE else 4
        self.held = {"BINS": block(min(held, self.bins)), "SLICE": min(tile(SLICE), block(w1.shape[0]))}


def _fake(f: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    made = w2.shape[0] // (2 if w1.shape[1] == 2 * f.shape[1] else 1)
    return torch.empty(f.shape[0], made, *f.shape[2:], device=f.device)


def _run(f: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None) -> Tensor:
    out = _fake(f, w1, b1, w2, b2)
    f, w1, w2 = f.contiguous(), w1.contiguous(), w2.contiguous()
    s = _Sizes(f, w1, w2, out.shape[1])
    biases = [w1 if b is None else b.contiguous() for b in (b1, b2)]
    launch(
        _mix, s.grid, f, w1, biases[0], w2, biases[1], out, *s.shape, COMPLEX=s.complex, HAS_BIAS1=b1 is not None,
        HAS_BIAS2=b2 is not None, MADE=s.wide, **s.held, warps=s.warps,
    )  # fmt: skip
    return out


def _fake_backward(
    grad: Tensor, f: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    gate, of_hidden = (torch.empty(len(f), w1.shape[0], *f.shape[2:4], device=f.device) for _ in range(2))
    return torch.empty(f.shape, device=f.device), gate, of_hidden


def _run_backward(
    grad: Tensor, f: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    of_f, gate, of_hidden = _fake_backward(grad, f, w1, b1, w2, width)
    grad, f, w1, w2 = grad.contiguous(), f.contiguous(), w1.contiguous(), w2.contiguous()
    s = _Sizes(f, w1, w2, f.shape[1])
    launch(
        _mix_backward, s.grid, grad, f, w1, w1 if b1 is None else b1.contiguous(), w2, of_f, gate, of_hidden, *s.shape,
        s.columns, width, COMPLEX=s.complex, HAS_BIAS1=b1 is not None, COUNTED=width > 0, CHANNELS=s.wide, **s.held,
        warps=s.warps,
    )  # fmt: skip
    return of_f, gate, of_hidden


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.has_bias2 = inputs[4] is not None


def _gradients(ctx: Any, backward: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    f, w1, b1, w2 = ctx.saved_tensors
    of_f, gate, of_hidden = backward(grad, f, w1, b1, w2, 0)

    def stacked(t: Tensor, both: bool) -> Tensor:
        return torch.cat([t[..., 0], t[..., 1]][: 1 + both], 1).flatten(2)

    both = w1.shape[1] == 2 * f.shape[1]
    out = stacked(grad, both)
    of_w1 = torch.bmm(of_hidden.flatten(2), stacked(f, both).transpose(1, 2)).sum(0)
    of_w2 = torch.bmm(out, gate.flatten(2).transpose(1, 2)).sum(0)
    of_b1 = None if b1 is None else of_hidden.sum((0, 2, 3))
    return of_f, of_w1, of_b1, of_w2, out.sum((0, 2)) if ctx.has_bias2 else None


mix = operator("spectral_mixing", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``mix(f, w1, b1, w2, b2)`` of a half spectrum (B, C, H, K, 2), by complex channels where W1 has 2 C columns, by real parts
where it has C, in which case the result's imaginary parts are 0."""
mix_backward = torch.ops.relume.spectral_mixing_backward
"""``mix_backward(grad, f, w1, b1, w2, width)``: gradients of f, and after GELU and before it the hidden channels (B, M, H, K)
and their gradients, times how often a full spectrum of that width has the bin, for width > 0."""
