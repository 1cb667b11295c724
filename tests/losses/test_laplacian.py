"""The Laplacian loss against the originals, and against a pyramid made pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from filling import waves

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.laplacian import laplacian_pyramid


@pytest.mark.parametrize("file", ["vfi/losses.pt", "vfi/losses_rife.pt"])
def test_originals(file, golden):
    compared = 0
    for case in torch.load(golden(file), weights_only=True)["cases"]:
        if case["config"]["kind"] in ("lap", "rife_lap", "composite"):
            levels = case["config"].get("max_levels", 5)
            pred = case["input"]["pred"].requires_grad_()
            loss = build_loss({"type": "LaplacianLoss", "levels": levels})(pred, case["input"]["gt"])
            torch.testing.assert_close(loss, case["output"].get("loss_lap", case["output"]["loss"]), rtol=1e-5, atol=0)
            if case["config"]["kind"] != "composite":  # whose gradient is of the sum of its terms
                loss.backward()
                expected = case["grad"]["pred"]
                assert (pred.grad - expected).abs().max() < 1e-5 * expected.abs().max()
            compared += 1
    assert compared


def mirrored(i, size):
    return size - 1 - abs(size - 1 - abs(i))


def blur(x, gain=1):
    """The binomial filter of a (H, W) image, one pixel at a time."""
    taps = (1, 4, 6, 4, 1)
    out = torch.zeros_like(x)
    height, width = x.shape
    for i in range(height):
        for j in range(width):
            for a in range(5):
                for b in range(5):
                    pixel = x[mirrored(i + a - 2, height), mirrored(j + b - 2, width)]
                    out[i, j] += gain * taps[a] * taps[b] / 256 * pixel
    return out


def test_pyramid_pixel_by_pixel():
    x = waves("x", (6, 8))
    small = blur(x)[::2, ::2]
    spread = torch.zeros(6, 8, dtype=x.dtype)
    spread[::2, ::2] = small
    band, rest = laplacian_pyramid(x[None, None], 1)
    torch.testing.assert_close(rest[0, 0], small)
    torch.testing.assert_close(band[0, 0], x - blur(spread, gain=4))


def test_sizes_that_are_not_even_and_gradients():
    x = waves("x", (1, 2, 9, 11)).requires_grad_()
    pyramid = laplacian_pyramid(x, 3)
    assert [p.shape[-2:] for p in pyramid] == [(9, 11), (5, 6), (3, 3), (2, 2)]
    assert torch.autograd.gradcheck(lambda t: laplacian_pyramid(t, 3), (x,))


def test_brightness_is_seen_with_the_low_pass_only():
    target = waves("y", (1, 3, 40, 40)) / 2
    blind = build_loss({"type": "LaplacianLoss"})(target + 0.2, target)
    seeing = build_loss({"type": "LaplacianLoss", "low_pass": True, "loss_weight": 0.5})(target + 0.2, target)
    assert blind < 1e-6
    assert float(seeing) == pytest.approx(0.1, rel=1e-6)


def test_images_too_small_are_one_line():
    loss = build_loss({"type": "LaplacianLoss"})
    loss(torch.zeros(1, 3, 33, 33), torch.ones(1, 3, 33, 33))
    with pytest.raises(UserError, match="at least 33x33 pixels; these have 32x40"):
        loss(torch.zeros(1, 3, 32, 40), torch.zeros(1, 3, 32, 40))
    with pytest.raises(UserError, match="levels must be at least 1"):
        build_loss({"type": "LaplacianLoss", "levels": 0})
