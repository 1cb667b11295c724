"""Contextual loss against the original, and a slow direct formula."""

from __future__ import annotations

import pytest
import torch
from adversarial import near

from relume.losses import build_loss
from relume.losses.contextual import contextual_loss


def test_values_and_gradients_are_the_originals(golden):
    for case in torch.load(golden("adversarial/contextual.pt"), weights_only=True)["cases"]:
        x, y = case["inputs"]
        x = x.clone().requires_grad_()
        value = contextual_loss(x, y, **case["config"])
        near(value, case["value"], case["rtol"], case["name"])
        near(torch.autograd.grad(value, x)[0], case["input_grad"], case["grad_rtol"], case["name"])


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_each_target_feature_looks_for_its_like(kind):
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 2, 3), torch.randn(2, 5, 2, 3)
    values = []
    for a, b in zip(x.flatten(2), y.flatten(2), strict=True):
        rows = []
        for i in range(6):
            d = torch.stack([(a[:, i] - b[:, j]).abs().pow(int(kind[1])).sum() for j in range(6)])
            w = ((1 - d / (d.min() + 1e-5)) / 0.5).exp()
            rows.append(w / w.sum())
        values.append(-torch.stack(rows).amax(0).mean().log())
    near(contextual_loss(x, y, kind), torch.stack(values).mean(), 1e-5)


def test_the_loss_sees_layers_however_they_are_called():
    loss = build_loss({"type": "ContextualLoss", "layer_weights": {"conv1_2": 1, "relu2_1": 0.5}, "weights": "random"})
    x, y = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16)
    value = loss(x, y)
    value.backward()
    assert value > loss(y, y) >= 0
    assert x.grad is not None
    assert x.grad.any()


def test_of_many_positions_some_are_drawn():
    settings = {"layer_weights": {"conv1_1": 1}, "weights": "random", "max_1d_size": 4}
    loss = build_loss({"type": "ContextualLoss", **settings})
    x, y = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    torch.manual_seed(1)
    first = loss(x, y)
    torch.manual_seed(1)
    assert torch.equal(first, loss(x, y))
