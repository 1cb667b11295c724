"""Pixel losses against the originals and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from relume.losses import build_loss


@pytest.mark.parametrize("case", ["mean", "mean|w1", "mean|w3", "sum", "sum|w1", "sum|w3", "none"])
@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss"])
def test_basicsr_values(name, case, golden):
    d = torch.load(golden("hdr/losses.pt"), weights_only=True)
    reduction, _, weighting = case.partition("|w")
    weight = d["input"][f"weight_{weighting}ch"] if weighting else None
    got = build_loss({"type": name, "reduction": reduction})(d["input"]["pred"], d["input"]["target"], weight)
    torch.testing.assert_close(got, d["output"][f"{name}|{case}"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("key", "opt"),
    [
        ("charbonnier_eps1e-3_mean", {"type": "CharbonnierLoss", "eps": 1e-3, "eps_squared": True}),
        ("charbonnier_eps1e-6_mean", {"type": "CharbonnierLoss", "eps": 1e-6, "eps_squared": True}),
        ("smooth_l1_beta1_mean", {"type": "SmoothL1Loss"}),
    ],
)
def test_spectroformer_values_and_gradients(key, opt, golden, agrees):
    d = torch.load(golden("underwater/loss_pixel.pt"), weights_only=True)
    agrees(build_loss(opt), d["x"], d["y"], d[key])


def test_the_two_conventions_of_charbonnier():
    zero, x = torch.zeros(1, 1, 1, 2), torch.tensor([0.0, 0.3]).view(1, 1, 1, 2)
    added = build_loss({"type": "CharbonnierLoss", "eps": 0.16, "reduction": "none"})(x, zero)
    squared = build_loss({"type": "CharbonnierLoss", "eps": 0.4, "eps_squared": True, "reduction": "none"})(x, zero)
    assert added.flatten().tolist() == squared.flatten().tolist() == pytest.approx([0.4, 0.5])


def test_charbonnier_of_equal_images_has_a_finite_gradient():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    value = build_loss({"type": "CharbonnierLoss"})(x, torch.ones(1, 1, 2, 2))
    value.backward()
    assert value.item() == pytest.approx(1e-6)
    assert x.grad.abs().sum() == 0


def test_smooth_l1_joins_a_parabola_and_a_line():
    x = torch.tensor([0.1, 0.5, 2.0]).view(1, 1, 1, 3)
    got = build_loss({"type": "SmoothL1Loss", "beta": 0.5, "reduction": "none"})(x, torch.zeros_like(x))
    assert got.flatten().tolist() == pytest.approx([0.01, 0.25, 1.75])


def test_psnr_is_that_of_each_image(images):
    pred, target = images((3, 3, 9, 11), torch.float64)
    got = build_loss({"type": "PSNRLoss", "reduction": "none"})(pred, target)
    expected = [10 * math.log10(float((p - t).square().mean()) + 1e-8) for p, t in zip(pred, target, strict=True)]
    assert got.tolist() == pytest.approx(expected, rel=1e-9)
    assert float(build_loss({"type": "PSNRLoss"})(target, target)) == pytest.approx(-80)


def test_psnr_on_luma(images):
    pred, target = images((2, 3, 9, 11), torch.float64)
    luma = [(16 + 65.481 * x[:, 0] + 128.553 * x[:, 1] + 24.966 * x[:, 2]) / 255 for x in (pred, target)]
    expected = [10 * math.log10(float((a - b).square().mean()) + 1e-8) for a, b in zip(*luma, strict=True)]
    got = build_loss({"type": "PSNRLoss", "toY": True, "reduction": "none"})(pred, target)
    assert got.tolist() == pytest.approx(expected, rel=1e-6)
