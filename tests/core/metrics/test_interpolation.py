"""Metrics of frame interpolation against the original scripts' numbers and slow direct formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relume.core.metrics import METRICS, calculate_metric
from relume.core.metrics.psnr import calculate_psnr


def pair(seed: int = 0, size: tuple[int, int] = (20, 17)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)
    truth = rng.rand(*size, 3)
    return np.clip(truth + 0.1 * rng.randn(*size, 3), 0, 1), truth


def score(name: str, img: np.ndarray, img2: np.ndarray) -> float:
    return calculate_metric({"img": img, "img2": img2}, {"type": name})


def test_the_original_scripts_numbers(golden):
    for case in torch.load(golden("vfi/metrics.pt"), weights_only=True)["cases"]:
        if "pred" not in case["input"]:
            continue
        truth = case["input"]["gt_uint8"][0].permute(1, 2, 0).numpy() / np.float64(255)
        pred = case["input"]["pred"][0].permute(1, 2, 0).numpy().astype(np.float64)
        rounded, expected = np.round(pred * 255) / 255, case["output"]
        assert calculate_psnr(pred, truth) == pytest.approx(expected["psnr_unrounded"], abs=1e-5)
        assert calculate_psnr(rounded, truth) == pytest.approx(expected["psnr_rounded"], abs=1e-5)
        assert score("ssim_matlab", pred, truth) == pytest.approx(expected["ssim_matlab"], abs=2e-6)
        assert score("ssim_matlab", rounded, truth) == pytest.approx(expected["ssim_matlab_rounded"], abs=2e-6)
        assert score("ie", rounded, truth) == pytest.approx(expected["ie_mae_rounded"], abs=1e-6)
        assert score("ie_rms", pred, truth) == pytest.approx(expected["ie_rms"], abs=1e-5)
        assert score("psnr", rounded, truth) == pytest.approx(expected["xiph_psnr"], abs=1e-5)
        assert score("ssim_skimage", rounded, truth) == pytest.approx(expected["xiph_ssim"], abs=1e-6)


def test_ssim_matlab_is_a_volume_filter():
    """Against torch's 3-D convolution with the window written out."""
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None, None] for image in pair())
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    window = (line[:, None, None] * line[None, :, None] * line[None, None, :])[None, None]

    def smooth(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv3d(torch.nn.functional.pad(z, (5,) * 6, mode="replicate"), window)

    mx, my = smooth(x), smooth(y)
    xx, yy, xy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    direct = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    assert score("ssim_matlab", *pair()) == pytest.approx(float(direct.mean()), abs=1e-12)


def test_errors_in_grey_levels():
    x, y = pair(1)
    assert score("ie", x, y) == pytest.approx(255 * np.abs(x - y).mean())
    assert score("ie_rms", x, y) == pytest.approx(255 * np.sqrt(np.square(x - y).mean()))
    assert score("ie", y, y) == 0 == score("ie_rms", y, y)


def test_fingerprint():
    x, y = pair()
    assert score("ssim_matlab", x, y) == pytest.approx(0.950657, abs=2e-6)
    assert METRICS.get("ie").better == "lower" == METRICS.get("ie_rms").better
