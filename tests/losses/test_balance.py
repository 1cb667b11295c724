"""Weights of losses: what each mode minimises, and that none degenerates."""

from __future__ import annotations

import math

import pytest
import torch

from relume.core.errors import UserError
from relume.losses.balance import Balance

VALUES = torch.tensor([0.05, 0.3, 0.03, 0.2])
"""About what the four losses of the original trainings are, in their order."""
NAMES = ["pixel", "perceptual", "gradient", "msssim"]


def minimised(balance, values=VALUES, steps=1000, lr=0.05):
    """The weights after training them on constant losses."""
    optimizer = torch.optim.Adam(balance.parameters(), lr=lr)
    for _ in range(steps):
        shares = balance.shares()
        total = sum(shares[n] * v for n, v in zip(NAMES, values, strict=True))
        total = total + balance.penalty({n: [v] for n, v in zip(NAMES, values, strict=True)})
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return torch.stack([balance.shares()[n].detach() for n in NAMES])


def test_fixed_weights_are_one_and_nothing_is_stored():
    balance = Balance(NAMES, "fixed")
    assert [balance.shares()[n] for n in NAMES] == [1.0] * 4
    assert balance.state_dict() == {} and balance.logs() == {} and list(balance.parameters()) == []
    assert balance.penalty({n: [torch.ones(())] for n in NAMES}) is None


def test_random_weights_are_drawn_once_and_frozen():
    torch.manual_seed(5)
    balance = Balance(NAMES, "random")
    torch.manual_seed(5)
    expected = torch.rand(4)
    assert torch.equal(balance.weights, expected) and not balance.weights.requires_grad
    shares = torch.stack(list(balance.shares().values()))
    torch.testing.assert_close(shares, expected.softmax(dim=0))
    assert balance.penalty({n: [torch.ones(())] for n in NAMES}) is None
    assert float(shares.min()) >= 0.109 and float(shares.max()) <= 0.476  # all that draws from [0, 1) can give


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("entropy", [0.5, 1.0])
def test_softmax_ends_at_its_optimum_whatever_the_scale(entropy, scale):
    got = minimised(Balance(NAMES, "softmax", entropy), VALUES * scale)
    torch.testing.assert_close(got, (-VALUES / (entropy * VALUES.mean())).softmax(dim=0), rtol=0.02, atol=1e-3)
    assert float(got.min()) >= math.exp(-4 / entropy) / 4


def test_softmax_survives_a_loss_that_vanishes():
    values = torch.tensor([0.0, 1.0, 1.0, 1.0])
    got = minimised(Balance(NAMES, "softmax"), values)
    assert float(got[1:].min()) > 0.05  # without the entropy term: 0


def test_softmax_counts_every_value_that_a_weight_multiplies():
    balance = Balance(["a", "b"], "softmax", entropy=2.0)
    one = balance.penalty({"a": [torch.tensor(3.0)], "b": [torch.tensor(1.0)]})
    two = balance.penalty({"a": [torch.tensor(1.0), torch.tensor(2.0)], "b": [torch.tensor(1.0)]})
    assert one.item() == two.item() == pytest.approx(2.0 * 2.0 * -math.log(2))


def test_uncertainty_ends_where_every_weighted_loss_is_one():
    torch.testing.assert_close(minimised(Balance(NAMES, "uncertainty")), 1 / VALUES, rtol=0.02, atol=0)


def test_uncertainty_adds_the_log_variance_of_every_value():
    balance = Balance(["a", "b"], "uncertainty")
    balance.load_state_dict({"weights": torch.tensor([0.5, -1.0])})
    one = torch.ones(())
    assert balance.penalty({"a": [one, one], "b": [one]}).item() == pytest.approx(2 * 0.5 - 1.0)
    shares = {k: float(v) for k, v in balance.logs().items()}
    assert shares == pytest.approx({"w_a": math.exp(-0.5), "w_b": math.exp(1.0)})


def test_unknown_modes_are_refused():
    with pytest.raises(UserError, match=r"mode cannot be 'sofmax'\. Did you mean 'softmax'"):
        Balance(NAMES, "sofmax")


def test_weights_may_learn_from_a_random_start():
    torch.manual_seed(5)
    balance = Balance(NAMES, "softmax", start="random")
    torch.manual_seed(5)
    assert torch.equal(balance.weights, torch.rand(4)) and balance.weights.requires_grad
    torch.testing.assert_close(minimised(balance), minimised(Balance(NAMES, "softmax")), rtol=0.02, atol=1e-3)
    with pytest.raises(UserError, match="start"):
        Balance(NAMES, "softmax", start="there")
