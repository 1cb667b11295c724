"""Structures given by points against their matrices, and the costs that both are made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from clouds import unit_points, weights
from torch import Tensor

from relume.core.errors import UserError
from relume.losses.ot import Dense, SquaredEuclidean, costs
from relume.losses.ot.structure import cross_product, distortion


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("size", [5, 40])
def test_squared_euclidean_structure(size: int, offset: float) -> None:
    x = unit_points("x", size, 4) + offset
    structure, w = SquaredEuclidean(x), weights("w", size)
    matrix = torch.cdist(x, x).square()
    torch.testing.assert_close(structure.matrix, matrix, rtol=1e-8, atol=1e-9)
    product = structure.factors[0] if len(structure.factors) == 1 else torch.linalg.multi_dot(structure.factors)
    torch.testing.assert_close(product, matrix, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(structure.squared_times(w), matrix.square() @ w)
    torch.testing.assert_close(structure.times(w), matrix @ w)
    assert structure.bounds()[1] >= matrix.max()
    for kind in ("max", "mean", "median", "none"):
        torch.testing.assert_close(structure.scale(kind), Dense(matrix).scale(kind))


def test_factors_where_they_are_cheaper() -> None:
    assert len(SquaredEuclidean(torch.zeros(12, 4)).factors) == 1
    assert len(SquaredEuclidean(torch.zeros(13, 4)).factors) == 2


def test_products_and_distortion_do_not_depend_on_the_form() -> None:
    first, second = SquaredEuclidean(unit_points("x", 20, 2)), SquaredEuclidean(unit_points("y", 30, 3))
    plan = unit_points("T", 20, 30).square()
    dense = Dense(first.matrix), Dense(second.matrix)
    torch.testing.assert_close(cross_product(first, plan, second), first.matrix @ plan @ second.matrix)
    torch.testing.assert_close(distortion(first, plan, second), distortion(dense[0], plan, dense[1]))


def test_points_must_be_a_matrix() -> None:
    with pytest.raises(UserError, match=r"points must be a matrix \(n, d\), not of shape \(5,\)"):
        SquaredEuclidean(torch.zeros(5))


# -------------------------------------------------------------------------------- costs
@pytest.mark.parametrize(
    ("cost", "definition"),
    [
        (costs.squared_euclidean, lambda x, y: (x - y).square().sum(-1)),
        (costs.euclidean, lambda x, y: (x - y).square().sum(-1).sqrt()),
        (costs.cosine, lambda x, y: 1 - torch.cosine_similarity(x, y, dim=-1)),
    ],
)
def test_costs_are_their_definitions(cost: Callable[..., Tensor], definition: Callable[..., Tensor]) -> None:
    x, y = 3 * unit_points("x", 40, 5), unit_points("y", 30, 5)
    torch.testing.assert_close(cost(x, y), definition(x[:, None], y))
    within = cost(x)
    torch.testing.assert_close(within, definition(x[:, None], x), atol=1e-7, rtol=1e-7)
    assert not within.diagonal().any()
    single = cost(x.float())
    assert single.dtype == torch.float32
    assert not single.diagonal().any()
    assert (single >= 0).all()


def test_costs_have_gradients_even_where_points_coincide() -> None:
    x = unit_points("x", 6, 5)[[0, 0, 1, 2, 3, 4]].requires_grad_()
    for cost in (costs.squared_euclidean, costs.euclidean, costs.cosine):
        (gradient,) = torch.autograd.grad(cost(x).sum(), x)
        assert gradient.isfinite().all()
        assert gradient.any()


def test_costs_leave_half_precision() -> None:
    x = unit_points("x", 20, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        for cost in (costs.squared_euclidean, costs.euclidean, costs.cosine):
            assert torch.equal(cost(x), cost(x.float()))
