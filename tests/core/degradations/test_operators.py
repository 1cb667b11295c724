"""Kernels, filters and JPEG against the original implementation, OpenCV and slow direct formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import fft

from relume.core.degradations import kernels
from relume.core.degradations.draws import Draws
from relume.core.degradations.filters import USMSharp, filter2D, usm_sharp
from relume.core.degradations.jpeg import LUMINANCE, DiffJPEG
from relume.core.errors import UserError

Golden = Callable[[str], Path]


def cases(golden: Golden, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = torch.load(golden(f"adversarial/{name}.pt"), weights_only=True)["cases"]
    return found


# ------------------------------------------------------------------ kernels
def test_kernels_equal_the_originals(golden: Golden) -> None:
    for case in cases(golden, "kernels"):
        kernel = getattr(kernels, case["function"])(**case["config"])
        assert np.abs(kernel - case["kernel"].numpy()).max() <= case["atol"], case["name"]


def test_a_turned_gaussian_is_the_density_that_scipy_computes() -> None:
    from scipy.stats import multivariate_normal

    theta, sigmas = 0.6, np.array([2.5, 1.2])
    turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    density = multivariate_normal([0, 0], turn @ np.diag(sigmas**2) @ turn.T).pdf(kernels.mesh_grid(15))
    ours = kernels.bivariate_Gaussian(15, *sigmas, theta, isotropic=False)
    assert np.allclose(ours, density / density.sum(), atol=1e-12)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UserError, match="odd"):
        kernels.bivariate_Gaussian(8, 1, 1, 0)
    with pytest.raises(UserError, match="odd"):
        filter2D(torch.rand(1, 3, 16, 16), torch.rand(1, 4, 4))


def test_half_of_the_plateaus_have_a_beta_of_one_with_the_public_range() -> None:
    """Part of the distribution that the public weights were trained on."""
    options = {"kernel_size": 7, "sigma_x_range": (1, 1), "betap_range": (1, 2)}
    plain = kernels.bivariate_plateau(7, 1, 1, 0, 1)
    drawn = [kernels.random_mixed_kernels(["plateau_iso"], [1], **options, draws=Draws(i)) for i in range(400)]
    assert sum(np.allclose(k, plain, atol=1e-15) for k in drawn) == pytest.approx(200, abs=40)


def test_types_of_kernels_come_as_often_as_their_weights_say() -> None:
    """Isotropic kernels equal their transpose; turned ones do not."""
    drawn = [
        kernels.random_mixed_kernels(["iso", "aniso"], [0.3, 0.7], 7, (0.5, 3), (0.5, 3), draws=Draws(i))
        for i in range(500)
    ]
    assert sum(np.allclose(k, k[::-1], atol=1e-9) and np.allclose(k, k.T, atol=1e-9) for k in drawn) == pytest.approx(
        150, abs=40
    )


def test_noise_on_a_kernel_keeps_its_sum() -> None:
    options: dict[str, Any] = {"kernel_list": ["iso"], "kernel_prob": [1], "kernel_size": 9, "draws": Draws(5)}
    plain, noisy = (kernels.random_mixed_kernels(**options, noise_range=r) for r in (None, (0.5, 1.5)))
    assert noisy.sum() == pytest.approx(1)
    assert np.abs(noisy / plain - 1).max() > 0.2


# ------------------------------------------------------------------ filters
def test_filter2d_equals_the_original_in_value_and_gradient(golden: Golden) -> None:
    for case in cases(golden, "filter2d"):
        image, kernel = case["inputs"]
        for layout in (torch.contiguous_format, torch.channels_last):
            x = image.clone(memory_format=layout).requires_grad_()
            output = filter2D(x, kernel)
            (gradient,) = torch.autograd.grad((output * case["cotangent"]).sum(), x)
            assert (output - case["output"]).abs().max() <= case["rtol"] * case["output"].abs().max()
            assert (gradient - case["input_grad"]).abs().max() <= 10 * case["rtol"] * case["input_grad"].abs().max()


def test_filter2d_is_opencvs() -> None:
    image, kernel = np.random.RandomState(0).rand(20, 31, 3).astype(np.float32), np.random.RandomState(1).rand(9, 9)
    ours = filter2D(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(kernel[None]).float())
    assert np.allclose(ours[0].permute(1, 2, 0).numpy(), cv2.filter2D(image, -1, kernel), atol=1e-4)


def test_filter2d_takes_images_smaller_than_the_kernel() -> None:
    image = torch.full((1, 3, 5, 8), 0.25)
    assert torch.allclose(filter2D(image, torch.full((1, 21, 21), 1 / 441)), image)


def test_usm_equals_the_original(golden: Golden) -> None:
    for case in cases(golden, "usm"):
        difference = (USMSharp(**case["config"])(case["input"], **case["call"]) - case["output"]).abs()
        assert difference.max() <= 1e-4
        assert difference.median() <= case["atol"]
        if "numpy_bgr_output" in case:
            bgr = np.ascontiguousarray(case["input"][0].numpy()[::-1].transpose(1, 2, 0))
            assert np.abs(usm_sharp(bgr, **case["call"]) - case["numpy_bgr_output"].numpy()).max() <= 1e-4


def test_usm_stays_in_float32_under_autocast() -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        sharpened = USMSharp()(image)
    assert torch.equal(sharpened, USMSharp()(image))


# ------------------------------------------------------------------ JPEG
def test_jpeg_equals_the_original_in_value_and_gradient(golden: Golden) -> None:
    for case in cases(golden, "diffjpeg"):
        x = case["input"].clone().requires_grad_("cotangent" in case)
        output = DiffJPEG(case["differentiable"])(x, case["quality"])
        far = ((output - case["output"]).abs() > case["atol"]).float().mean()
        assert far <= max(case["may_differ"], 256 / output[0, 0].numel() * 1.01 if case["may_differ"] else 0)
        if "cotangent" in case:
            (gradient,) = torch.autograd.grad((output * case["cotangent"]).sum(), x)
            assert (gradient - case["input_grad"]).abs().max() <= case["grad_rtol"] * case["input_grad"].abs().max()


def test_a_gray_block_is_coded_as_the_standard_says_it() -> None:
    """One 16 x 16 image by SciPy's DCT: four blocks of luminance, no chroma."""
    gray = np.random.RandomState(0).randint(0, 256, (16, 16)).astype(np.float64)
    steps = np.clip(np.floor(np.array(LUMINANCE) * 0.5 + 0.5), 1, 255)  # quality 75
    expected = np.zeros_like(gray)
    for i in (0, 8):
        for j in (0, 8):
            block = np.round(fft.dctn(gray[i : i + 8, j : j + 8] - 128, norm="ortho") / steps) * steps
            expected[i : i + 8, j : j + 8] = fft.idctn(block, norm="ortho") + 128
    image = torch.from_numpy(gray / 255).float().expand(1, 3, 16, 16)
    ours = DiffJPEG(False, "standard")(image, 75)
    assert np.abs(ours[0].numpy() * 255 - np.clip(expected, 0, 255)).max() < 0.02


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_the_standard_table_is_nearer_to_libjpeg_on_vertical_stripes(quality: int) -> None:
    stripes = (127 + 100 * np.sin(np.arange(64) * 1.9))[None, :, None] * np.ones((64, 1, 3))
    pixels = np.round(stripes).astype(np.uint8)
    real = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    error = {
        table: np.abs(DiffJPEG(False, table)(image, quality)[0].permute(1, 2, 0).numpy() * 255 - real).mean()
        for table in ("basicsr", "standard")
    }
    assert error["standard"] < 0.6
    assert error["standard"] < error["basicsr"]


def test_jpeg_of_quality_100_is_finite_and_keeps_its_argument() -> None:
    quality = torch.tensor([100.0, 50.0])
    image = torch.rand(2, 3, 32, 32)
    output = DiffJPEG()(image, quality)
    assert torch.isfinite(output).all()
    assert quality.tolist() == [100.0, 50.0]
    smooth = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert (DiffJPEG()(smooth, 100) - smooth).abs().max() < 2 / 255
    assert not list(DiffJPEG().parameters())
    assert not DiffJPEG().state_dict()


@pytest.mark.parametrize("quality", [0, 101, float("nan")])
def test_other_qualities_are_refused(quality: float) -> None:
    with pytest.raises(UserError, match="from 1 to 100"):
        DiffJPEG()(torch.rand(1, 3, 16, 16), quality)
