"""Fused Gromov-Wasserstein transport: points that lie at different places, in spaces that may not even be the same."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.errors import UserError
from ..common import checked_choice
from .coupling import FusedCoupling
from .descent import Descent
from .graphs import Graphs
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
    precise,
    range_of,
    rounding,
    scaled,
)
from .scaling import Stopping, kernel_or_log
from .structure import SquaredEuclidean, Structure, as_structure, distortion

OWNER = "fused_gromov_wasserstein"


def fused_gromov_wasserstein(
    M: Tensor,
    C1: Tensor | SquaredEuclidean,
    C2: Tensor | SquaredEuclidean,
    p: Tensor | None = None,
    q: Tensor | None = None,
    *,
    alpha: float,
    epsilon: float,
    outer_iters: int = 10,
    inner_iters: int = 50,
    tol: float = 1e-6,
    cost_scale: CostScale = "max",
    check_every: int = 10,
    method: Method = "kernel",
    warm_start: bool = True,
    init: Tensor | None = None,
    graphs: Graphs | None = None,
    bound: float | Tensor | None = None,
    waiting: bool = True,
) -> FusedCoupling:
    r"""Entropic fused Gromov-Wasserstein transport by mirror descent.

    .. math::

        \min_T \; (1-\alpha) \langle T, M\rangle + \alpha \sum_{ijkl} (C^1_{ik} - C^2_{jl})^2\, T_{ij} T_{kl}
        + \varepsilon \sum_{ij} T_{ij} (\log T_{ij} - 1)
        \quad\text{subject to}\quad T 1 = p,\; T^\top 1 = q,\; T \ge 0

    (Vayer et al., "Fused Gromov-Wasserstein distance for structured objects", 2020; Peyre, Cuturi and Solomon, ICML 2016, for
    the algorithm). This is POT's convention, gradient of the quadratic term :math:`2\,L \otimes T`. An implementation that
    solves :math:`(1-\lambda) M + \lambda\, L \otimes T` with :math:`\varepsilon` in each step has the same solution for
    :math:`\alpha = \lambda / (2 - \lambda)` and :math:`2 \varepsilon / (2 - \lambda)`; `from_lambda` converts.

    With (squared) Euclidean structures the quadratic term is concave along couplings, so every step decreases the objective.
    The plan is a constant: gradients do not flow through it.

    Args:
        M: cost between the spaces (n, m); +inf forbids a pair.
        C1: symmetric costs within the first space, a matrix (n, n), or `SquaredEuclidean` of its points: then products use
            the matrix or its factors, whichever is cheaper.
        C2: symmetric costs within the second space, a matrix (m, m), or `SquaredEuclidean` of its points.
        p: marginal of the rows (n,), zeros allowed; uniform of mass 1 when None.
        q: marginal of the columns (m,), zeros allowed; uniform of mass 1 when None.
        alpha: weight of the structure, from 0 (entropic transport) to 1 (Gromov-Wasserstein).
        epsilon: strength of the entropy, in units of the scaled costs.
        outer_iters: descent steps at most.
        inner_iters: Sinkhorn iterations of each step at most.
        tol: stop the steps when the plan changes by no more in L1, and the iterations of a step when the columns' L1 error
            is no more. 0 does all of them, and never waits for a GPU between the first and the last.
        cost_scale: statistic that M, and C1 and C2 (both by the larger of theirs), are divided by once.
        check_every: Sinkhorn iterations between looks at the error.
        method: ``kernel`` or ``log``, as in `sinkhorn`.
        warm_start: start each step at the potentials of the one before, which saves most iterations when epsilon is small.
        init: plan to start from, (n, m); p q^T when None.
        graphs: store that keeps the descent as a CUDA graph between calls, for solving many problems of the same shapes on
            a GPU; used on the kernel, with ``tol=0`` or without `waiting`, and without `init`.
        bound: bound of the ranges of the scaled costs, as in `sinkhorn`.
        waiting: see `sinkhorn`; where it is off, `outer_iters` is a tensor too.

    Raises:
        UserError: shapes, marginals or options that fit no problem; NaN.
    """
    # Refuse what is no problem.
    alpha, epsilon = as_number(OWNER, "alpha", alpha), as_number(OWNER, "epsilon", epsilon)
    counts = {"outer_iters": outer_iters, "inner_iters": inner_iters, "check_every": check_every}
    checked_settings(OWNER, epsilon, tol, bound, **counts)
    if not 0 <= alpha <= 1:
        raise UserError(f"{OWNER}: alpha must be from 0 to 1, not {alpha}")
    checked_choice(OWNER, "method", method, Method)
    checked_choice(OWNER, "cost_scale", cost_scale, CostScale)
    checked_tensor(OWNER, "M", M)
    with constants(M.device):
        # Set up the descent, on costs in units of their scale.
        problem = _problem(M, C1, C2, p, q, cost_scale)
        plan = None if init is None else _first_plan(init, problem.cost)
        extent = _extent(problem, alpha, epsilon, bound)
        noise = rounding(problem.p.dtype, problem.mass) if tol > 0 else 0.0
        descent = Descent(
            logits=_logits(problem.relative, alpha, epsilon),
            first=problem.first,
            second=problem.second,
            coefficient=extent.coefficient,
            a=problem.p,
            b=problem.q,
            spread=extent.spread,
            sway=extent.sway,
            outer=Stopping(outer_iters, tol, 1, noise, not waiting),
            inner=Stopping(inner_iters, tol, check_every, noise, not waiting),
            warm_start=warm_start,
        )
        # Solve by the kernel, or in the log domain if that breaks down; there a result must be finite.
        run = partial(descent.run, plan) if graphs is None else partial(graphs.run, descent, plan)
        asking = bound is None or (tol > 0 and waiting)
        solution, served = kernel_or_log(run, method != "log", problem.p, asking)
        if served == "log" and asking:
            largest = {"C1": extent.largest[0], "C2": extent.largest[1], "init": plan}
            explain_nonfinite_plan(OWNER, solution.plan, "M", problem.cost, largest)
        # The potentials, back in units of the scaled costs, and the plan.
        f, g = (epsilon * potential for potential in solution.potentials)
        return FusedCoupling(
            plan=solution.plan,
            f=f,
            g=g,
            a=problem.p,
            b=problem.q,
            epsilon=epsilon,
            iters=solution.iters,
            method=served,
            cost=problem.relative,
            alpha=alpha,
            outer_iters=solution.outer_iters,
            distortion=partial(_scaled_distortion, problem.first, problem.second, problem.size),
        )


class _Problem(NamedTuple):
    """What is given, checked and in sufficient precision."""

    cost: Tensor
    """M (n, m)."""
    relative: Tensor
    """M over its scale."""
    first: Structure
    second: Structure
    size: Tensor
    """What both structures are divided by, a scalar."""
    p: Tensor
    q: Tensor
    mass: float


def _problem(
    M: Tensor,
    C1: Tensor | SquaredEuclidean,
    C2: Tensor | SquaredEuclidean,
    p: Tensor | None,
    q: Tensor | None,
    cost_scale: CostScale,
) -> _Problem:
    cost = checked_cost(OWNER, "M", M)
    first = as_structure(OWNER, "C1", C1, cost.shape[0]).to(cost)
    second = as_structure(OWNER, "C2", C2, cost.shape[1]).to(cost)
    p, q, mass = checked_marginals(OWNER, p, q, cost, equal=True)
    size = torch.maximum(first.scale(cost_scale), second.scale(cost_scale))
    return _Problem(cost, scaled(cost, cost_scale), first, second, size, p, q, mass)


def _first_plan(init: Tensor, cost: Tensor) -> Tensor:
    """The plan to start from, as a constant of the cost's kind."""
    checked_tensor(OWNER, "init", init)
    plan = precise(init).to(cost)
    if plan.shape != cost.shape:
        raise UserError(f"{OWNER}: init has shape {tuple(plan.shape)}, M {tuple(cost.shape)}; they must agree")
    return plan


