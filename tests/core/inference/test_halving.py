"""Halving intervals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from relume.core.errors import UserError
from relume.core.inference.halving import frame_at


def test_each_frame_is_between_its_neighbours_and_made_once() -> None:
    calls: list[tuple[float, float]] = []

    def middle(a: Tensor, b: Tensor) -> Tensor:
        calls.append((float(a), float(b)))
        return (a + b) / 2

    made = {0.0: torch.tensor(0.0), 1.0: torch.tensor(1.0)}
    for k in range(1, 8):
        assert float(frame_at(k / 8, middle, made)) == k / 8
    assert calls == [(0, 1), (0, 0.5), (0, 0.25), (0.25, 0.5), (0.5, 1), (0.5, 0.75), (0.75, 1)]


@pytest.mark.parametrize("time", [1 / 3, 1.5, -0.5, 2.0**-11])
def test_times_that_halving_does_not_reach(time: float) -> None:
    with pytest.raises(UserError, match=r"halving reaches 1/2, 1/4"):
        frame_at(time, lambda a, b: a, {0.0: torch.zeros(1), 1.0: torch.ones(1)})
