"""The causal convolution against the original, the formula and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from filling import waves

from relume.core.errors import UserError
from relume.core.ops.causal_conv1d import causal_conv1d


def test_original(golden):
    for case in torch.load(golden("vfi/causal_conv1d.pt"), weights_only=True)["cases"]:
        given = {k: None if v is None else v.clone().requires_grad_() for k, v in case["input"].items()}
        y, last = causal_conv1d(**given, return_final_states=True, activation=case["config"]["activation"])
        torch.testing.assert_close(y, case["output"]["y"], rtol=1e-6, atol=1e-6)
        assert torch.equal(last, case["output"]["final_states"])
        y.backward(case["grad_output"]["y"])
        for name, expected in case["grad"].items():
            torch.testing.assert_close(given[name].grad, expected, rtol=1e-5, atol=1e-6)


def plain(x, weight, bias=None, before=None):
    width = weight.shape[1] - 1
    x = F.pad(x, (width, 0)) if before is None else torch.cat([before, x], 2)
    y = sum(weight[:, k, None] * x[:, :, k : x.shape[2] - width + k] for k in range(width + 1))
    return y if bias is None else y + bias[:, None]


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("with_past", [False, True])
def test_formula_and_gradients(width, with_past, monkeypatch):
    monkeypatch.setattr("relume.core.ops.causal_conv1d.CACHED", 30)  # the weights' gradient in pieces of 5 steps
    tensors = [waves("x", (2, 3, 12)), waves("w", (3, width)), waves("b", (3,))]
    tensors += [waves("past", (2, 3, width - 1))] if with_past else []
    tensors = [t.requires_grad_() for t in tensors]
    torch.testing.assert_close(causal_conv1d(*tensors), plain(*tensors))
    gated = causal_conv1d(*tensors, activation="silu")
    torch.testing.assert_close(gated, F.silu(plain(*tensors)))
    assert torch.autograd.gradcheck(lambda *t: causal_conv1d(*t, activation="silu"), tensors)


def test_in_two_parts():
    x, weight = waves("x", (1, 4, 11)), waves("w", (4, 4))
    first, state = causal_conv1d(x[..., :2], weight, return_final_states=True)
    second = causal_conv1d(x[..., 2:], weight, initial_states=state)
    torch.testing.assert_close(torch.cat([first, second], 2), causal_conv1d(x, weight))


def test_slices_of_wider_rows_and_autocast():
    rows = waves("rows", (2, 9, 7)).float()
    x, weight = rows[..., 2:6].transpose(1, 2), waves("w", (4, 3)).float()
    expected = causal_conv1d(x.contiguous(), weight)
    y = causal_conv1d(x, weight)
    assert torch.equal(y, expected)
    assert y.transpose(1, 2).is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(causal_conv1d(x, weight), expected)


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="activation cannot be 'gelu'"):
        causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(2, 4), activation="gelu")
    with pytest.raises(UserError, match="do not go together"):
        causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(3, 4))
