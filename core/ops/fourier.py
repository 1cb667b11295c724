"""Spectral operations of the underwater networks, on half spectra, with gradients that stay finite at empty bins.

Images arrive pixel-major (B, H, W, C; see `pixelwise`), spectra are planes (B, C, H, W). A half spectrum (W // 2 + 1 columns)
holds every frequency of a real plane once, up to conjugation: sums over the full spectrum count its columns twice, except
its `edges`. Everything here runs in float32 (or float64) whatever autocast says: complex halves do not exist, and sums over
a whole image do not fit float16.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import real_fourier
from .precision import at_least_float32
from .real_fourier import Norm

ADJOINT: dict[str, Norm] = {"backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The adjoint of a forward transform is the inverse one under this norm, and the other way round."""

EMPTY = 1e-30
"""A bin whose squared magnitude is below this counts as zero: phase 0, no gradient. (|z|^2 itself would soon underflow.)"""


def _planes(x: Tensor) -> Tensor:
    """Pixel-major (B, H, W, C) -> planes (B, C, H, W), contiguous. Only where gradients are not recorded."""
    if x.device.type != "cpu":
        return x.permute(0, 3, 1, 2).contiguous()
    b, h, w, c = x.shape
    y = x.new_empty(b, c, h * w)
    for target, source in zip(y, x.reshape(b, h * w, c), strict=True):
        target.copy_(source.t())  # on CPUs the transposed copy of a matrix is blocked, that of a 4-D tensor is not
    return y.view(b, c, h, w)


def _inverse(f: Tensor, width: int, norm: Norm) -> Tensor:
    """irfft2, which on CPUs would first copy its argument."""
    result: Tensor = torch.fft.irfft(torch.fft.ifft(f, dim=-2, norm=norm), n=width, dim=-1, norm=norm)
    return result


