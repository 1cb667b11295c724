"""NIQE: against BasicSR's values, its parts against formulas and samples, and on images that have no statistics."""

import math

import cv2
import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric, metric_direction, needs_reference, niqe


def picture(height=300, width=310):
    """Waves and soft noise, uint8."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    noise = cv2.GaussianBlur(np.random.RandomState(3).randn(height, width, 3), (0, 0), 1.5) * 3
    waves = np.sin(x / 17) * np.cos(y / 23) + np.sin((x + y) / 9) / 2
    return np.clip(128 + 40 * waves[..., None] + 30 * noise, 0, 255).round().astype(np.uint8)


def score(image, **options):
    return calculate_metric({"img": image}, {"type": "calculate_niqe", **options})


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 7.050449473),
        ({"crop_border": 4}, 6.861903090),
        ({"crop_border": 4, "convert_to": "gray"}, 6.866088389),
    ],
)
def test_values_of_basicsr(options, value):
    assert score(picture(), **options) == pytest.approx(value, abs=3e-5)
    first_channel = picture()[..., 1]
    assert score(first_channel) == pytest.approx(8.797315755, abs=3e-5)


def test_blurring_is_seen_and_everything_agrees_about_the_image():
    image = picture()
    assert score(cv2.GaussianBlur(image, (0, 0), 2)) == pytest.approx(9.603141560, abs=1e-4)
    tensor = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) / 255
    assert score(tensor) == pytest.approx(score(image), abs=1e-3)
    assert score(image[..., ::-1], color_order="rgb") == score(image)
    assert score(image.transpose(2, 0, 1), input_order="CHW") == score(image)
    assert metric_direction("niqe") == "lower" and not needs_reference("niqe")


def test_photographs_have_about_three_and_noise_spoils_them():
    from skimage import data

    cat = data.chelsea()[..., ::-1]
    assert score(cat) == pytest.approx(2.62553641, abs=1e-4)
    noisy = cat + np.random.RandomState(0).randn(*cat.shape) * 25
    assert score(np.clip(noisy, 0, 255).astype(np.uint8)) > 6


@pytest.mark.parametrize("size", [(50, 60), (95, 400), (191, 191), (110, 110)])
def test_fewer_than_two_blocks_have_no_statistics(size):
    with pytest.raises(UserError, match=f"an image of 96x192 at least; this one has {size[0]}x{size[1]}"):
        score(picture(*size))
    with pytest.raises(UserError, match=r"this one has 92x198 \(height x width, after crop_border\)"):
        score(picture(100, 206), crop_border=4)
    assert math.isfinite(score(picture(96, 192)))


def test_flat_images_have_no_statistics():
    assert math.isnan(score(np.full((300, 300, 3), 70, np.uint8)))
    half = picture()
    half[:, :150] = 90
    assert math.isfinite(score(half)), "flat blocks are left out"


# ------------------------------------------------------------------ parts
def test_fitted_shapes_are_those_that_samples_have():
    rng = np.random.RandomState(0)
    gauss = rng.randn(200_000)
    shape, left, right = niqe.asymmetric_gaussian(gauss)
    assert shape == pytest.approx(2.0, abs=0.05)
    assert left == pytest.approx(math.sqrt(2), rel=0.02) and right == pytest.approx(math.sqrt(2), rel=0.02)
    skewed = np.where(gauss < 0, 2 * gauss, gauss)
    skewed = skewed[rng.rand(len(skewed)) < np.where(skewed < 0, 1.0, 0.5)]  # a density without a jump
    shape, left, right = niqe.asymmetric_gaussian(skewed)
    assert shape == pytest.approx(2.0, abs=0.1) and left / right == pytest.approx(2.0, rel=0.03)
    laplace = niqe.asymmetric_gaussian(rng.laplace(size=200_000))
    assert laplace[0] == pytest.approx(1.0, abs=0.05)


def test_half_size_keeps_what_is_linear_and_the_mean():
    ramp = np.add.outer(np.arange(64.0), 2 * np.arange(96.0))
    small = niqe.halved(ramp)
    assert small.shape == (32, 48)
    expected = np.add.outer(2 * np.arange(32.0) + 0.5, 2 * (2 * np.arange(48.0) + 0.5))
    assert np.allclose(small[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-3)
    checkers = np.indices((64, 64)).sum(0) % 2 * 100.0
    assert np.allclose(niqe.halved(checkers)[2:-2, 2:-2], 50, atol=1e-3), "what is too fine goes, it does not alias"


def test_blocks_are_the_images_own():
    y = picture()[..., 0].astype(np.float32)
    every = niqe.features(y)
    assert every.shape == (9, 36)
    normal = niqe.normalised(y[:288, :288])
    assert every[5, :18] == pytest.approx(niqe.block_features(normal[96:192, 192:288]))
