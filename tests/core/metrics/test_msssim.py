"""MS-SSIM against the package that defines it here, at any size, and its limits."""

import math

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric


def images(height, width, strength=20.0):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    clean = 128 + 90 * np.sin(0.31 * y + 0.4 * c) * np.cos(0.17 * x)
    distorted = clean + strength * np.sin(2.1 * x + 1.3 * y + c)
    return np.clip(np.rint([distorted, clean]), 0, 255).astype(np.uint8)


def score(pair, **options):
    return calculate_metric({"img": pair[0], "img2": pair[1]}, {"type": "calculate_msssim", **options})


@pytest.mark.parametrize("size", [(161, 161), (176, 192), (165, 203)])
def test_equals_pytorch_msssim(size):
    package = pytest.importorskip("pytorch_msssim")
    pair = images(*size)
    x, y = (torch.from_numpy(p.astype(np.float64)).permute(2, 0, 1)[None] for p in pair)
    expected = float(package.ms_ssim(x, y, data_range=255))
    for engine in ("auto", "own"):
        assert score(pair, engine=engine) == pytest.approx(expected, abs=1e-12)
    tensors = [(t / 255).float() for t in (x, y)]
    assert score(tensors) == pytest.approx(score(pair), abs=1e-6)


def test_golden(golden, recipe):
    make = recipe("underwater/golden_recipe.py")
    case = torch.load(golden("underwater/loss_msssim.pt"), weights_only=True)
    shape, number = case["shape11"], case["seed"]
    clean = make.smooth_image("mt", shape, number)
    noisy = clean + make.normal("mn", shape, number, 0.1)
    expected = 1 - case["one_minus_msssim_win11"]["value"]
    assert score((noisy, clean)) == pytest.approx(expected, abs=1e-6)


def test_one_scale_is_ssim():
    pair = images(40, 33)
    ssim = calculate_metric({"img": pair[0], "img2": pair[1]}, {"type": "ssim"})
    assert score(pair, scales=1) == pytest.approx(ssim, abs=1e-3)  # the mean of channels of means: the same here
    assert score((pair[1], pair[1]), scales=2) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("scales", "smallest"), [(1, 11), (2, 21), (3, 41), (4, 81), (5, 161)])
def test_smallest_images(scales, smallest):
    assert 0 < score(images(smallest, smallest), scales=scales) < 1
    message = rf"{scales} scales need {smallest} pixels a side, the image has {smallest - 1}\." + (
        rf" Set scales: {scales - 1}" if scales > 1 else "$"
    )
    with pytest.raises(UserError, match=message):
        score(images(smallest - 1, 200), scales=scales)


def test_luma_and_order():
    pair = images(48, 48)
    assert score(pair, scales=2, test_y_channel=True) != pytest.approx(score(pair, scales=2), abs=1e-6)
    rgb = score(pair, scales=2, test_y_channel=True, color_order="rgb")
    assert rgb == score([p[..., ::-1] for p in pair], scales=2, test_y_channel=True)


def test_negative_factors_count_as_zero():
    _, clean = images(48, 48)
    assert score((255 - clean, clean), scales=2) == 0.0
    flat = np.full((161, 161, 3), 90, np.uint8)
    assert score((flat, flat)) == pytest.approx(1.0)
    assert math.isfinite(score((flat, flat * 0)))


def test_fingerprint():
    assert score(images(170, 164)) == pytest.approx(0.986650, abs=1e-6)
