"""A perceptron on every frequency of an image: two 1 x 1 convolutions of its spectrum with GELU between them."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import real_fourier
from .dispatch import device_obstacle, use_kernel
from .fourier import ADJOINT, affine, edges, inverse_transform, planes
from .precision import at_least_float32
from .real_fourier import Norm
from .self_test import case
from .shapes import check_devices, check_shapes

WIDEST = 256
"""Most channels of the result, or of the image, that the fused kernels take."""


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
        norm: normalisation of both transforms.

    Returns:
        Planes (B, C', H, W), float32 or float64.

    Raises:
        UserError: shapes or devices do not go together, or kernels are forced on and cannot run.
    """
    inner, share = weight1.shape[0], 1 if real_part else 2
    check_shapes(
        "spectral_mixing",
        f"x {tuple(x.shape)}",
        weight1=(weight1, (inner, share * x.shape[-1])),
        bias1=(bias1, (inner,)),
        weight2=(weight2, (weight2.shape[0], inner)),
        bias2=(bias2, (weight2.shape[0],)),
    )
    check_devices("spectral_mixing", x=x, weight1=weight1, bias1=bias1, weight2=weight2, bias2=bias2)
    with torch.autocast(x.device.type, enabled=False):
        x, weight1, weight2 = (at_least_float32(t) for t in (x, weight1, weight2))
        bias1, bias2 = (None if t is None else at_least_float32(t) for t in (bias1, bias2))
        if real_fourier.wanted():
            return _spectral_mixing_by_products(x, weight1, bias1, weight2, bias2, real_part, norm)
        named = {"x": x, "weight1": weight1, "bias1": bias1, "weight2": weight2, "bias2": bias2}
        fused = use_kernel("spectral_mixing", functools.partial(_obstacle, x, weight2, real_part, named), x)
        result: Tensor = _SpectralMixing.apply(x, weight1, bias1, weight2, bias2, real_part, norm, fused)
        return result


def _sized(side: int, c: int) -> tuple[tuple[int, ...], ...]:
    return (1, side, side, c), (2 * c, 2 * c), (2 * c,), (2 * c, 2 * c), (2 * c,)


@case("spectral_mixing", (1, 6, 5, 4), (12, 8), (12,), (8, 12), (8,), sized=_sized)
def _case(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    return spectral_mixing(x - 0.6, weight1 - 0.6, bias1 - 0.6, weight2 - 0.6, bias2 - 0.6)


def _obstacle(x: Tensor, weight2: Tensor, real_part: bool, named: dict[str, Tensor | None]) -> str | None:
    """Why the fused kernels cannot run, or None."""
    widest = max(x.shape[-1], weight2.shape[0] // (1 if real_part else 2))
    if widest > WIDEST:
        return f"it takes up to {WIDEST} channels, there are {widest}"
    largest = 2 * widest * x.shape[1] * (x.shape[2] // 2 + 1)  # offsets within an image have 32 bits
    if largest >= 2**31:
        return f"it takes spectra of less than 2^31 numbers an image, these have {largest}"
    return device_obstacle("spectral_mixing", **named)


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


def _product_over_spectrum(a: Tensor, b: Tensor, width: int) -> Tensor:
    """Sum over images and the full spectrum of ``a b^T``, from half spectra (B, A, H, K), (B, B', H, K): (A, B')."""
    once = torch.bmm(edges(a, width).flatten(2), edges(b, width).flatten(2).transpose(1, 2))
    return torch.baddbmm(once, a.flatten(2), b.flatten(2).transpose(1, 2), beta=-1, alpha=2).sum(0)


def _sum_over_spectrum(a: Tensor, width: int) -> Tensor:
    return 2 * a.sum((0, 2, 3)) - edges(a, width).sum((0, 2, 3))


class _SpectralMixing(Function):
    """Keeps z. To differentiate by hand: the adjoint of irfft2 doubles the inner columns, that of rfft2 halves them.
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
        fused: bool,
    ) -> Tensor:
        ctx.has_bias2, ctx.real_part, ctx.norm, ctx.width = bias2 is not None, real_part, norm, x.shape[2]
        ctx.fused = fused
        f = torch.fft.rfft2(planes(x), norm=norm)
        if fused:
            from .spectral_mixing_triton import mix

            ctx.save_for_backward(f, weight1, bias1, weight2)
            mixed = mix(torch.view_as_real(f), weight1, bias1, weight2, bias2)
            return inverse_transform(torch.view_as_complex(mixed), ctx.width, norm)
        z = _stacked(f, real_part)
        ctx.save_for_backward(z, weight1, bias1, weight2)
        out = affine(F.gelu(affine(z, weight1, bias1)), weight2, bias2)
        return inverse_transform(_complex(out, real_part), ctx.width, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight1, bias1, weight2 = ctx.saved_tensors
        adjoint, width = ADJOINT[ctx.norm], ctx.width
        grad_f = torch.fft.rfft2(grad, norm=adjoint)
        if ctx.fused:
            return *_fused_backward(grad_f, z, weight1, bias1, weight2, ctx), None, None, None
        grad_out = _stacked(grad_f, ctx.real_part)
        hidden = affine(z, weight1, bias1)
        grad_weight2 = _product_over_spectrum(grad_out, F.gelu(hidden), width)
        grad_bias2 = _sum_over_spectrum(grad_out, width) if ctx.has_bias2 else None
        grad_hidden = torch.ops.aten.gelu_backward(affine(grad_out, weight2.t(), None), hidden)
        grad_weight1 = _product_over_spectrum(grad_hidden, z, width)
        grad_bias1 = _sum_over_spectrum(grad_hidden, width) if bias1 is not None else None
        grad_z = _complex(affine(grad_hidden, weight1.t(), None), ctx.real_part)
        grad_x = inverse_transform(grad_z, width, adjoint).permute(0, 2, 3, 1).contiguous()
        return grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2, None, None, None


def _fused_backward(
    grad_f: Tensor, f: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, ctx: Any
) -> tuple[Tensor | None, ...]:
    """What `_SpectralMixing` does, from complex spectra: sums over frequencies are products with maps that kernels scaled."""
    from .spectral_mixing_triton import mix_backward

    pairs = torch.view_as_real(grad_f), torch.view_as_real(f)
    of_f, gate, of_hidden = mix_backward(*pairs, weight1, bias1, weight2, ctx.width)
    of_pixels = inverse_transform(torch.view_as_complex(of_f), ctx.width, ADJOINT[ctx.norm]).permute(0, 2, 3, 1)
    out, z = _stacked(grad_f, ctx.real_part).flatten(2), _stacked(f, ctx.real_part).flatten(2)
    of_weight1 = torch.bmm(of_hidden.flatten(2), z.transpose(1, 2)).sum(0)
    of_weight2 = torch.bmm(out, gate.flatten(2).transpose(1, 2)).sum(0)
    of_bias1 = of_hidden.sum((0, 2, 3)) if bias1 is not None else None
    of_bias2 = _sum_over_spectrum(out.unflatten(2, f.shape[2:]), ctx.width) if ctx.has_bias2 else None
    return of_pixels.contiguous(), of_weight1, of_bias1, of_weight2, of_bias2
