"""Structural similarity against pytorch-msssim, the originals' values, and the definition."""

from __future__ import annotations

import pytest
import pytorch_msssim
import torch

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.ssim import similarity


def with_gradient(function, pred, target):
    pred = pred.clone().requires_grad_()
    value = function(pred, target)
    value.backward()
    return value.detach(), pred.grad


@pytest.mark.parametrize("size", [(33, 46), (11, 12)])
@pytest.mark.parametrize(("window", "sigma", "data_range"), [(11, 1.5, 1.0), (5, 0.8, 2.0)])
def test_ssim_equals_pytorch_msssim(size, window, sigma, data_range, images):
    pred, target = images((2, 3, *size))
    loss = build_loss({"type": "SSIMLoss", "win_size": window, "win_sigma": sigma, "data_range": data_range})
    reference = pytorch_msssim.SSIM(data_range=data_range, win_size=window, win_sigma=sigma)
    got, expected = (with_gradient(f, pred, target) for f in (loss, lambda x, y: 1 - reference(x, y)))
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-3, atol=1e-7)


def test_ssim_of_one_window_by_definition(images):
    pred, target = (x[0, 0].double() for x in images((1, 1, 3, 3)))
    g = torch.exp(-torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64) / (2 * 0.9**2))
    w = torch.outer(g, g) / g.sum() ** 2
    mx, my = (w * pred).sum(), (w * target).sum()
    vx, vy = (w * (pred - mx) ** 2).sum(), (w * (target - my) ** 2).sum()
    cov = (w * (pred - mx) * (target - my)).sum()
    c1, c2 = 1e-4, 9e-4
    ssim = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    loss = build_loss({"type": "SSIMLoss", "win_size": 3, "win_sigma": 0.9})
    assert float(loss(pred[None, None], target[None, None])) == pytest.approx(1 - float(ssim), rel=1e-5)


@pytest.mark.parametrize(
    ("key", "window"),
    [
        ("one_minus_msssim_win11", 11),
        ("one_minus_msssim_win7", 7),
        ("one_minus_msssim_win11_identical", 11),
        ("one_minus_msssim_win11_anticorrelated", 11),
    ],
)
def test_ms_ssim_of_the_originals(key, window, golden, recipe, agrees):
    d = torch.load(golden("underwater/loss_msssim.pt"), weights_only=True)
    r = recipe("underwater/golden_recipe.py")
    if window == 7:
        target = r.smooth_image("mt7", d["shape7"], d["seed"])
        pred = 0.8 * target + 0.1 + r.normal("mn7", d["shape7"], d["seed"], 0.05)
    else:
        target = r.smooth_image("mt", d["shape11"], d["seed"])
        noisy = target + r.normal("mn", d["shape11"], d["seed"], 0.1)
        pred = {"identical": target, "anticorrelated": 1 - target}.get(key.rsplit("_", 1)[1], noisy)
    agrees(build_loss({"type": "MSSSIMLoss", "win_size": window}), pred, target, d[key])


def test_ms_ssim_equals_pytorch_msssim_on_odd_sizes(images):
    pred, target = images((2, 1, 51, 67))
    reference = pytorch_msssim.MS_SSIM(data_range=1.0, win_size=3, channel=1)
    got = with_gradient(build_loss({"type": "MSSSIMLoss", "win_size": 3}), 0.7 * pred + 0.3 * target, target)
    expected = with_gradient(lambda x, y: 1 - reference(x, y), 0.7 * pred + 0.3 * target, target)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-3, atol=1e-7)


def test_one_scale_is_ssim_and_fewer_scales_share_the_exponents(images):
    pred, target = images((1, 3, 24, 24))
    pred = 0.5 * (pred + target)
    one = build_loss({"type": "MSSSIMLoss", "scales": 1})(pred, target)
    assert float(one) == pytest.approx(float(build_loss({"type": "SSIMLoss"})(pred, target)), rel=1e-6)
    three = build_loss({"type": "MSSSIMLoss", "scales": 3})
    assert three.exponents.flatten().tolist() == pytest.approx([w / 0.6305 for w in (0.0448, 0.2856, 0.3001)], rel=1e-5)


def test_small_images_are_refused_with_advice(images):
    loss = build_loss({"type": "MSSSIMLoss"})
    loss(*images((1, 1, 161, 161)))
    with pytest.raises(UserError, match=r"images of 160 pixels .* set scales: 4, or use more than 160 pixels"):
        loss(*images((1, 1, 170, 160)))
    with pytest.raises(UserError, match=r"images of 9 pixels .* window of 11; use more"):
        loss(*images((1, 1, 9, 9)))
    with pytest.raises(UserError, match="images of 10 pixels are smaller than the window of 11"):
        build_loss({"type": "SSIMLoss"})(*images((1, 1, 10, 20)))


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ({"type": "SSIMLoss", "win_size": 8}, "must be odd"),
        ({"type": "MSSSIMLoss", "scales": 6}, "scales must be 1 to 5"),
        ({"type": "MSSSIMLoss", "scales": 0}, "scales must be 1 to 5"),
    ],
)
def test_impossible_options(opt, words):
    with pytest.raises(UserError, match=words):
        build_loss(opt)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"scales": 3}, {"win_size": 7}, {"win_size": 3, "win_sigma": 0.8, "data_range": 2.0}]
)
def test_what_is_written_out_agrees_with_the_package(images, options, dtype):
    """In value and gradient: what small pictures get continues what large ones get."""
    x, y = ((0.6 * image + 0.2).to(dtype) for image in images((2, 3, 163, 165)))
    loss = build_loss({"type": "MSSSIMLoss", **options})
    found = []
    for version in (loss.similarity, loss.written_out):
        leaf = x.clone().requires_grad_()
        value = version(leaf, y)
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    (value, gradient), (other, its_gradient) = found
    assert value.shape == (len(x),) and (value - other).abs().max() <= 1e-6
    assert (gradient - its_gradient).abs().max() <= 1e-6 * max(1, gradient.abs().max().item())


def test_one_scale_written_out_agrees_with_the_package(images):
    x, y = images((2, 3, 40, 33))
    loss = build_loss({"type": "SSIMLoss"})
    assert torch.allclose(loss.similarity(x, y), similarity(x, y, loss.window, 1.0)[0].mean(dim=1), atol=1e-6, rtol=0)