class _Extent(NamedTuple):
    """Numbers that `Descent` needs besides the problem; see there."""

    coefficient: Tensor
    spread: float | Tensor
    sway: float
    largest: tuple[Tensor, Tensor]
    """Largest entry of either structure."""


def _extent(problem: _Problem, alpha: float, epsilon: float, bound: float | Tensor | None) -> _Extent:
    """Everything of the problem that is needed as a number, with one wait for the GPU; with none where there is a `bound`.

    Raises:
        UserError: a structure is not symmetric.
    """
    first, second, size = problem.first, problem.second, problem.size
    coefficient = 4 * alpha / (epsilon * size.square())
    (low1, high1), (low2, high2) = first.bounds(), second.bounds()
    if bound is not None:
        spread = _larger((1 - alpha) * bound, 2 * alpha * bound**2 * problem.mass) / epsilon
        return _Extent(coefficient, spread, math.inf, (high1, high2))
    low, high = range_of(problem.relative)
    width, widest, sway, *skews = numbers(
        high - low,
        (torch.maximum(high1, high2) - torch.minimum(low1, low2)) / size,
        coefficient * (high1 - low1) * (high2 - low2) / 4,
        first.asymmetry() / size,
        second.asymmetry() / size,
    )
    for name, skew in zip(("C1", "C2"), skews, strict=True):
        if skew > 0.01 * widest:  # more than the rounding of distances that were computed in half precision
            raise UserError(f"{OWNER}: {name} is not symmetric; take (C + C^T) / 2 if its two directions count alike")
    spread = max((1 - alpha) * width, 2 * alpha * widest**2 * problem.mass) / epsilon
    return _Extent(coefficient, spread, sway, (high1, high2))


def _larger(x: float | Tensor, y: float | Tensor) -> float | Tensor:
    """The larger of two numbers, on their device if they are tensors, ()."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.maximum(x, y)
    return max(x, y)


def _logits(relative: Tensor, alpha: float, epsilon: float) -> Tensor:
    """The exponents that the cost gives every step; at alpha 1 only what it forbids."""
    if alpha < 1:
        return relative * ((alpha - 1) / epsilon)
    return torch.where(relative == torch.inf, -torch.inf, relative * 0)


def _scaled_distortion(first: Structure, second: Structure, size: Tensor, plan: Tensor) -> Tensor:
    with constants(plan.device):
        return distortion(first, plan, second) / size.square()


def from_lambda(weight: float, epsilon: float) -> tuple[float, float]:
    """(alpha, epsilon) here for a solver that linearises to (1 - weight) M + weight L x T, without the gradient's factor 2.

    >>> from_lambda(0.125, 0.1)
    (0.06666666666666667, 0.10666666666666667)
    """
    return weight / (2 - weight), 2 * epsilon / (2 - weight)
