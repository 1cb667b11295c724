"""SSIM against the originals' values, against the formula written out, and against a few fixed numbers."""

import math

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric, package_ssim

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def images(height=14, width=13, channels=3):
    """A wavy image and a distorted copy, uint8, by formula."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    clean = 128 + 90 * np.sin(0.7 * y + 0.4 * c) * np.cos(0.5 * x)
    distorted = 0.8 * clean + 20 + 15 * np.sin(2.1 * x + 1.3 * y + c)
    return np.clip(np.rint([distorted, clean]), 0, 255).astype(np.uint8)


def score(kind, pair, **options):
    return calculate_metric({"img": pair[0], "img2": pair[1]}, {"type": f"calculate_{kind}", **options})


def weighted_ssim(a, b, w, gain=1.0):
    """SSIM of two windows' pixels under weights that sum to 1."""
    ma, mb = (w * a).sum(), (w * b).sum()
    va, vb, vab = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
    luminance = (2 * ma * mb + C1) / (ma**2 + mb**2 + C1)
    return luminance * (2 * gain * vab + C2) / (gain * (va + vb) + C2)


def by_hand(a, b, window, gain=1.0):
    """Mean over every position at which `window` fits, window by window."""
    a, b = a.astype(float), b.astype(float)
    spans = [range(n - k + 1) for n, k in zip(a.shape, window.shape, strict=True)]
    values = []
    for corner in np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, a.ndim):
        cut = tuple(slice(i, i + k) for i, k in zip(corner, window.shape, strict=True))
        values.append(weighted_ssim(a[cut], b[cut], window, gain))
    return float(np.mean(values))


def gaussian(size, sigma=1.5):
    g = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    g = np.outer(g, g)
    return g / g.sum()


def per_channel(pair, window, gain=1.0):
    return np.mean([by_hand(pair[0][..., c], pair[1][..., c], window, gain) for c in range(pair[0].shape[2])])


def test_the_underwater_literature(golden):
    case = torch.load(golden("underwater/metrics.pt"), weights_only=True)
    floats = case["pred_chw"], case["target_chw"]
    for key, options in {
        "ssim_channel_axis_win3": {"win_size": 3, "clip": False},
        "ssim_channel_axis_win3_clipped": {"win_size": 3},
        "ssim_channel_axis_win7_clipped": {},
        "ssim_gaussian11_clipped": {"gaussian_weights": True, "use_sample_covariance": False},
    }.items():
        assert score("ssim_skimage", floats, **options) == pytest.approx(case[key], abs=1e-6), key
    assert score("ssim_volume", floats) == pytest.approx(case["ssim_seed_call_skimage_ge_0.20"], abs=1e-6)
    bytes_ = case["pred_u8_hwc"].numpy(), case["target_u8_hwc"].numpy()
    assert score("ssim_funie", bytes_) == pytest.approx(case["funie_ssim_u8"], abs=1e-9)


@pytest.mark.parametrize("engine", ["pytorch_msssim", "own"])
def test_formula(engine):
    pair = images()
    assert score("ssim", pair, engine=engine) == pytest.approx(per_channel(pair, gaussian(11)), abs=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(11, 40), (171, 163)])
def test_engines_agree(height, width, channels):
    rng = np.random.RandomState(height)
    bright = np.clip(250 + rng.randn(2, height, width, channels), 0, 255).astype(np.uint8)
    for kind in ("ssim", "msssim"):
        for pair in (images(height, width, channels), bright):
            if kind == "ssim" or height > 160:
                scores = [score(kind, pair, engine=engine) for engine in ("own", "pytorch_msssim", "auto")]
                assert scores[1:] == pytest.approx([scores[0]] * 2, abs=1e-12)


def test_the_package_computes_where_it_applies_and_runs_at_speed(monkeypatch):
    taken = []
    monkeypatch.setattr(package_ssim, "score", lambda x, y, taps, several=False, **more: taken.append(x.shape) or 0.5)
    for kind in ("ssim", "ssim_pt", "msssim"):
        assert score(kind, images(200, 161)) == 0.5 != score(kind, images(200, 161), engine="own")
        assert score(kind, images(200, 161), test_y_channel=True) == 0.5
    assert score("ssim", images(), ssim3d=True) != 0.5 != score("msssim", images(160, 200), scales=4)
    monkeypatch.setattr(package_ssim, "PIXELS", 200 * 161 - 1)
    assert score("ssim", images(200, 161)) != 0.5 == score("ssim", images(200, 161), engine="pytorch_msssim")
    for kind, options in {"ssim": {"ssim3d": True}, "msssim": {"scales": 4}}.items():
        with pytest.raises(UserError, match=r"engine: pytorch_msssim has .*engine: auto takes our own code"):
            score(kind, images(200, 161), engine="pytorch_msssim", **options)
    with pytest.raises(UserError, match="engine: 'fast' is not possible"):
        score("ssim", images(), engine="fast")


