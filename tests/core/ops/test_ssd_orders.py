"""Mamba-2 over the same tokens in several orders against its sequences one by one, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from filling import fill, waves

from relume.archs.mamba2 import Mamba2
from relume.core.ops import hosts, rms_norm_sums, ssd_orders
from relume.core.ops.scan import interleaved_merge, interleaved_orders, interleaved_scan

OPTIONS = {
    "plain": {},
    "groups": {"ngroups": 2},
    "D per channel, two branches": {"D_has_hdim": True, "d_ssm": 8},
    "no norm, biases, no convolution": {"rmsnorm": False, "bias": True, "conv_bias": False, "d_conv": 1},
    "norm first, limits": {"norm_before_gate": True, "dt_limit": (0.4, 0.9)},
    "strong decay": {"A_init_range": (100, 200)},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("side", [(1, 1), (12, 9)])
def test_equals_the_sequences(options, side, monkeypatch):
    monkeypatch.setattr(ssd_orders, "CACHED", 0)  # chunks one by one
    monkeypatch.setattr(rms_norm_sums, "CACHED", 500)
    layer = fill(Mamba2(8, d_state=4, headdim=4, **OPTIONS[options])).double()
    layer.chunk_size = 16
    x = waves("x", (4, *side, 8)).double().requires_grad_()
    pairs = x.unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 3)
    found = layer(pairs, interleaved_orders(*side)).unflatten(1, (2, -1)).transpose(0, 1).reshape(x.shape)
    expected = interleaved_merge(layer(interleaved_scan(x)), *side)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted, grad = [x, *layer.parameters()], waves("grad", x.shape).double()
    gradients = (torch.autograd.grad(y, wanted, grad, retain_graph=True) for y in (found, expected))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_a_step_that_records_or_has_no_data_asks_nothing():
    x = torch.zeros(2, 3)
    assert hosts.asks_freely(x)
    assert hosts.asks_freely(torch.nn.Parameter(x))
    assert not hosts.asks_freely(x.to("meta"))
    with torch._subclasses.fake_tensor.FakeTensorMode():
        assert not hosts.asks_freely(torch.zeros(2, 3))
    seen = []
    torch.compile(lambda t: seen.append(hosts.asks_freely(t)) or t + 1, backend="eager")(x)
    assert seen == [False]
