"""What a plan tells each row to aim at, and the exact assignment."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clouds import unit_points

from relume.core.errors import UserError
from relume.losses.ot import assignment, targets

PLAN = torch.tensor([[0.1, 0.3, 0.0, 0.1], [0.2, 0.0, 0.2, 0.1]])
VALUES = torch.arange(8.0).reshape(4, 2)


def test_stored_targets(golden: Callable[[str], Path]) -> None:
    case = torch.load(golden("generation/ot.pt"), weights_only=True)["targets"]
    plan, images = case["T"], case["memory_images"]
    torch.testing.assert_close(images[targets.argmax(plan)], case["argmax_target"])
    torch.testing.assert_close(targets.barycentre(plan, images), case["barycentric_target"])
    torch.testing.assert_close(targets.topk_mean(plan, images, 1), case["argmax_target"])
    torch.testing.assert_close(targets.topk_mean(plan, images, 25), case["barycentric_target"])


def test_argmax_takes_the_first_of_equals() -> None:
    assert targets.argmax(PLAN).tolist() == [1, 0]


def test_barycentre_and_topk_by_hand() -> None:
    expected = torch.tensor(
        [[0.6 * 2 + 0.2 * 6, 0.2 + 0.6 * 3 + 0.2 * 7], [0.4 * 4 + 0.2 * 6, 0.4 + 0.4 * 5 + 0.2 * 7]]
    )
    torch.testing.assert_close(targets.barycentre(PLAN, VALUES), expected)
    torch.testing.assert_close(targets.topk_mean(PLAN, VALUES, 2)[1], (VALUES[0] + VALUES[2]) / 2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(targets.barycentre(PLAN, VALUES), expected)
    with pytest.raises(UserError, match="k must be from 1 to the 4 columns, not 5"):
        targets.topk_mean(PLAN, VALUES, 5)
    with pytest.raises(UserError, match="a plan with 4 columns needs as many values, not 3"):
        targets.barycentre(PLAN, VALUES[:3])
    with pytest.raises(UserError, match=r"distances must be \(4, 4\) for this plan, not \(4, 2\)"):
        targets.expected_distances(PLAN, VALUES)


def test_expected_distances_by_hand() -> None:
    """Rows drawn independently: 0.6 0.2 0.2 on columns 1 0 3 against 0.4 0.4 0.2 on 0 2 3 (of a row's mass)."""
    places = torch.tensor([0.0, 1.0, 3.0, 7.0])
    found = targets.expected_distances(PLAN, (places[:, None] - places).abs())
    rows = [{1: 0.6, 0: 0.2, 3: 0.2}, {0: 0.4, 2: 0.4, 3: 0.2}]
    for i, k in itertools.product(range(2), repeat=2):
        pairs = itertools.product(rows[i].items(), rows[k].items())
        expected = sum(r * s * abs(float(places[x] - places[y])) for (x, r), (y, s) in pairs)
        assert found[i, k].item() == pytest.approx(expected)


def test_sampling_follows_the_rows_and_its_generator() -> None:
    plan = PLAN.repeat_interleave(20000, 0)
    first, second = (targets.sample(plan, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    for row, drawn in zip(PLAN, first.split(20000), strict=True):
        frequency = drawn.bincount(minlength=4) / 20000
        torch.testing.assert_close(frequency, row / row.sum(), rtol=0, atol=0.02)
        assert not frequency[row == 0].any()


def test_assignment_is_the_best_of_all() -> None:
    cost = unit_points("cost", 4, 6)
    columns = assignment(cost)
    best = min(float(cost[range(4), list(c)].sum()) for c in itertools.permutations(range(6), 4))
    assert float(cost[range(4), columns].sum()) == pytest.approx(best)
    assert len(columns.unique()) == 4
    forbidding = cost.clone()
    forbidding[0, columns[0]] = torch.inf
    assert assignment(forbidding)[0] != columns[0]


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (torch.zeros(3, 2), "3 rows cannot have different columns among 2"),
        (torch.full((2, 2), torch.inf), "assignment: cost matrix is infeasible"),
        (torch.full((2, 2), torch.nan), "assignment: matrix contains invalid"),
        (torch.zeros(3), "cost must be a matrix"),
    ],
)
def test_impossible_assignments(cost: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assignment(cost)


def test_assignment_says_that_it_needs_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UserError, match="assignment needs scipy"):
        assignment(torch.zeros(2, 2))
