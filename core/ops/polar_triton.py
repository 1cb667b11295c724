"""Triton kernels of `polar_spectrum` after its Fourier transform: magnitude and phase of each bin and of its mirror image.

Forward one launch: a half spectrum is read, two full maps are written, 6 floats a bin, in place of eight launches and 22.
Backward one launch: two full gradients and the half spectrum are read, 8 floats in place of 30. Limit: bytes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile

BINS = 1024
"""Bins of a program."""


@triton.jit
def _angle(y, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """atan2 of float32 to its rounding, by a polynomial on |t| <= tan(pi / 8) (Cephes' coefficients); signs of zeros count."""
    down = y.to(tl.int32, bitcast=True) < 0
    left = x.to(tl.int32, bitcast=True) < 0
    high, low = tl.maximum(tl.abs(x), tl.abs(y)), tl.minimum(tl.abs(x), tl.abs(y))
    a = tl.where(high > 0, low / tl.where(high > 0, high, 1.0), 0.0)
    far = a > 0.4142135623730951
    t = tl.where(far, (a - 1.0) / (a + 1.0), a)
    z = t * t
    p = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    r = p * z * t + t + tl.where(far, 0.7853981633974483, 0.0)
    r = tl.where(tl.abs(y) > tl.abs(x), 1.5707963267948966 - r, r)
    r = tl.where(left, 3.141592653589793 - r, r)
    r = tl.where(down, -r, r)
    return tl.where((x == x) & (y == y), r, x + y)


@triton.jit
def _bin(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f, at, here, height, width, columns, SNAP: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """Of bins of half spectra: the parts, where they are in full maps, where their mirror images are, and whether those are
    beyond the half."""
    column = at % columns
    row = at // columns % height
    plane = at // columns // height
    re = tl.load(f + 2 * at, mask=here, other=0.0)
    im = tl.load(f + 2 * at + 1, mask=here, other=0.0)
    real = ((row == 0) | (2 * row == height)) & ((column == 0) | (2 * column == width))
    if SNAP:
        im = tl.where(real, 0.0, im)
    own = (plane * height + row) * width + column
    other = (plane * height + (height - row) % height) * width + width - column
    inner = here & (column > 0) & (2 * column < width)
    return re, im, real, own, other, inner


@triton.jit
def _polar(  # type: ignore[no-untyped-def]  # noqa: ANN202
    f, magnitude, phase, bins, height, width, columns, SNAP: tl.constexpr, BINS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
    here = at < bins
    re, im, _, own, other, inner = _bin(f, at, here, height, width, columns, SNAP)
    size = tl.sqrt(re * re + im * im)
    angle = _angle(im, re)
    tl.store(magnitude + own, size, mask=here)
    tl.store(magnitude + other, size, mask=inner)
    tl.store(phase + own, angle, mask=here)
    tl.store(phase + other, -angle, mask=inner)


@triton.jit
def _polar_backward(  # type: ignore[no-untyped-def]  # noqa: ANN202
    of_magnitude, of_phase, f, of_f, bins, height, width, columns,  # noqa: ANN001
    SNAP: tl.constexpr, SHARED: tl.constexpr, EMPTY: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """``u (dM + i dPhi / M)``, with u = F / M; with SHARED over how often the full spectrum has the bin."""
    at = tl.program_id(0).to(tl.int64) * BINS + tl.arange(0, BINS)
    here = at < bins
    re, im, real, own, other, inner = _bin(f, at, here, height, width, columns, SNAP)
    power = re * re + im * im
    empty = power < EMPTY
    inverse = tl.where(empty, 0.0, tl.rsqrt(tl.where(empty, 1.0, power)))
    along = tl.load(of_magnitude + own, mask=here, other=0.0) + tl.load(of_magnitude + other, mask=inner, other=0.0)
    across = tl.load(of_phase + own, mask=here, other=0.0) - tl.load(of_phase + other, mask=inner, other=0.0)
    across = across * inverse
    if SHARED:
        inverse = inverse * tl.where(inner, 0.5, 1.0)
    d_re = (re * along - im * across) * inverse
    d_im = (im * along + re * across) * inverse
    if SNAP:
        d_im = tl.where(real, 0.0, d_im)
    tl.store(of_f + 2 * at, d_re, mask=here)
    tl.store(of_f + 2 * at + 1, d_im, mask=here)


def _sizes(f: Tensor, width: int) -> tuple[tuple[int], tuple[int, int, int, int], int]:
    """Grid; bins, height and width of planes and columns of the half; bins of a program."""
    held, bins = tile(BINS), f.numel() // 2
    return (triton.cdiv(bins, held),), (bins, f.shape[-3], width, f.shape[-2]), held


def _fake(f: Tensor, width: int, snap: bool, empty: float) -> tuple[Tensor, Tensor]:
    shape = (*f.shape[:-2], width)
    return torch.empty(shape, device=f.device), torch.empty(shape, device=f.device)


def _run(f: Tensor, width: int, snap: bool, empty: float) -> tuple[Tensor, Tensor]:
    magnitude, phase = _fake(f, width, snap, empty)
    grid, sizes, held = _sizes(f, width)
    launch(_polar, grid, f.contiguous(), magnitude, phase, *sizes, SNAP=snap, BINS=held)
    return magnitude, phase


def _fake_backward(
    of_magnitude: Tensor, of_phase: Tensor, f: Tensor, width: int, snap: bool, shared: bool, empty: float
) -> Tensor:
    return torch.empty(f.shape, device=f.device)


def _run_backward(
    of_magnitude: Tensor, of_phase: Tensor, f: Tensor, width: int, snap: bool, shared: bool, empty: float
) -> Tensor:
    of_f = _fake_backward(of_magnitude, of_phase, f, width, snap, shared, empty)
    grid, sizes, held = _sizes(f, width)
    launch(
        _polar_backward, grid, of_magnitude.contiguous(), of_phase.contiguous(), f.contiguous(), of_f, *sizes, SNAP=snap,
        SHARED=shared, EMPTY=empty, BINS=held,
    )  # fmt: skip
    return of_f


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.rest = inputs[1:]


def _gradients(ctx: Any, backward: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    (f,), (width, snap, empty) = ctx.saved_tensors, ctx.rest
    given = [f.new_zeros(*f.shape[:-2], width) if g is None else g for g in grads]
    return backward(*given, f, width, snap, False, empty), None, None, None


polar = operator("polar", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``polar(f, width, snap, empty)``: magnitude and phase (B, C, H, width) of a half spectrum (B, C, H, width // 2 + 1, 2)."""
polar_backward = torch.ops.relume.polar_backward
"""``polar_backward(of magnitude, of phase, f, width, snap, shared, empty)``; with `shared` as rfft2's adjoint takes it."""
