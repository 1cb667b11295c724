"""Penalties against the originals and their closed forms on linear discriminators."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from adversarial import near

from relume.archs import build_network
from relume.losses.penalties import g_path_regularize, gradient_penalty_loss, r1_penalty


def of_discriminator(case, network):
    size = case["input_size"]
    real, fake = (
        F.interpolate(x.double(), size=size, mode="bilinear", align_corners=False)
        for x in (*case["coarse"], case["coarse"][0])[:2]
    )
    if case["kind"] == "r1":
        real.requires_grad_()
        return r1_penalty(network(real), real)
    weight = case["weight"].double() if "weight" in case else None
    return gradient_penalty_loss(network, real, fake, weight=weight, alpha=case["alpha"].double())


def test_values_and_gradients_are_the_originals(golden):
    cases = torch.load(golden("adversarial/penalties.pt"), weights_only=True)["cases"]
    states = {c["name"]: c["state_dict"] for c in cases if "state_dict" in c}
    for case in cases:
        if case["kind"] == "path":
            w = case["network"]["w"].clone().requires_grad_()
            latents = case["latents"].clone().requires_grad_()
            fake = torch.einsum("bld,dchw->bchw", latents.tanh(), w)
            penalty, length, mean = g_path_regularize(
                fake, latents, case["mean_path_length"], case["decay"], noise=case["noise"]
            )
            for found, key in ((penalty, "penalty"), (length, "mean_length"), (mean, "path_mean")):
                near(found, case[key], case["rtol"], key)
            near(torch.autograd.grad(penalty, w)[0], case["weight_grad"], 10 * case["rtol"])
            continue
        network = build_network({"type": case["type"], **case["config"]})
        network.load_state_dict(case.get("state_dict") or states[case["state_dict_of"]])
        # In float64, or the rounding of some convolutions sends an activation over the kink of a leaky ReLU.
        network.train(case["mode"] == "train").double()
        value = of_discriminator(case, network)
        near(value, case["value"], case["rtol"], case["name"])
        value.backward()
        for name, p in network.named_parameters():
            expected = case["param_grads"].get(name)
            if expected is not None and p.grad is not None:
                near(p.grad, expected, 10 * case["rtol"], f"{case['name']} {name}")
            else:
                assert expected is None or not expected.any()


def test_a_linear_discriminator_has_a_closed_form():
    torch.manual_seed(0)
    w = torch.randn(3, 4, 4)

    def linear(x):
        return (x * w).sum((1, 2, 3), keepdim=True)

    real, fake = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    real.requires_grad_()
    assert r1_penalty(linear(real), real).item() == pytest.approx(w.square().sum().item(), rel=1e-5)
    assert r1_penalty([linear(real), [linear(real)]], real).item() == pytest.approx(
        4 * w.square().sum().item(), rel=1e-5
    )
    per_pixel = (w.norm(dim=0) - 1).square().mean().item()
    assert gradient_penalty_loss(linear, real, fake).item() == pytest.approx(per_pixel, rel=1e-4)
    per_sample = (math.sqrt(w.square().sum().item()) - 1) ** 2
    assert gradient_penalty_loss(linear, real, fake, per="sample").item() == pytest.approx(per_sample, rel=1e-4)
