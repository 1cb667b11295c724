"""PSNR against the originals' values, against the formula written out, and against a few fixed numbers."""

import math

import numpy as np
import pytest
import torch

from relume.core.metrics import calculate_metric

RAMP = (np.arange(12 * 13 * 3).reshape(12, 13, 3) * 7 % 256).astype(np.uint8)
NOISY = np.clip(RAMP.astype(int) + np.arange(12 * 13 * 3).reshape(12, 13, 3) % 11 - 5, 0, 255).astype(np.uint8)


def score(kind, img, img2, **options):
    return calculate_metric({"img": img, "img2": img2}, {"type": f"calculate_{kind}", **options})


def basicsr_case(key):
    kind, border, luma = key.split("|")
    return kind, {"crop_border": int(border.removeprefix("cb=")), "test_y_channel": luma == "y=True"}


@pytest.mark.parametrize("family", ["psnr", "ssim"])
def test_basicsr(golden, family):
    case = torch.load(golden("hdr/metrics.pt"), weights_only=True)
    arrays = case["input"]["out_bgr8"].numpy(), case["input"]["gt_bgr8"].numpy()
    tensors = case["input"]["out"].clamp(0, 1).permute(2, 0, 1), case["input"]["gt"].permute(2, 0, 1)
    keys = [key for key in case["output"] if "|" in key and key.startswith(family)]
    assert len(keys) == 8
    for key in keys:
        kind, options = basicsr_case(key)
        images = tensors if kind.endswith("_pt") else arrays
        assert score(kind, *images, **options) == pytest.approx(float(case["output"][key]), abs=1e-6), key


def test_the_underwater_literature(golden):
    case = torch.load(golden("underwater/metrics.pt"), weights_only=True)
    floats = case["pred_chw"], case["target_chw"]
    assert score("psnr", *floats) == pytest.approx(case["psnr_unclipped"], abs=1e-6)
    assert score("psnr_skimage", *floats, clip=False) == pytest.approx(case["psnr_unclipped"], abs=1e-6)
    assert score("psnr_skimage", *floats) == pytest.approx(case["psnr_clipped"], abs=1e-6)
    bytes_ = case["pred_u8_hwc"].numpy(), case["target_u8_hwc"].numpy()
    assert score("psnr_funie", *bytes_, gray=False) == pytest.approx(case["funie_psnr_u8"], abs=1e-9)


def test_formula():
    error = sum((int(a) - int(b)) ** 2 for a, b in zip(NOISY.flat, RAMP.flat, strict=True)) / RAMP.size
    assert score("psnr", NOISY, RAMP) == pytest.approx(20 * math.log10(255 / math.sqrt(error)), abs=1e-12)


def test_formula_on_luma():
    def y(bgr):
        b, g, r = (float(c) / 255 for c in bgr)
        return 65.481 * r + 128.553 * g + 24.966 * b + 16

    pixels = zip(NOISY.reshape(-1, 3), RAMP.reshape(-1, 3), strict=True)
    errors = [(y(a) - y(b)) ** 2 for a, b in pixels]
    expected = 20 * math.log10(255 / math.sqrt(sum(errors) / len(errors)))
    # BasicSR rounds luma to float32, and so do we: 5e-6 dB here.
    assert score("psnr", NOISY, RAMP, test_y_channel=True) == pytest.approx(expected, abs=2e-5)


def test_funie_gray_is_pils():
    image = pytest.importorskip("PIL.Image")
    gray = [np.asarray(image.fromarray(x).convert("L")) for x in (NOISY, RAMP)]
    assert score("psnr_funie", NOISY, RAMP, color_order="rgb") == pytest.approx(score("psnr", *gray), abs=1e-12)


def test_fingerprints():
    assert score("psnr", NOISY, RAMP) == pytest.approx(38.246472, abs=1e-6)
    assert score("psnr", NOISY, RAMP, test_y_channel=True, crop_border=2) == pytest.approx(41.137999, abs=1e-6)
    assert score("psnr_funie", NOISY, RAMP) == pytest.approx(39.967541, abs=1e-6)


def test_identical_images():
    assert score("psnr", RAMP, RAMP) == score("psnr_skimage", RAMP, RAMP) == math.inf
    assert score("psnr", RAMP, RAMP, test_y_channel=True) == math.inf
    assert score("psnr_pt", RAMP, RAMP) == pytest.approx(80.0)
    assert score("psnr_funie", RAMP, RAMP) == 100.0


@pytest.mark.parametrize("kind", ["psnr", "psnr_pt", "psnr_skimage", "psnr_funie"])
def test_one_pixel_and_constant_images(kind):
    one = np.array([[[10, 20, 30]]], np.uint8)
    other = np.array([[[13, 23, 33]]], np.uint8)
    assert score(kind, one, other) == pytest.approx(20 * math.log10(255 / 3), abs=1e-2)
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert score(kind, black, white) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(score(kind, np.full((4, 4, 3), np.nan), np.zeros((4, 4, 3))))
