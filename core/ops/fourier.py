"""Spectral operations of the underwater networks, on half spectra, with gradients that stay finite at empty bins.

Images arrive pixel-major (B, H, W, C; see `pixelwise`), spectra are planes (B, C, H, W). A half spectrum (W // 2 + 1 columns)
holds every frequency of a real plane once, up to conjugation: sums over the full spectrum count its columns twice, except
its `edges`. Everything here runs in float32 (or float64) whatever autocast says: complex halves do not exist, and sums over
a whole image do not fit float16.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from . import real_fourier
from .dispatch import device_obstacle, use_kernel
from .precision import at_least_float32
from .real_fourier import Norm
from .self_test import case

ADJOINT: dict[str, Norm] = {"backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The adjoint of a forward transform is the inverse one under this norm, and the other way round."""

EMPTY = 1e-30
"""A bin whose squared magnitude is below this counts as zero: phase 0, no gradient. (|z|^2 itself would soon underflow.)"""


def planes(x: Tensor) -> Tensor:
    """Pixel-major (B, H, W, C) -> planes (B, C, H, W), contiguous. Only where gradients are not recorded."""
    if x.device.type != "cpu":
        return x.permute(0, 3, 1, 2).contiguous()
    b, h, w, c = x.shape
    y = x.new_empty(b, c, h * w)
    for target, source in zip(y, x.reshape(b, h * w, c), strict=True):
        target.copy_(source.t())  # on CPUs the transposed copy of a matrix is blocked, that of a 4-D tensor is not
    return y.view(b, c, h, w)


def inverse_transform(f: Tensor, width: int, norm: Norm) -> Tensor:
    """irfft2, (..., H, W / 2 + 1) -> (..., H, W), which on CPUs would first copy its argument."""
    result: Tensor = torch.fft.irfft(torch.fft.ifft(f, dim=-2, norm=norm), n=width, dim=-1, norm=norm)
    return result


def _of_pixels(of_f: Tensor, width: int) -> Tensor:
    """The gradient of pixel-major (B, H, W, C) from one of its half spectrum (B, C, H, W // 2 + 1, 2), by rfft2's adjoint."""
    of_planes = inverse_transform(torch.view_as_complex(of_f), width, "forward")
    return of_planes.permute(0, 2, 3, 1).contiguous()


