"""Fourier transforms by real products, against torch.fft, and the spectral operations with them, against those without."""

from __future__ import annotations

import pytest
import torch

from relume.core.ops import fourier, real_fourier
from relume.core.ops.spectral_mixing import spectral_mixing

SIZES = [(8, 8), (6, 9), (7, 10), (5, 3), (2, 2), (1, 4)]


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_transforms_are_those_of_torch(height: int, width: int, norm: real_fourier.Norm) -> None:
    torch.manual_seed(height + width)
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    re, im = real_fourier.rfft2(x, norm)
    torch.testing.assert_close(torch.complex(re, im), torch.fft.rfft2(x, norm=norm))
    re, im = torch.randn_like(re), torch.randn_like(im)  # the inverse takes spectra of no real plane as well
    wanted = torch.fft.irfft2(torch.complex(re, im), s=(height, width), norm=norm)
    torch.testing.assert_close(real_fourier.irfft2(re, im, width, norm), wanted)
    full = torch.randn(2, 1, height, width, dtype=torch.complex128)
    torch.testing.assert_close(torch.complex(*real_fourier.ifft2(full.real, full.imag)), torch.fft.ifft2(full))


def test_float32_keeps_its_precision_on_long_axes() -> None:
    x = torch.rand(1, 1, 3, 1201, generator=torch.Generator().manual_seed(0))
    wanted = torch.fft.rfft2(x.double())
    found = torch.complex(*real_fourier.rfft2(x))
    assert float((found - wanted).abs().max()) < 2e-6 * float(wanted.abs().max())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_operations_are_the_same_by_products(height: int, width: int) -> None:
    torch.manual_seed(width)
    x = torch.randn(2, height, width, 4, dtype=torch.float64)
    x[0, ..., 1] = 0  # a spectrum without anything
    x[0, ..., 2] -= 9  # a mean below zero, whose phase is +pi

    def all_of() -> list[torch.Tensor]:
        torch.manual_seed(0)
        weight, bias = (lambda *s: torch.randn(s, dtype=torch.float64)), torch.randn(6, dtype=torch.float64)
        return [
            spectral_mixing(x, weight(6, 8), bias, weight(8, 6), None),
            spectral_mixing(x, weight(6, 4), None, weight(4, 6), bias[:4], real_part=True, norm="backward"),
            *fourier.polar_spectrum(x),
            fourier.phase_vectors(x[1:]),
            fourier.phase_only(x.permute(0, 3, 1, 2)[1:]),
        ]

    expected = all_of()
    with real_fourier.real_arithmetic():
        found = all_of()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    assert not real_fourier.wanted()
