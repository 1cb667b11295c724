"""core/ops/fourier.py: equal to the full complex formulas at every kind of size, and finite where those are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from filling import waves
from torch import Tensor
from torch.autograd import gradcheck

from relume.core.ops.fourier import phase_only, phase_vectors, polar_spectrum
from relume.core.ops.spectral_mixing import spectral_mixing

SIZES = [(4, 6), (5, 7), (3, 2), (4, 1), (1, 1)]


def map_of(name: str, height: int, width: int, channels: int = 3) -> Tensor:
    return waves(name, (2, height, width, channels)).requires_grad_()


def full_mixing(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, norm: str, real_part: bool) -> Tensor:
    """`spectral_mixing` as published: for the real part on the full spectrum, else on the half one."""
    image = x.permute(0, 3, 1, 2)

    def conv(z: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", w, z) + b[:, None, None]

    if real_part:
        f = torch.fft.fft2(image, norm=norm).real
        return torch.fft.ifft2(conv(F.gelu(conv(f, w1, b1)), w2, b2), norm=norm).real
    f = torch.fft.rfft2(image, norm=norm)
    real, imag = conv(F.gelu(conv(torch.cat([f.real, f.imag], 1), w1, b1)), w2, b2).chunk(2, 1)
    return torch.fft.irfft2(torch.complex(real, imag), s=image.shape[-2:], norm=norm)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("real_part", [False, True])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
def test_spectral_mixing(size: tuple[int, int], real_part: bool, norm: str) -> None:
    x = map_of("x", *size)
    k = 3 if real_part else 6
    shapes = [(4, k), (4,), (k, 4), (k,)]
    arguments = [waves(f"p{i}", s).requires_grad_() for i, s in enumerate(shapes)]
    y = spectral_mixing(x, *arguments, real_part=real_part, norm=norm)
    torch.testing.assert_close(y, full_mixing(x, *arguments, norm, real_part))
    assert gradcheck(lambda *a: spectral_mixing(*a, real_part=real_part, norm=norm), (x, *arguments))


def test_spectral_mixing_without_biases() -> None:
    x, w1, w2 = map_of("x", 4, 5), waves("a", (4, 6)).requires_grad_(), waves("b", (6, 4)).requires_grad_()
    zero1, zero2 = torch.zeros(4, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    torch.testing.assert_close(
        spectral_mixing(x, w1, None, w2, None), full_mixing(x, w1, zero1, w2, zero2, "ortho", False)
    )
    assert gradcheck(lambda *a: spectral_mixing(a[0], a[1], None, a[2], None), (x, w1, w2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("snap", [True, False])
def test_polar_spectrum(size: tuple[int, int], snap: bool) -> None:
    x = map_of("x", *size)
    magnitude, phase = polar_spectrum(x, snap)
    torch.testing.assert_close(torch.polar(magnitude, phase), torch.fft.fft2(x.permute(0, 3, 1, 2)))
    assert gradcheck(lambda t: polar_spectrum(t, snap), x)


@pytest.mark.parametrize("size", [(6, 10), (5, 6), (7, 9), (8, 8)])
def test_bins_that_are_real_have_phase_zero_or_plus_pi(size: tuple[int, int]) -> None:
    phase = polar_spectrum(map_of("x", *size, 16).float())[1]
    rows, columns = ([0, n // 2] if n % 2 == 0 else [0] for n in size)
    found = phase[..., rows, :][..., columns]
    assert set(found.flatten().tolist()) == {0.0, torch.tensor(torch.pi).item()}


def test_small_spectra_have_finite_gradients() -> None:
    for scale in (1e-20, 1e-12, 0.0):
        x = (map_of("x", 6, 8).float() * scale).detach().requires_grad_()
        magnitude, phase = polar_spectrum(x)
        (magnitude.sum() + phase.square().sum() + phase_vectors(x).square().sum()).backward()
        assert torch.isfinite(x.grad).all(), scale


@pytest.mark.parametrize("size", SIZES)
def test_phase_vectors_compare_phase_only_images(size: tuple[int, int]) -> None:
    x = map_of("x", *size)
    image = x.permute(0, 3, 1, 2)
    f = torch.fft.fft2(image)
    expected = torch.fft.ifft2(f / f.abs()).real
    torch.testing.assert_close(phase_only(image), expected)
    v, e = phase_vectors(x).flatten(2), expected.flatten(2)
    torch.testing.assert_close(v @ v.transpose(1, 2), e @ e.transpose(1, 2))
    torch.testing.assert_close(v.norm(dim=2), torch.ones(2, 3, dtype=torch.float64))
    assert gradcheck(phase_vectors, x)


def test_an_empty_plane_has_phase_zero() -> None:
    black = torch.zeros(1, 1, 4, 6)
    expected = torch.zeros(1, 1, 4, 6)
    expected[..., 0, 0] = 1.0
    torch.testing.assert_close(phase_only(black), expected)


def test_phase_only_equals_the_original(golden: Callable[[str], Path], recipe: Callable[[str], ModuleType]) -> None:
    case = recipe("underwater/golden_recipe.py").load_case(golden("underwater/arch_mod_inv_mag.pt"))
    x = case["inputs"][0].requires_grad_()
    y = phase_only(x)
    assert (y - case["outputs"][0]).abs().max() <= case["suggested_atol"]
    (y * case["cotangents"][0]).sum().backward()
    assert (x.grad - case["input_grads"][0]).abs().max() <= case["suggested_grad_atol"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    x = map_of("x", 6, 8).to(dtype)
    weights = [waves(n, (6, 6)).to(dtype) for n in "ab"]
    with torch.autocast("cpu", dtype):
        results = (spectral_mixing(x, weights[0], None, weights[1], None), *polar_spectrum(x), phase_vectors(x))
    exact = spectral_mixing(x.float(), weights[0].float(), None, weights[1].float(), None)
    torch.testing.assert_close(results[0], exact)
    assert all(r.dtype == torch.float32 for r in results)
