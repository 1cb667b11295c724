"""Distillation of vectors against the original, in value and gradient, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss


@pytest.mark.parametrize("temperature", [0.15, 1.0, 0.05])
def test_values_and_gradients_of_the_original(temperature, golden):
    d = torch.load(golden("hdr/losses.pt"), weights_only=True)
    expected, teacher = d["kd"][f"T={temperature}"], d["input"]["kd_s1"].clone().requires_grad_()
    loss = build_loss({"type": "KDLoss", "temperature": temperature})
    for term, key in ((loss, "abs"), (loss.divergence, "kl")):
        student = d["input"]["kd_s2"].clone().requires_grad_()
        value = term(student, teacher)
        value.backward()
        torch.testing.assert_close(value.detach(), expected[key], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(student.grad, expected[f"grad_{key}"], rtol=1e-4, atol=1e-6)
    assert teacher.grad is None


def test_several_vectors_are_the_sum_of_each(golden):
    d = torch.load(golden("hdr/losses.pt"), weights_only=True)
    loss, (s, t) = build_loss({"type": "KDLoss"}), (d["input"]["kd_s2"], d["input"]["kd_s1"])
    expected = d["kd"]["two_features"]
    assert 2 * loss(s, t).item() == pytest.approx(expected["abs"].item(), rel=1e-5)
    pairs = loss.divergence(s, t) + loss.divergence(t, s)
    assert pairs.item() == pytest.approx(expected["kl"].item(), rel=1e-5)


def test_by_hand():
    loss = build_loss({"type": "KDLoss", "temperature": 2.0, "loss_weight": 3.0})
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    assert loss(student, teacher).item() == pytest.approx(3 * math.log(3))
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert loss.divergence(student, teacher).item() == pytest.approx(3 * divergence)
    assert loss.divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_no_temperature_is_no_temperature():
    with pytest.raises(UserError, match="temperature must be positive, got 0"):
        build_loss({"type": "KDLoss", "temperature": 0})
