"""Transport without entropy between equally many points: the assignment problem."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.errors import UserError, require
from .inputs import checked_cost, checked_tensor


def assignment(cost: Tensor) -> Tensor:
    """The columns, all different, that make sum_i C_i,column(i) smallest (Jonker-Volgenant, by SciPy, on the CPU).

    For n = m and uniform marginals, the permutation matrix over n is an optimal plan. On ``-log T`` of a coupling it gives the
    most likely one-to-one matching.

    Args:
        cost: (n, m) with n <= m; +inf forbids a pair.

    Returns:
        (n,), int64, on the device of `cost`.

    Raises:
        UserError: more rows than columns, NaN, or no assignment without forbidden pairs.
    """
    checked_tensor("assignment", "cost", cost)
    matrix = checked_cost("assignment", "cost", cost)
    if matrix.shape[0] > matrix.shape[1]:
        raise UserError(f"assignment: {matrix.shape[0]} rows cannot have different columns among {matrix.shape[1]}")
    scipy = require("scipy.optimize", "assignment", "pip install scipy")
    try:
        _, columns = scipy.linear_sum_assignment(matrix.double().cpu().numpy())
    except ValueError as e:  # SciPy's messages are short and say which of the two it is
        raise UserError(f"assignment: {e}") from None
    return torch.from_numpy(columns).to(cost.device)