def edges(half: Tensor, width: int) -> Tensor:
    """The columns of a half spectrum (..., H, width // 2 + 1) that are their own mirror images: 0, and width / 2 if whole."""
    return half[..., :: width // 2] if width % 2 == 0 else half[..., :1]


# ------------------------------------------------------------------------- a perceptron on every frequency
def spectral_mixing(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    real_part: bool = False,
    norm: Norm = "ortho",
) -> Tensor:
    """``irfft2(W2 gelu(W1 z + b1) + b2)``, z the spectrum's real and imaginary parts stacked on the channels.

    Args:
        x: pixel-major (B, H, W, C).
        weight1, bias1: (M, K), (M) or None, with K = 2C (all real parts first), or C with `real_part`.
        weight2, bias2: (L, M), (L) or None, with L twice the output channels, or as many with `real_part`.
        real_part: use the real part of the spectrum only, and return a spectrum without imaginary part: the result is then
            symmetric under ``n -> -n``.
        norm: of both transforms.

    Returns:
        Planes (B, C', H, W), float32 or float64.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, weight1, weight2 = (at_least_float32(t) for t in (x, weight1, weight2))
        bias1, bias2 = (None if t is None else at_least_float32(t) for t in (bias1, bias2))
        if real_fourier.wanted():
            return _spectral_mixing_by_products(x, weight1, bias1, weight2, bias2, real_part, norm)
        result: Tensor = _SpectralMixing.apply(x, weight1, bias1, weight2, bias2, real_part, norm)
        return result


def _spectral_mixing_by_products(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    real_part: bool,
    norm: Norm,
) -> Tensor:
    re, im = real_fourier.rfft2(x.permute(0, 3, 1, 2), norm)
    z = re if real_part else torch.cat([re, im], dim=1)
    out = affine(F.gelu(affine(z, weight1, bias1)), weight2, bias2)
    re, im = (out, torch.zeros_like(out)) if real_part else out.chunk(2, dim=1)
    return real_fourier.irfft2(re, im, x.shape[2], norm)


def _stacked(f: Tensor, real_part: bool) -> Tensor:
    """Complex (B, C, H, K) -> real (B, 2C or C, H, K)."""
    return f.real.contiguous() if real_part else torch.cat([f.real, f.imag], dim=1)


def _complex(z: Tensor, real_part: bool) -> Tensor:
    """Inverse of `_stacked` (with imaginary part zero)."""
    if real_part:
        return torch.complex(z, torch.zeros_like(z))
    return torch.complex(*z.chunk(2, dim=1))


def affine(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution of planes (B, C, H, W): weight (O, C), bias (O) or None."""
    # Not matmul, which would return the planes of a 2-D and a 3-D factor transposed in memory.
    y = torch.bmm(weight.expand(z.shape[0], -1, -1), z.flatten(2)).unflatten(2, z.shape[2:])
    result: Tensor = y if bias is None else y + bias[:, None, None]
    return result


def _product_over_spectrum(a: Tensor, b: Tensor, width: int) -> Tensor:
    """Sum over images and the full spectrum of ``a b^T``, from half spectra (B, A, H, K), (B, B', H, K): (A, B')."""
    once = torch.bmm(edges(a, width).flatten(2), edges(b, width).flatten(2).transpose(1, 2))
    return torch.baddbmm(once, a.flatten(2), b.flatten(2).transpose(1, 2), beta=-1, alpha=2).sum(0)


def _sum_over_spectrum(a: Tensor, width: int) -> Tensor:
    return 2 * a.sum((0, 2, 3)) - edges(a, width).sum((0, 2, 3))


class _SpectralMixing(Function):
    """Keeps z. Whoever differentiates by hand: the adjoint of irfft2 doubles the inner columns, that of rfft2 halves them.
    In between, channels mix at each frequency, so the factors cancel, save in sums over frequencies."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
        real_part: bool,
        norm: Norm,
    ) -> Tensor:
        z = _stacked(torch.fft.rfft2(_planes(x), norm=norm), real_part)
        ctx.save_for_backward(z, weight1, bias1, weight2)
        ctx.has_bias2, ctx.real_part, ctx.norm, ctx.width = bias2 is not None, real_part, norm, x.shape[2]
        out = affine(F.gelu(affine(z, weight1, bias1)), weight2, bias2)
        return _inverse(_complex(out, real_part), ctx.width, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight1, bias1, weight2 = ctx.saved_tensors
        adjoint, width = ADJOINT[ctx.norm], ctx.width
        grad_out = _stacked(torch.fft.rfft2(grad, norm=adjoint), ctx.real_part)
        hidden = affine(z, weight1, bias1)
        grad_weight2 = _product_over_spectrum(grad_out, F.gelu(hidden), width)
        grad_bias2 = _sum_over_spectrum(grad_out, width) if ctx.has_bias2 else None
        grad_hidden = torch.ops.aten.gelu_backward(affine(grad_out, weight2.t(), None), hidden)
        grad_weight1 = _product_over_spectrum(grad_hidden, z, width)
        grad_bias1 = _sum_over_spectrum(grad_hidden, width) if bias1 is not None else None
        grad_z = _complex(affine(grad_hidden, weight1.t(), None), ctx.real_part)
        grad_x = _inverse(grad_z, width, adjoint).permute(0, 2, 3, 1).contiguous()
        return grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2, None, None


# ------------------------------------------------------------------------------------ magnitude and phase
def polar_spectrum(x: Tensor, snap: bool = True) -> tuple[Tensor, Tensor]:
    """Magnitude and phase of the full spectrum (norm "backward") of real planes.

    Args:
        x: pixel-major (B, H, W, C).
        snap: give the bins that are real in theory a positive zero as imaginary part, hence a phase of 0 or +pi. Without it,
            rounding noise chooses between +pi and -pi there, except at sizes where the library's transform is exact.

    Returns:
        Two tensors (B, C, H, W), float32 or float64. Their gradients are finite everywhere, and zero at empty bins.
    """
    with torch.autocast(x.device.type, enabled=False):
        if real_fourier.wanted():
            return _polar_spectrum_by_products(at_least_float32(x), snap)
        result: tuple[Tensor, Tensor] = _PolarSpectrum.apply(at_least_float32(x), snap)
        return result


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
    def forward(ctx: Any, x: Tensor, snap: bool) -> tuple[Tensor, Tensor]:
        height, width = x.shape[1:3]
        f = torch.fft.rfft2(_planes(x))
        if snap:
            f.imag[..., _self_conjugate(height), _self_conjugate(width)] = 0.0
        magnitude = _power(f).sqrt_()
        phase = torch.atan2(f.imag, f.real)
        ctx.save_for_backward(f, magnitude)
        ctx.width = width
        return (
            torch.cat([magnitude, _mirrored(magnitude, width)], dim=-1),
            torch.cat([phase, -_mirrored(phase, width)], dim=-1),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_magnitude: Tensor, grad_phase: Tensor) -> tuple[Tensor | None, ...]:
        """dF = u (dM + i dPhi / M) with u = F / M, each half-spectrum bin also on behalf of its mirror image."""
        f, magnitude = ctx.saved_tensors
        width, kept = ctx.width, f.shape[-1]
        inner = slice(1, (width + 1) // 2)
        inverse = torch.where(magnitude.square() < EMPTY, 0.0, 1 / magnitude)
        along, across = grad_magnitude[..., :kept].clone(), grad_phase[..., :kept].clone()
        along[..., inner] += _negated_rows(grad_magnitude[..., kept:]).flip(-1)
        across[..., inner] -= _negated_rows(grad_phase[..., kept:]).flip(-1)
        grad_f = torch.complex(along, across.mul_(inverse)).mul_(f.mul(inverse))
        grad_f[..., inner] *= 0.5
        return _inverse(grad_f, width, "forward").permute(0, 2, 3, 1).contiguous(), None


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
    """
    with torch.autocast(x.device.type, enabled=False):
        if real_fourier.wanted():
            return torch.stack(_phase_by_products(at_least_float32(x)), dim=-1)
        result: Tensor = _PhaseVectors.apply(at_least_float32(x))
        return result


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
    def forward(ctx: Any, x: Tensor) -> Tensor:
        f = torch.fft.rfft2(_planes(x))
        vectors = torch.view_as_real(f)
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
        ctx.width = x.shape[2]
        return vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor]:
        """Only turning a phase changes anything: ``dF = i u <i u, grad> / |F|``."""
        vectors, factor = ctx.saved_tensors
        real, imag = vectors.unbind(-1)
        turn = (real * grad[..., 1]).addcmul_(imag, grad[..., 0], value=-1).mul_(factor)
        grad_f = torch.complex((imag * turn).neg_(), real * turn)
        return (_inverse(grad_f, ctx.width, "forward").permute(0, 2, 3, 1).contiguous(),)
