"""Promotion and reduction."""

from __future__ import annotations

import pytest
import torch

from relume.core.errors import UserError
from relume.losses.common import checked_choice, comparable, reduced
from relume.losses.pixel import Reduction


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float64, torch.bfloat16, torch.float64),
        (torch.uint8, torch.uint8, torch.float32),
    ],
)
def test_inputs_are_promoted_to_float32_or_more(first, second, common):
    x, y = comparable("it", torch.ones(2, 2, dtype=first), torch.ones(2, 2, dtype=second))
    assert x.dtype == y.dtype == common


def test_weighted_means_divide_by_the_weights():
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    one_channel = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    assert float(reduced(loss, "mean", one_channel)) == pytest.approx((1 + 6 + 3 + 12) / 8)
    assert float(reduced(loss, "sum", one_channel)) == 22
    assert reduced(loss, "none", one_channel).flatten().tolist() == [1, 6, 3, 12]
    assert float(reduced(loss, "mean", loss)) == pytest.approx(30 / 10)


def test_a_choice_is_checked():
    assert checked_choice("it", "reduction", "sum", Reduction) == "sum"
    with pytest.raises(
        UserError, match=r"it: reduction cannot be 'men'. Did you mean 'mean'\? Accepted: none, mean, sum."
    ):
        checked_choice("it", "reduction", "men", Reduction)
