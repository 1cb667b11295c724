"""The Mamba-2 layer against the original, in value, gradient and initialisation."""

from __future__ import annotations

import pytest
import torch
from filling import fill, waves

from relume.archs.mamba2 import Mamba2, RMSNormGated, rmsnorm_gated
from relume.core.errors import UserError


def near(value, expected, tolerance):
    """To `tolerance` of the largest value, or of 1 if that is less: gradients of single numbers are sums that cancel."""
    return float((value - expected).abs().max()) <= tolerance * max(float(expected.abs().max()), 1.0)


def test_original(golden):
    for case in torch.load(golden("vfi/mamba2.pt"), weights_only=True)["cases"]:
        layer = Mamba2(**case["config"])
        assert list(layer.state_dict()) == list(case["state_dict"])
        layer.load_state_dict(case["state_dict"])
        u = case["input"]["u"].requires_grad_()
        y = layer(u)
        assert near(y.detach(), case["output"]["y"], 3e-6)
        y.backward(case["grad_output"]["y"])
        for name, gradient in {"input": u.grad, **{k: p.grad for k, p in layer.named_parameters()}}.items():
            assert near(gradient, case["grad"][name], 2e-5), (case["name"], name)


def test_a_seed_gives_the_original_network(golden):
    compared = 0
    for case in torch.load(golden("vfi/mamba2.pt"), weights_only=True)["cases"]:
        if case["fresh_state_dict"]:
            torch.manual_seed(case["fresh_seed"])
            state = Mamba2(**case["config"]).state_dict()
            assert all(torch.equal(state[k], v) for k, v in case["fresh_state_dict"].items())
            compared += 1
    assert compared


def test_gated_norm_of_the_original(golden):
    for case in torch.load(golden("vfi/rmsnorm_gated.pt"), weights_only=True)["cases"]:
        given = {k: None if v is None else v.clone().requires_grad_() for k, v in case["input"].items()}
        y = rmsnorm_gated(**given, **case["config"])
        torch.testing.assert_close(y, case["output"]["y"], rtol=1e-6, atol=1e-6)
        y.backward(case["grad_output"]["y"])
        for name, expected in case["grad"].items():
            if expected is not None:
                torch.testing.assert_close(given[name].grad, expected, rtol=1e-5, atol=1e-6)


OPTIONS = {
    "plain": {},
    "groups": {"ngroups": 2},
    "D per channel, two branches": {"D_has_hdim": True, "d_ssm": 8},
    "no norm, biases, no convolution": {"rmsnorm": False, "bias": True, "conv_bias": False, "d_conv": 1},
    "norm first, limits": {"norm_before_gate": True, "dt_limit": (0.4, 0.9)},
}


def small(**options):
    return fill(Mamba2(8, d_state=4, headdim=4, **options))


@pytest.mark.parametrize(
    ("options", "total", "last"),
    [
        ("plain", -10.29314, -1.203631),
        ("groups", -6.271482, 0.5541144),
        ("D per channel, two branches", 6.195608, 1.226882),
        ("no norm, biases, no convolution", 3.003331, 0.1221969),
        ("norm first, limits", -7.270597, -0.7943494),
    ],
)
def test_fingerprint(options, total, last):
    y = small(**OPTIONS[options])(waves("u", (2, 11, 8)).float())
    assert [y.sum().item(), y[1, 10, 7].item()] == pytest.approx([total, last], rel=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_no_step_sees_later_ones_and_chunks_do_not_matter(options):
    u = waves("u", (1, 20, 8)).float()
    layer = small(**OPTIONS[options])
    y = layer(u)
    torch.testing.assert_close(layer(u[:, :13]), y[:, :13], rtol=1e-4, atol=1e-5)
    layer.chunk_size = 4
    torch.testing.assert_close(layer(u), y, rtol=1e-4, atol=1e-5)


def test_initialisation():
    torch.manual_seed(0)
    layer = Mamba2(64, headdim=2, A_init_range=(2, 3), dt_min=0.01, dt_max=0.02, conv_init=0.01)
    assert 2 <= layer.A_log.exp().min() <= layer.A_log.exp().max() <= 3
    dt = torch.nn.functional.softplus(layer.dt_bias)
    assert 0.00999 < dt.min() < 0.011
    assert 0.019 < dt.max() < 0.02001
    assert layer.conv1d.weight.abs().max() <= 0.01
    assert torch.equal(layer.D, torch.ones(64))


def test_gated_norm_by_hand():
    x, z, weight = waves("x", (3, 6)), waves("z", (3, 6)), 1 + waves("w", (6,))
    gate = z * torch.sigmoid(z)

    def normed(t):
        t = t.view(3, 2, 3)
        return (t / (t.square().mean(-1, keepdim=True) + 1e-3).sqrt()).view(3, 6) * weight

    torch.testing.assert_close(rmsnorm_gated(x, weight, z, 1e-3, 3), normed(x) * gate)
    layer = RMSNormGated(6, 1e-3, 3, norm_before_gate=False).double()
    layer.weight.data = weight
    torch.testing.assert_close(layer(x, z), normed(x * gate))
    torch.testing.assert_close(layer(x), normed(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headdim": 5}, "whole heads"),
        ({"d_ssm": 32}, "whole heads"),
        ({"ngroups": 3}, "cannot form 3 groups"),
        ({"d_state": 0}, "d_state must be a whole number of at least 1; it is 0"),
        ({"expand": 1.5}, "expand must be a whole number"),
        ({"chunk_size": -4}, "chunk_size must be"),
        ({"dt_limit": 3}, "dt_limit must be two numbers"),
        ({"A_init_range": (16, 1)}, "the smaller first"),
    ],
)
def test_options_that_make_no_layer_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as e:
        Mamba2(8, **{"headdim": 4, **options})
    assert "\n" not in str(e.value)
