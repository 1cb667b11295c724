"""Losses of colour, brightness and frequencies against the forks that define them."""

from __future__ import annotations

import pytest
import torch
from adversarial import near
from skimage.color import rgb2lab

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.colour import LumaLoss


def test_values_and_gradients_are_the_originals(golden):
    for case in torch.load(golden("adversarial/other_losses.pt"), weights_only=True)["cases"]:
        loss = build_loss({"type": case["type"], **case["config"]})
        inputs = [x.clone().requires_grad_() for x in case["inputs"]]
        arguments = inputs
        if "nested" in case:
            parts = iter(inputs)
            arguments = [[[next(parts) for _ in range(n)] for n in case["nested"]] for _ in range(2)]
        value = loss(*arguments)
        near(value, case["value"], case["rtol"], case["name"])
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
        for found, wanted in zip(gradients, case["input_grads"], strict=True):
            if wanted is not None and found is not None:
                near(found, wanted, case["grad_rtol"], case["name"])
            else:
                assert wanted is None or not wanted.any()


def test_lightness_is_cielab_down_to_black():
    gray = torch.linspace(0, 1, 41).view(1, 1, 1, 41).expand(1, 3, 4, 41)
    wanted = rgb2lab(gray[0].permute(1, 2, 0).numpy())[..., 0] / 100
    found = LumaLoss().seen(gray)[0, 0]
    assert abs(found.numpy() - wanted).max() < 1e-4
    black = torch.zeros(1, 3, 4, 4, requires_grad=True)
    LumaLoss()(black, torch.full_like(black, 0.5)).backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="3 channels"):
        build_loss({"type": "ColorLoss"})(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(UserError, match="patch_factor"):
        build_loss({"type": "FFLoss", "patch_factor": 3})(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))


def test_frequencies_of_equal_images_are_at_distance_0():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss = build_loss({"type": "FFLoss"})(x, x.detach())
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert x.grad.isfinite().all()
