"""Derivative losses against the originals, and against loops over pixels."""

from __future__ import annotations

import pytest
import torch

from relume.losses import build_loss


@pytest.mark.parametrize(("key", "operator"), [("laplacian_l1_valid", "laplacian"), ("sobel_l1_pad1", "sobel")])
def test_originals(key, operator, golden, agrees):
    d = torch.load(golden("underwater/loss_pixel.pt"), weights_only=True)
    agrees(build_loss({"type": "GradientLoss", "operator": operator}), d["x"], d["y"], d[key])


def test_laplacian_pixel_by_pixel(images):
    pred, target = images((1, 2, 5, 6), torch.float64)
    d = (pred - target)[0]
    expected = [
        abs(float(d[c, i - 1, j] + d[c, i + 1, j] + d[c, i, j - 1] + d[c, i, j + 1] - 4 * d[c, i, j]))
        for c in range(2)
        for i in range(1, 4)
        for j in range(1, 5)
    ]
    got = build_loss({"type": "GradientLoss", "reduction": "none"})(pred, target)
    assert got.shape == (1, 2, 3, 4)
    assert got.flatten().tolist() == pytest.approx(expected)


def test_sobel_of_a_ramp():
    ramp = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 4, 5)
    got = build_loss({"type": "GradientLoss", "operator": "sobel", "reduction": "none"})(ramp, torch.zeros_like(ramp))
    assert got[0, 0, 1, 2] == 8  # horizontally 8, vertically 0
    assert got[0, 0, 0, 2] == 6 + 8  # the row above counts as black


def clamped_blur(x):
    """Burt and Adelson's 5x5 blur of a (H, W) image, one pixel at a time."""
    k = (0.05, 0.25, 0.4, 0.25, 0.05)
    h, w = x.shape
    out = torch.zeros_like(x)
    for i in range(h):
        for j in range(w):
            for a in range(5):
                for b in range(5):
                    out[i, j] += k[a] * k[b] * x[min(max(i + a - 2, 0), h - 1), min(max(j + b - 2, 0), w - 1)]
    return out


def test_edge_band_pixel_by_pixel(images):
    pred, target = images((1, 1, 7, 6), torch.float64)

    def band(x):
        sparse = torch.zeros_like(x)
        sparse[::2, ::2] = 4 * clamped_blur(x)[::2, ::2]
        return x - clamped_blur(sparse)

    expected = torch.sqrt((band(pred[0, 0]) - band(target[0, 0])) ** 2 + 0.1**2)
    got = build_loss({"type": "EdgeLoss", "eps": 0.1, "reduction": "none"})(pred, target)
    torch.testing.assert_close(got[0, 0], expected, rtol=1e-6, atol=1e-8)


def test_total_variation_ignores_the_target_and_weighs_pairs():
    x = torch.tensor([[0.0, 1.0], [3.0, 3.0]]).view(1, 1, 2, 2)
    assert float(build_loss({"type": "TVLoss"})(x, x + 5)) == (3 + 2) / 2 + (1 + 0) / 2
    assert float(build_loss({"type": "TVLoss", "reduction": "sum"})(x, x + 5)) == 3 + 2 + 1 + 0
    weight = torch.tensor([[1.0, 3.0], [2.0, 7.0]]).view(1, 1, 2, 2)
    got = build_loss({"type": "WeightedTVLoss"})(x, weight=weight)
    assert float(got) == pytest.approx((1 * 3 + 3 * 2) / 4 + (1 * 1 + 2 * 0) / 3)
