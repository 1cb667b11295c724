"""Stereo scores: means over both views; the left one without what the right one does not see; NAFNet's SSIM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric


@pytest.fixture
def pair() -> dict[str, np.ndarray]:
    """Two views, BGR, of 8 bits, of which the right one is the noisier."""
    rng = np.random.RandomState(0)
    gt = rng.randint(0, 256, (24, 96, 6)).astype(np.uint8)
    noise = rng.randint(-9, 10, gt.shape) * np.array([1, 1, 1, 3, 3, 3])
    return {"img": np.clip(gt + noise, 0, 255).astype(np.uint8), "img2": gt}


def score(pair: dict[str, np.ndarray], name: str, **options: Any) -> float:
    return calculate_metric(pair, {"type": name, **options})


def part(pair: dict[str, np.ndarray], channels: slice, columns: slice = slice(None)) -> dict[str, np.ndarray]:
    return {k: v[:, columns, channels] for k, v in pair.items()}


LEFT, RIGHT = slice(0, 3), slice(3, 6)


@pytest.mark.parametrize("name", ["calculate_psnr", "calculate_ssim"])
@pytest.mark.parametrize("options", [{}, {"test_y_channel": True}, {"crop_border": 2}])
def test_two_views_count_alike(pair: dict[str, np.ndarray], name: str, options: dict[str, Any]) -> None:
    each = [score(part(pair, view), name, **options) for view in (LEFT, RIGHT)]
    assert abs(each[0] - each[1]) > 1e-3
    assert score(pair, name, **options) == pytest.approx(sum(each) / 2, rel=1e-12)


def test_tensors_are_rgb_in_both_views(pair: dict[str, np.ndarray]) -> None:
    order = [2, 1, 0, 5, 4, 3]
    tensors = {k: torch.from_numpy(v[..., order].copy()).permute(2, 0, 1) for k, v in pair.items()}
    for name in ("calculate_psnr", "calculate_psnr_left"):
        found = calculate_metric(tensors, {"type": name, "test_y_channel": True})
        assert found == pytest.approx(score(pair, name, test_y_channel=True), rel=1e-12)


@pytest.mark.parametrize("channels", [6, 3])
def test_against_scikit_image(pair: dict[str, np.ndarray], channels: int) -> None:
    seen = part(pair, slice(0, channels))
    left = part(pair, LEFT, slice(64, None))
    ours = (left["img"], left["img2"])
    assert score(seen, "calculate_psnr_left") == pytest.approx(peak_signal_noise_ratio(ours[1], ours[0]), rel=1e-12)
    expected = structural_similarity(*ours, channel_axis=-1)
    assert score(seen, "calculate_skimage_ssim_left") == pytest.approx(expected, abs=1e-7)
    expected = structural_similarity(seen["img"], seen["img2"], channel_axis=-1)
    assert score(seen, "calculate_skimage_ssim") == pytest.approx(expected, abs=1e-7)


def test_left_scores_need_columns_and_whole_views(pair: dict[str, np.ndarray]) -> None:
    for name in ("calculate_psnr_left", "calculate_skimage_ssim_left"):
        with pytest.raises(UserError, match="first 64 columns"):
            score(part(pair, LEFT, slice(0, 64)), name)
        with pytest.raises(UserError, match="6 channels"):
            score(part(pair, slice(0, 2)), name)
    with pytest.raises(UserError, match="crop_border must be 0"):
        score(pair, "calculate_psnr_left", crop_border=4)


def volume_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of volumes (D, H, W), continued at all borders, by a direct three-dimensional convolution."""
    taps = np.exp(-np.square(np.arange(-5, 6)) / 4.5)
    taps = torch.from_numpy(taps / taps.sum())
    kernel = (taps[:, None, None] * taps[None, :, None] * taps[None, None, :])[None, None]

    def mean(z: torch.Tensor) -> torch.Tensor:
        return F.conv3d(F.pad(z[None, None], (5,) * 6, mode="replicate"), kernel)[0, 0]

    a, b = (torch.from_numpy(z.astype(np.float64)) for z in (x, y))
    ma, mb = mean(a), mean(b)
    va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def test_ssim_over_channels_is_that_of_a_volume(pair: dict[str, np.ndarray]) -> None:
    left = part(pair, LEFT)
    assert score(left, "calculate_ssim", ssim3d=True) == pytest.approx(volume_ssim(left["img"], left["img2"]), rel=1e-9)
    assert score(left, "calculate_ssim", ssim3d=True) != pytest.approx(score(left, "calculate_ssim"), rel=1e-5)
    both = [volume_ssim(pair["img"][..., v], pair["img2"][..., v]) for v in (LEFT, RIGHT)]
    assert score(pair, "calculate_ssim", ssim3d=True) == pytest.approx(sum(both) / 2, rel=1e-9)
