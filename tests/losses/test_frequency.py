"""The spectral loss against the definition of the Fourier transform."""

from __future__ import annotations

import math

import pytest
import torch

from relume.losses import build_loss


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_equals_a_sum_over_pixels(norm, images):
    h, w = 5, 6
    pred, target = images((2, 2, h, w), torch.float64)
    u, v = torch.arange(h).view(-1, 1), torch.arange(w // 2 + 1).view(-1, 1)
    rows = torch.exp(-2j * math.pi * u * torch.arange(h) / h)
    columns = torch.exp(-2j * math.pi * v * torch.arange(w) / w)
    spectra = [
        rows.to(torch.complex128) @ x.to(torch.complex128) @ columns.to(torch.complex128).T for x in (pred, target)
    ]
    scale = {"backward": 1, "ortho": math.sqrt(h * w), "forward": h * w}[norm]
    difference = (spectra[0] - spectra[1]) / scale
    expected = (difference.real.abs() + difference.imag.abs()).mean() / 2
    assert float(build_loss({"type": "FFTLoss", "norm": norm})(pred, target)) == pytest.approx(
        float(expected), rel=1e-6
    )
