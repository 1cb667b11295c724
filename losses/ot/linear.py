"""Entropic optimal transport between two discrete measures."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...core.errors import UserError
from ..common import checked_choice
from .coupling import LinearCoupling
from .inputs import (
    CostScale,
    Method,
    as_number,
    checked_cost,
    checked_marginals,
    checked_settings,
    checked_tensor,
    constants,
    explain_nonfinite_plan,
    numbers,
    range_of,
    rounding,
    scaled,
)
from .scaling import Potentials, Stopping, balanced, kernel_or_log, solve, unbalanced

Regularizer = Literal["kl", "entropy"]


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    tol: float = 1e-6,
    max_iters: int = 1000,
    check_every: int = 10,
    method: Method = "kernel",
    rho: float | None = None,
    reg_type: Regularizer = "kl",
    cost_scale: CostScale = "none",
    bound: float | Tensor | None = None,
    waiting: bool = True,
) -> LinearCoupling:
    r"""Entropic optimal transport by Sinkhorn's algorithm (Cuturi, "Sinkhorn distances", NeurIPS 2013).

    .. math::

        \min_T \; \langle T, C\rangle + \varepsilon \sum_{ij} T_{ij} (\log T_{ij} - 1)
        \quad\text{subject to}\quad T 1 = a,\; T^\top 1 = b,\; T \ge 0

    or, when `rho` is given, with the constraints relaxed to :math:`\rho\,KL(T1|a) + \rho\,KL(T^\top 1|b)` and the entropy
    replaced by :math:`\varepsilon\,KL(T|ab^\top)` if `reg_type` is ``kl``.

    The plan is a constant: gradients do not flow through it. That is also all that the gradient of the optimal value needs:
    by the envelope theorem its derivative by the cost is the plan, so differentiate ``(result.plan * cost).sum()``.

    Args:
        cost: C (n, m), any finite values; +inf forbids a pair. Half precision is computed in float32, float64 stays.
        a: marginal of the rows (n,), zeros allowed; uniform of mass 1 when None.
        b: marginal of the columns (m,), zeros allowed; uniform of mass 1 when None. Same mass as `a`, unless `rho` is given.
        epsilon: strength of the entropy, in units of the scaled cost.
        tol: stop when the L1 error of the columns is at most this (unbalanced: when an iteration moves no more mass); the
            rows are exact up to rounding. 0 does all iterations, and never waits for a GPU between the first and the last.
        max_iters: iterations at most.
        check_every: iterations between looks at the error.
        method: ``kernel`` multiplies by exp(-C / eps), stabilised by absorption into potentials. It is several times faster
            and, in float32, more accurate than the log domain, ``log``, to which it falls back should it break down;
            unbalanced problems are always solved there. Where exp(-C / eps) underflows, both begin by annealing epsilon.
        rho: strength of the marginal penalties; None for constraints.
        reg_type: regulariser of an unbalanced problem.
        cost_scale: statistic of the cost that it is divided by first.
        bound: bound of the range of the scaled cost, which it is measured for when None. With it and a `tol` of 0 the
            device is asked nothing: should the kernel break down, the plan is NaN. A tensor, (), stays on the device too. It
            needs a `tol` of 0; epsilon is annealed whatever it is, and where the kernel breaks down the log domain goes on.
        waiting: whether Python looks at the error. Else the device does: all iterations are launched, and those after the end
            change nothing, so that the plan is the same; `iters` is then a tensor. With a `bound` it is asked nothing.

    Raises:
        UserError: shapes, marginals or options that fit no problem; NaN.

    Does it not converge? Iterations needed grow like range / epsilon. Raise `epsilon`, or `max_iters`.
    """
    # Refuse what is no problem.
    owner = "sinkhorn"
    epsilon = as_number(owner, "epsilon", epsilon)
    rho = None if rho is None else as_number(owner, "rho", rho)
    checked_settings(owner, epsilon, tol, bound, max_iters=max_iters, check_every=check_every)
    if rho is not None and not 0 < rho < float("inf"):
        raise UserError(f"{owner}: rho must be positive, not {rho}; None makes the marginals constraints")
    for option, value, accepted in (
        ("method", method, Method),
        ("reg_type", reg_type, Regularizer),
        ("cost_scale", cost_scale, CostScale),
    ):
        checked_choice(owner, option, value, accepted)
    checked_tensor(owner, "cost", cost)
    with constants(cost.device):
        # Set up the problem in the log domain, on the cost in units of its scale.
        original = checked_cost(owner, "cost", cost)
        a, b, mass = checked_marginals(owner, a, b, original, equal=rho is None)
        relative = scaled(original, cost_scale)
        low, high = range_of(relative)
        spread = (numbers(high - low)[0] if bound is None else bound) / epsilon
        if rho is None:  # a constant in the cost is a constant in f, and costs precision
            problem = balanced((relative - low) / -epsilon, a, b)
        else:
            problem = unbalanced(relative / -epsilon, a, b, rho / (rho + epsilon), reg_type == "kl")
        # Solve by the kernel, or in the log domain if that breaks down; there a result must be finite.
        stop = Stopping(max_iters, tol, check_every, rounding(a.dtype, mass), not waiting)
        start = Potentials(torch.zeros_like(a), torch.zeros_like(b))
        kernel = method != "log" and rho is None
        asking = bound is None or (tol > 0 and waiting)
        solution, served = kernel_or_log(lambda fast: solve(problem, start, stop, fast, spread), kernel, a, asking)
        if served == "log" and asking:
            explain_nonfinite_plan(owner, solution.plan, "cost", original)
        return LinearCoupling(
            plan=solution.plan,
            f=epsilon * solution.potentials.phi + (low if rho is None else 0),
            g=epsilon * solution.potentials.gamma,
            a=a,
            b=b,
            epsilon=epsilon,
            iters=solution.iters,
            method=served,
            cost=relative,
            rho=rho,
            reg_type=reg_type,
        )