def edges(half: Tensor, width: int) -> Tensor:
    """The columns of a half spectrum (..., H, width // 2 + 1) that are their own mirror images: 0, and width / 2 if whole."""
    return half[..., :: width // 2] if width % 2 == 0 else half[..., :1]


def affine(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution of planes (B, C, H, W): weight (O, C), bias (O) or None."""
    # Not matmul, which would return the planes of a 2-D and a 3-D factor transposed in memory.
    y = torch.bmm(weight.expand(z.shape[0], -1, -1), z.flatten(2)).unflatten(2, z.shape[2:])
    result: Tensor = y if bias is None else y + bias[:, None, None]
    return result


def _check_map(op: str, x: Tensor) -> None:
    if x.dim() != 4:
        raise UserError(f"{op}: x must be (B, H, W, C); it is {tuple(x.shape)}")


# ------------------------------------------------------------------------------------ magnitude and phase
def polar_spectrum(x: Tensor, snap: bool = True) -> tuple[Tensor, Tensor]:
    """Magnitude and phase of the full spectrum (norm "backward") of real planes.

    Args:
        x: pixel-major (B, H, W, C).
        snap: give the bins that are real in theory a positive zero as imaginary part, hence a phase of 0 or +pi. Without it,
            rounding noise chooses between +pi and -pi there, except at sizes where the library's transform is exact.

    Returns:
        Two tensors (B, C, H, W), float32 or float64. Their gradients are finite everywhere, and zero at empty bins.

    Raises:
        UserError: `x` has another shape, or kernels are forced on and cannot run.
    """
    _check_map("polar_spectrum", x)
    with torch.autocast(x.device.type, enabled=False):
        if real_fourier.wanted():
            return _polar_spectrum_by_products(at_least_float32(x), snap)
        x = at_least_float32(x)
        fused = use_kernel("polar", functools.partial(device_obstacle, "polar", x=x), x)
        result: tuple[Tensor, Tensor] = _PolarSpectrum.apply(x, snap, fused)
        return result


@case("polar", (1, 6, 5, 3), sized=lambda side, c: ((1, side, side, c),))
def _polar_case(x: Tensor) -> Tensor:
    magnitude, phase = polar_spectrum(x)
    return magnitude * torch.cos(phase - 0.3)  # whose jumps by 2 pi are none


def _polar_spectrum_by_products(x: Tensor, snap: bool) -> tuple[Tensor, Tensor]:
    width = x.shape[2]
    re, im = real_fourier.rfft2(x.permute(0, 3, 1, 2))
    magnitude = (re.square() + im.square()).sqrt()
    phase = torch.where(magnitude == 0, 0.0, torch.atan2(im, re))
    if snap:
        real = real_fourier.self_conjugate(re.shape[-2], re.shape[-1], width, re)
        phase = torch.where(real, math.pi * (re < 0).to(re.dtype), phase)
        magnitude = torch.where(real, re.abs(), magnitude)
    return (
        torch.cat([magnitude, _mirrored(magnitude, width)], dim=-1),
        torch.cat([phase, -_mirrored(phase, width)], dim=-1),
    )


def _self_conjugate(size: int) -> slice:
    """Indices of the frequencies that are their own negative: 0, and size / 2 if whole."""
    return slice(None, None, size // 2) if size % 2 == 0 else slice(0, 1)


def _mirrored(half: Tensor, width: int) -> Tensor:
    """Columns beyond width // 2 of a full spectrum, in order, as `half` at the negated frequencies."""
    return _negated_rows(half[..., 1 : (width + 1) // 2].flip(-1))


def _power(f: Tensor) -> Tensor:
    """Squared magnitude. (``f.abs()`` is five times slower on CPUs, since it guards against overflow.)"""
    return f.real.square().addcmul_(f.imag, f.imag)


def _negated_rows(x: Tensor) -> Tensor:
    """Row i becomes row -i modulo H; its own inverse."""
    return torch.cat([x[..., :1, :], x[..., 1:, :].flip(-2)], dim=-2)


class _PolarSpectrum(Function):
    """The half spectrum decides: magnitudes are even functions of the frequency, phases odd ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, snap: bool, fused: bool) -> tuple[Tensor, Tensor]:
        height, width = x.shape[1:3]
        ctx.width, ctx.snap, ctx.fused = width, snap, fused
        f = torch.fft.rfft2(planes(x))
        if fused:
            from .polar_triton import polar

            pairs = torch.view_as_real(f)
            ctx.save_for_backward(pairs)
            both: tuple[Tensor, Tensor] = polar(pairs, width, snap, EMPTY)
            return both
        if snap:
            f.imag[..., _self_conjugate(height), _self_conjugate(width)] = 0.0
        magnitude = _power(f).sqrt_()
        phase = torch.atan2(f.imag, f.real)
        ctx.save_for_backward(f, magnitude)
        return (
            torch.cat([magnitude, _mirrored(magnitude, width)], dim=-1),
            torch.cat([phase, -_mirrored(phase, width)], dim=-1),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_magnitude: Tensor, grad_phase: Tensor) -> tuple[Tensor | None, ...]:
        """dF = u (dM + i dPhi / M) with u = F / M, each half-spectrum bin also on behalf of its mirror image."""
        if ctx.fused:
            from .polar_triton import polar_backward

            (f,) = ctx.saved_tensors
            of_f = polar_backward(grad_magnitude, grad_phase, f, ctx.width, ctx.snap, True, EMPTY)
            return _of_pixels(of_f, ctx.width), None, None
        f, magnitude = ctx.saved_tensors
        width, kept = ctx.width, f.shape[-1]
        inner = slice(1, (width + 1) // 2)
        inverse = torch.where(magnitude.square() < EMPTY, 0.0, 1 / magnitude)
        along, across = grad_magnitude[..., :kept].clone(), grad_phase[..., :kept].clone()
        along[..., inner] += _negated_rows(grad_magnitude[..., kept:]).flip(-1)
        across[..., inner] -= _negated_rows(grad_phase[..., kept:]).flip(-1)
        grad_f = torch.complex(along, across.mul_(inverse)).mul_(f.mul(inverse))
        grad_f[..., inner] *= 0.5
        return inverse_transform(grad_f, width, "forward").permute(0, 2, 3, 1).contiguous(), None, None


# --------------------------------------------------------------------------------------- phase-only images
def phase_vectors(x: Tensor) -> Tensor:
    """Unit vectors whose scalar products are those of phase-only images.

    The phase-only image of a plane p is ``ifft2(fft2(p) / |fft2(p)|)``; a bin that is zero counts as 1. Its norm is 1, and
    scalar products of two such images equal, by Parseval, those of their spectra: neither an inverse transform nor an
    angle is needed to compare them.

    Args:
        x: pixel-major (B, H, W, C).

    Returns:
        (B, C, H, W // 2 + 1, 2): the half spectrum as pairs of reals, each column scaled by the root of how often the full
        spectrum holds it. Gradients are finite everywhere, and zero at empty bins.

    Raises:
        UserError: `x` has another shape, or kernels are forced on and cannot run.
    """
    _check_map("phase_vectors", x)
    with torch.autocast(x.device.type, enabled=False):
        if real_fourier.wanted():
            return torch.stack(_phase_by_products(at_least_float32(x)), dim=-1)
        x = at_least_float32(x)
        fused = use_kernel("phase", functools.partial(device_obstacle, "phase", x=x), x)
        result: Tensor = _PhaseVectors.apply(x, fused)
        return result


@case("phase", (1, 6, 5, 3), sized=lambda side, c: ((1, side, side, c),))
def _phase_case(x: Tensor) -> Tensor:
    return phase_vectors(x)


def _phase_by_products(x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = x.shape[1:3]
    re, im = real_fourier.rfft2(x.permute(0, 3, 1, 2))
    power = re.square() + im.square()
    empty = power < EMPTY
    scale = real_fourier.occurrences(re.shape[-1], width, re)
    scale = (scale / real_fourier.number(height * width, re)).sqrt()
    factor = torch.where(empty, 1.0, power).rsqrt() * scale
    return torch.where(empty, scale, re * factor), torch.where(empty, 0.0, im * factor)


def phase_only(x: Tensor) -> Tensor:
    """The phase-only image ``ifft2(exp(i angle(fft2(x))))`` of real planes (B, C, H, W); float32 or float64."""
    vectors = phase_vectors(x.permute(0, 2, 3, 1))
    with torch.autocast(x.device.type, enabled=False):
        if real_fourier.wanted():
            re, im = (v / real_fourier.occurrences(v.shape[-1], x.shape[-1], v).sqrt() for v in vectors.unbind(-1))
            return real_fourier.irfft2(re, im, x.shape[-1], "ortho")
        unit = torch.view_as_complex(vectors) / _column_scale(vectors, x.shape[-1])
        result: Tensor = torch.fft.irfft2(unit, s=x.shape[-2:])
        return result


def _column_scale(vectors: Tensor, width: int) -> Tensor:
    """(W // 2 + 1): root of (count in the full spectrum / number of pixels), for the columns of (B, C, H, W // 2 + 1, 2)."""
    height, columns = vectors.shape[2:4]
    scale = vectors.new_full((columns,), math.sqrt(2 / (height * width)))
    edges(scale, width).mul_(math.sqrt(0.5))
    return scale


class _PhaseVectors(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fused: bool) -> Tensor:
        f = torch.fft.rfft2(planes(x))
        ctx.width, ctx.fused = x.shape[2], fused
        vectors = torch.view_as_real(f)
        if fused:
            from .phase_triton import unit

            both: tuple[Tensor, Tensor] = unit(vectors, ctx.width, EMPTY)
            ctx.save_for_backward(*both)
            return both[0]
        scale = _column_scale(vectors, x.shape[2])
        inverse = _power(f)
        empty = inverse < EMPTY
        inverse.rsqrt_().masked_fill_(empty, 0.0)
        factor = inverse * scale
        for part in vectors.unbind(-1):
            part.mul_(factor)
        vectors[..., 0] += empty * scale
        # The gradient's factor: scale / |F| for the vector, divided by the column's count for the adjoint of rfft2, and by
        # scale^2 because both factors of the turn below carry it.
        ctx.save_for_backward(vectors, inverse.div_(scale.pow(3) * (x.shape[1] * x.shape[2])))
        return vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Only turning a phase changes anything: ``dF = i u <i u, grad> / |F|``."""
        if ctx.fused:
            from .phase_triton import unit_backward

            return _of_pixels(unit_backward(grad, *ctx.saved_tensors, ctx.width, True), ctx.width), None
        vectors, factor = ctx.saved_tensors
        real, imag = vectors.unbind(-1)
        turn = (real * grad[..., 1]).addcmul_(imag, grad[..., 0], value=-1).mul_(factor)
        grad_f = torch.complex((imag * turn).neg_(), real * turn)
        return inverse_transform(grad_f, ctx.width, "forward").permute(0, 2, 3, 1).contiguous(), None