@pytest.mark.parametrize("channels", [1, 5, 7])
def test_formula_with_any_number_of_channels(channels):
    pair = images(12, 12, channels)
    assert score("ssim", pair) == pytest.approx(per_channel(pair, gaussian(11)), abs=1e-12)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_formula_of_flat_windows(size):
    pair, n = images(), size**2
    flat = np.full((size, size), 1 / n)
    expected = per_channel(pair, flat, n / (n - 1))
    assert score("ssim_skimage", pair, win_size=size) == pytest.approx(expected, abs=1e-10)
    biased = score("ssim_skimage", pair, win_size=size, use_sample_covariance=False)
    assert biased == pytest.approx(per_channel(pair, flat), abs=1e-10)


def test_formula_of_the_volume():
    pair = images()
    expected = by_hand(*pair, np.full((3, 3, 3), 1 / 27), 27 / 26)
    assert score("ssim_volume", pair) == pytest.approx(expected, abs=1e-10)


def test_formula_of_funie():
    pair = images(9, 8, 2)
    padded = np.pad(pair, ((0, 0), (6, 6), (6, 6), (0, 0)), mode="symmetric")
    assert score("ssim_funie", pair) == pytest.approx(per_channel(padded, gaussian(13), 25 / 24), abs=1e-12)


def test_skimage_agrees():
    skimage = pytest.importorskip("skimage.metrics")
    pair = images(30, 20)
    for win in (3, 7):
        expected = skimage.structural_similarity(*pair, channel_axis=-1, data_range=255, win_size=win)
        assert score("ssim_skimage", pair, win_size=win) == pytest.approx(expected, abs=1e-10)
    options = {"channel_axis": -1, "data_range": 255, "gaussian_weights": True, "sigma": 1.5}
    expected = skimage.structural_similarity(*pair, **options)
    assert score("ssim_skimage", pair, gaussian_weights=True) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ["ssim", "ssim_pt", "ssim_skimage", "ssim_volume", "ssim_funie"])
def test_properties(kind):
    pair = images(20, 24)
    assert score(kind, (pair[1], pair[1])) == pytest.approx(1.0, abs=1e-12)
    assert score(kind, pair) == pytest.approx(score(kind, pair[::-1]), abs=1e-12)
    assert score(kind, pair) < 0.99
    inverted = score(kind, (255 - pair[1], pair[1]))
    assert -1 <= inverted < score(kind, pair)


@pytest.mark.parametrize("kind", ["ssim", "ssim_pt", "ssim_skimage", "ssim_volume", "ssim_funie"])
def test_constant_images_compare_by_luminance_alone(kind):
    a, b = np.full((12, 12, 3), 60, np.uint8), np.full((12, 12, 3), 200, np.uint8)
    expected = (2 * 60 * 200 + C1) / (60**2 + 200**2 + C1)
    assert score(kind, (a, b)) == pytest.approx(expected, abs=1e-9)
    assert score(kind, (a * 0, a * 0)) == 1.0


@pytest.mark.parametrize(
    ("kind", "smallest"), [("ssim", 11), ("ssim_pt", 11), ("ssim_skimage", 7), ("ssim_volume", 3), ("ssim_funie", 1)]
)
def test_the_smallest_image(kind, smallest):
    assert math.isfinite(score(kind, images(smallest, smallest)))
    if smallest > 1:
        with pytest.raises(UserError, match=rf"calculate_ssim\w*: a window of {smallest}x{smallest} does not fit"):
            score(kind, images(smallest - 1, 30))


def test_mistakes():
    with pytest.raises(UserError, match="win_size must be odd, got 4"):
        score("ssim_skimage", images(), win_size=4)
    with pytest.raises(UserError, match="needs 3 channels, got 1"):
        score("ssim_volume", images(channels=1))


def test_fingerprints():
    pair = images(40, 32)
    expected = {"ssim": 0.936149, "ssim_skimage": 0.942117, "ssim_volume": 0.895095, "ssim_funie": 0.934138}
    assert {k: score(k, pair) for k in expected} == pytest.approx(expected, abs=1e-6)
    assert score("ssim", pair, test_y_channel=True) == pytest.approx(0.947350, abs=1e-6)
