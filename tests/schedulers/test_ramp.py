"""Values that change over samples: the original's curves, and what every ramp promises."""

from __future__ import annotations

import itertools
import typing

import pytest
import torch

from relume.core.errors import UserError
from relume.schedulers.ramp import Ramp, Shape, between

SHAPES = typing.get_args(Shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_from_start_to_end_and_no_further(shape):
    ramp = Ramp(2.0, 0.5, 100, shape)
    values = [ramp.at(k) for k in range(0, 130, 5)]
    assert values[0] == 2.0 and values[-1] == values[20] == (2.0 if shape == "constant" else 0.5)
    assert all(a >= b for a, b in itertools.pairwise(values)), "monotone"


def test_half_way():
    halves = {s: between(1.0, 0.0625, 0.5, s) for s in SHAPES}
    assert halves["linear"] == halves["cosine"] == pytest.approx(0.53125)
    assert halves["exponential"] == pytest.approx(0.25)
    assert halves["quadratic"] == pytest.approx(1 - 0.9375 / 4)
    assert halves["step"] == halves["constant"] == 1.0


def test_a_geometric_way_through_zero_is_refused():
    with pytest.raises(UserError, match=r"exponential cannot lead from 0.1 to 0.0"):
        Ramp(0.1, 0.0, 10, "exponential")


NAMES = {
    "epsilon": ("init", "final", "decay", {}),
    "fgw_lambda": ("start", "end", "warmup", {}),
    "annealing": ("start", "end", "warmup", {"exponential": "saturating"}),
}


@pytest.mark.parametrize("curve", NAMES)
def test_curves_of_the_original(golden, curve):
    stored = torch.load(golden("generation/schedules.pt"), weights_only=True)
    start, end, over, renamed = NAMES[curve]
    for case in stored[curve]:
        shape = renamed.get(case["schedule"], case["schedule"])
        ramp = Ramp(case[start], case[end], case[over], shape)
        for k, value in zip(stored["steps"].tolist(), case["value"].tolist(), strict=True):
            assert ramp.at(k) == pytest.approx(value, rel=1e-12), (shape, k)


def test_temperature_of_the_original(golden):
    stored = torch.load(golden("generation/schedules.pt"), weights_only=True)
    case = stored["soft_temperature"]
    ramp = Ramp(case["init"], case["final"], case["anneal"], "exponential")
    for k, value in zip(stored["steps"].tolist(), case["value"].tolist(), strict=True):
        assert ramp.at(k) == pytest.approx(value, rel=1e-12)
