"""What a coupling tells each row to aim at: one column, or a mean over columns.

Plans are (n, m) with mass in every row; values are (m, ...), one per column: images, features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ops.deterministic import running_sum
from ...core.ops.precision import widest
from .inputs import constants


def argmax(plan: Tensor) -> Tensor:
    """The column with most mass, the first of several, (n,) int64. Columns may be chosen many times or never.

    With a strong entropy this is close to a tie-break among hundreds; see `Coupling.perplexity`.
    """
    return plan.argmax(1)


def sample(plan: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A column drawn from each row, j ~ T_ij / sum_j T_ij, (n,) int64. Unbiased: the drawn columns follow the marginal.

    Args:
        plan: (n, m).
        generator: source of randomness, on the plan's device.
    """
    return torch.multinomial(plan, 1, generator=generator)[:, 0]


def sample_at(plan: Tensor, uniforms: Tensor) -> Tensor:
    """A column of each row, (n,) int64: the one in which a share `uniforms` (n,), in [0, 1), of the row's mass is reached.

    Uniform numbers draw like `sample`, each row by its own number.
    """
    reached = running_sum(plan.to(widest(plan.device)), 1)
    wanted = uniforms.to(reached)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True)[:, 0].clamp_max(plan.shape[1] - 1)


def barycentre(plan: Tensor, values: Tensor) -> Tensor:
    """sum_j T_ij x_j / sum_j T_ij, (n, ...): the barycentric projection, a blur when the perplexity is high.

    Raises:
        UserError: not as many values as columns.
    """
    return _mean(plan, values)


def topk_mean(plan: Tensor, values: Tensor, k: int) -> Tensor:
    """The same, (n, ...), over the `k` columns with most mass in each row: 1 is the argmax, m the barycentre.

    Raises:
        UserError: `k` is not from 1 to m, or not as many values as columns.
    """
    if not 1 <= k <= plan.shape[1]:
        raise UserError(f"topk_mean: k must be from 1 to the {plan.shape[1]} columns, not {k}")
    mass, columns = plan.topk(k, dim=1)
    return _mean(torch.zeros_like(plan).scatter(1, columns, mass), values)


def expected_distances(plan: Tensor, distances: Tensor) -> Tensor:
    """R D R^T, (n, n), with R_ij = T_ij / sum_j T_ij: the mean distance of two columns drawn from row i and from row k.

    Where every row has one entry, these are the distances of the columns that they name; otherwise its diagonal is the mean
    distance of two columns of one row.

    Args:
        plan: (n, m).
        distances: D, (m, m), symmetric.

    Raises:
        UserError: D is not (m, m).
    """
    if distances.shape != (plan.shape[1],) * 2:
        m = plan.shape[1]
        raise UserError(f"expected_distances: distances must be ({m}, {m}) for this plan, not {tuple(distances.shape)}")
    return _mean(plan, _mean(plan, distances).t())


def _mean(weights: Tensor, values: Tensor) -> Tensor:
    if len(values) != weights.shape[1]:
        raise UserError(f"a plan with {weights.shape[1]} columns needs as many values, not {len(values)}")
    with constants(weights.device):
        dtype = torch.promote_types(weights.dtype, values.dtype)
        rows = weights.to(dtype) / weights.sum(1, keepdim=True)
        return (rows @ values.to(dtype).flatten(1)).reshape(-1, *values.shape[1:])
