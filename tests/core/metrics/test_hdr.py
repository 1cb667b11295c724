"""HDR metrics against the original's and the published formulas' values, written-out formulas, and a few fixed numbers."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from relume.core.errors import UserError
from relume.core.imaging.transfer import Log1p
from relume.core.metrics import METRICS, calculate_metric, metric_space

HERE = ("psnr_l", "psnr_mu", "psnr_mu_ntire", "pu21_psnr", "pu21_psnr_y", "pu21_ssim")
FORK = ("pu21_psnr_fork", "pu21_psnr_y_fork", "pu21_ssim_fork", "pu21_msssim_fork")


def score(kind, img, img2, **options):
    return calculate_metric({"img": img, "img2": img2}, {"type": f"calculate_{kind}", "color_order": "rgb", **options})


def pair(h=30, w=33, seed=0):
    """Radiance in [0, 1000] and a disturbed copy that leaves the range."""
    rng = np.random.default_rng(seed)
    target = 1000 * rng.random((h, w, 3)) ** 4
    return target * rng.uniform(0.8, 1.3, target.shape) - 0.5, target


def test_the_original(golden):
    case = torch.load(golden("hdr/metrics.pt"), weights_only=True)
    log1p = Log1p()
    out, gt = (log1p.decode(case["input"][k].numpy().astype(np.float64)) for k in ("out", "gt"))
    theirs = case["pu21_metric"]
    for kind, name in (
        ("pu21_psnr_fork", "PSNR"),
        ("pu21_psnr_y_fork", "PSNRY"),
        ("pu21_ssim_fork", "SSIM"),
        ("pu21_msssim_fork", "MSSSIM"),
        ("pu21_psnr", "PSNR_official_peak256"),
        ("pu21_ssim", "SSIM_official_range256"),
    ):
        assert score(kind, out, gt) == pytest.approx(theirs[name], abs=1e-6), kind


def test_the_published_formulas(golden):
    case = torch.load(golden("hdr/metrics.pt"), weights_only=True)
    out, gt = (case["input"][k].permute(2, 0, 1) for k in ("out", "gt"))
    theirs = case["canonical_mu_law"]
    assert score("psnr_l", out, gt, peak=1.0) == pytest.approx(theirs["psnr_l"], abs=1e-5)
    assert score("psnr_mu", out, gt, peak=1.0) == pytest.approx(theirs["psnr_mu"], abs=1e-5)
    assert score("psnr_mu_ntire", out, gt, peak=1.0) == pytest.approx(theirs["ntire21"]["psnr_mu"], abs=1e-5)


def test_the_fork_on_encoded_images(golden):
    """Its PSNR and SSIM of floats are metrics that are here already."""
    case = torch.load(golden("hdr/metrics.pt"), weights_only=True)
    images = case["input"]["out"].numpy(), case["input"]["gt"].numpy()
    assert score_plain("psnr_skimage", *images) == pytest.approx(case["output"]["fork_psnr"], abs=1e-5)
    assert score_plain("ssim_skimage", *images) == pytest.approx(case["output"]["fork_ssim"], abs=1e-6)


def score_plain(kind, img, img2):
    return calculate_metric({"img": img, "img2": img2}, {"type": f"calculate_{kind}", "clip": False, "data_range": 1.0})


def test_formulas_written_out():
    img, target = pair()
    x, y = np.clip(img, 0, 1000) / 1000, target / 1000
    assert score("psnr_l", img, target) == pytest.approx(-10 * math.log10(np.mean((x - y) ** 2)))
    a, b = (np.log(1 + 500 * v) / np.log(501) for v in (x, y))
    assert score("psnr_mu", img, target, mu=500) == pytest.approx(-10 * math.log10(np.mean((a - b) ** 2)))

    def units(cd):
        p = 0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142
        q = np.clip(cd, 0.005, 1e4) ** p[3]
        return np.maximum(p[6] * (((p[0] + p[1] * q) / (1 + p[2] * q)) ** p[4] - p[5]), 0)

    a, b = units(x * 2000), units(y * 2000)
    expected = 10 * math.log10(256**2 / np.mean((a - b) ** 2))
    assert score("pu21_psnr", img, target, nits=2000) == pytest.approx(expected)
    bt709 = np.array([0.212656, 0.715158, 0.072186])
    a, b = units(x @ bt709 * 4000), units(y @ bt709 * 4000)
    assert score("pu21_ssim", img, target) == pytest.approx(structural_similarity(a, b, data_range=256))


@pytest.mark.parametrize("kind", HERE + FORK)
def test_whatever_the_layout(kind):
    img, target = pair()
    tensors = torch.from_numpy(img).permute(2, 0, 1), torch.from_numpy(target).permute(2, 0, 1)
    expected = score(kind, img, target)
    assert score(kind, *tensors) == pytest.approx(expected)
    assert score(kind, img[..., ::-1], target[..., ::-1], color_order="bgr") == pytest.approx(expected)
    assert METRICS.get(f"calculate_{kind}").better == "higher"
    assert metric_space(f"calculate_{kind}") == "linear"


@pytest.mark.parametrize("kind", HERE + FORK)
def test_better_images_score_higher(kind):
    img, target = pair()
    nearer = target + 0.3 * (np.clip(img, 0, 1000) - target)
    assert score(kind, nearer, target) > score(kind, img, target)


def test_radiance_beyond_the_peak_does_not_count():
    img, target = pair()
    beyond = np.where(target > 500, target * 3, target)
    cut = np.minimum(beyond, 500)
    assert score("psnr_mu", img, beyond, peak=500.0) == pytest.approx(score("psnr_mu", img, cut, peak=500.0))


def test_full_scales_differ_by_a_constant():
    img, target = pair()
    difference = score("pu21_psnr_fork", img, target) - score("pu21_psnr", img, target)
    assert difference == pytest.approx(20 * math.log10(530 / 256))


def test_fixed_numbers():
    img, target = pair(32, 32, seed=3)
    found = [score(kind, img, target) for kind in HERE + FORK]
    assert found == pytest.approx(PINNED, rel=1e-6)


@pytest.mark.parametrize("kind", HERE)
def test_bad_input(kind):
    img, target = pair()
    img[3, 4, 1] = np.nan
    with pytest.raises(UserError, match="NaN"):
        score(kind, img, target)


def test_too_small():
    with pytest.raises(UserError, match="28x28"):
        score("pu21_msssim_fork", *pair(27, 40))
    with pytest.raises(UserError, match="does not fit"):
        score("pu21_ssim", *pair(6, 40))


def test_a_black_reference():
    img, target = pair()
    assert math.isfinite(score("psnr_mu_ntire", img, 0 * target))


PINNED = [
    26.6246067,
    29.873095,
    31.3739833,
    25.0502781,
    28.9685215,
    0.9962421,
    31.3709962,
    35.2892396,
    0.9962907,
    0.9974416,
]
