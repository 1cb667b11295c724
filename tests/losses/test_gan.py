"""Adversarial losses, each by its formula."""

from __future__ import annotations

import math

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss

D = torch.tensor([[-1.5, 0.25], [2.0, 0.5]])


def mean(f):
    return sum(f(float(d)) for d in D.flatten()) / 4


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("gan_type", "real", "is_disc", "formula"),
    [
        ("vanilla", True, True, lambda d: 0.9 * softplus(-d) + 0.1 * softplus(d)),
        ("vanilla", False, True, lambda d: 0.2 * softplus(-d) + 0.8 * softplus(d)),
        ("vanilla", True, False, lambda d: 3 * (0.9 * softplus(-d) + 0.1 * softplus(d))),
        ("lsgan", True, True, lambda d: (d - 0.9) ** 2),
        ("lsgan", False, True, lambda d: (d - 0.2) ** 2),
        ("lsgan", True, False, lambda d: 3 * (d - 0.9) ** 2),
        ("wgan", True, True, lambda d: -d),
        ("wgan", False, True, lambda d: d),
        ("wgan", True, False, lambda d: -3 * d),
        ("wgan_softplus", True, True, lambda d: softplus(-d)),
        ("wgan_softplus", False, True, lambda d: softplus(d)),
        ("wgan_softplus", True, False, lambda d: 3 * softplus(-d)),
        ("hinge", True, True, lambda d: max(0.0, 1 - d)),
        ("hinge", False, True, lambda d: max(0.0, 1 + d)),
        ("hinge", True, False, lambda d: -3 * d),
    ],
)
def test_value_and_gradient(gan_type, real, is_disc, formula):
    opt = {"type": "GANLoss", "gan_type": gan_type, "real_label_val": 0.9, "fake_label_val": 0.2, "loss_weight": 3.0}
    verdict = D.clone().requires_grad_()
    value = build_loss(opt)(verdict, real, is_disc=is_disc)
    value.backward()
    assert value.item() == pytest.approx(mean(formula), rel=1e-5)
    slope = [(formula(d + 1e-6) - formula(d - 1e-6)) / 8e-6 for d in D.double().flatten().tolist()]
    assert verdict.grad.flatten().tolist() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_half_precision_is_left():
    assert build_loss({"type": "GANLoss", "gan_type": "vanilla"})(D.bfloat16(), True).dtype == torch.float32


def test_two_images_are_refused():
    with pytest.raises(UserError, match="has no discriminator"):
        build_loss({"type": "GANLoss", "gan_type": "vanilla"})(D, D)


def test_unknown_type():
    with pytest.raises(UserError, match="Did you mean 'hinge'"):
        build_loss({"type": "GANLoss", "gan_type": "hing"})
