"""What a solver returns: a coupling with its potentials, and everything one may want to know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


def inner(plan: Tensor, cost: Tensor) -> Tensor:
    """<T, C>, a scalar, of a plan and costs, both (n, m). Forbidden pairs (infinite cost, no mass) count nothing."""
    return torch.where(plan > 0, plan * cost, 0).sum()


def kl(x: Tensor, y: Tensor) -> Tensor:
    """KL(x | y) = sum x log(x / y) - x + y, a scalar, for nonnegative (n,) of any mass; y > 0 wherever x > 0."""
    return (torch.xlogy(x, x) - torch.xlogy(x, torch.where(x > 0, y, 1)) - x + y).sum()


@dataclass(frozen=True, eq=False)
class Coupling:
    """A coupling T of the marginals a and b. Nothing in it carries gradients.

    Numbers are tensors without dimensions on the device of the plan, computed when first asked for.

    Attributes:
        plan: T (n, m), nonnegative.
        f: potential of the rows (n,), in units of the scaled cost; -inf where a is 0.
        g: potential of the columns (m,). T = exp((f + g - C) / eps); C is the cost, linearised at T for the fused problem and
            there without terms that are constant along rows or columns.
        a: marginal of the rows (n,).
        b: marginal of the columns (m,).
        epsilon: strength of the entropy.
        iters: Sinkhorn iterations that were done, all outer ones together.
        method: ``log`` or ``kernel``, the solver that the result is from.
    """

    plan: Tensor
    f: Tensor
    g: Tensor
    a: Tensor
    b: Tensor
    epsilon: float
    iters: int | Tensor
    method: str

    @cached_property
    def row_err(self) -> Tensor:
        """|T 1 - a|_1, a scalar."""
        return (self.plan.sum(1) - self.a).abs().sum()

    @cached_property
    def col_err(self) -> Tensor:
        """|T^T 1 - b|_1, a scalar."""
        return (self.plan.sum(0) - self.b).abs().sum()

    @cached_property
    def neg_entropy(self) -> Tensor:
        """sum_ij T_ij (log T_ij - 1), a scalar, with 0 log 0 = 0."""
        return torch.xlogy(self.plan, self.plan).sum() - self.plan.sum()

    @cached_property
    def perplexity(self) -> Tensor:
        """How many columns each row is spread over: exp of the entropy of T_i. / sum_j T_ij, (n,) in [1, m]."""
        rows = self.plan / self.plan.sum(1, keepdim=True).clamp_min(torch.finfo(self.plan.dtype).tiny)
        return torch.exp(-torch.xlogy(rows, rows).sum(1))


@dataclass(frozen=True, eq=False)
class LinearCoupling(Coupling):
    """Solution of (unbalanced) entropic transport; see `sinkhorn` for its objective.

    Attributes:
        cost: C (n, m), scaled.
        rho: strength of the marginal penalties; None for constraints.
        reg_type: ``kl`` or ``entropy``, the regulariser of an unbalanced problem.
    """

    cost: Tensor
    rho: float | None
    reg_type: str

    @cached_property
    def linear(self) -> Tensor:
        """<T, C>, a scalar."""
        return inner(self.plan, self.cost)

    @cached_property
    def objective(self) -> Tensor:
        """The minimised functional, a scalar, entropy and penalties included."""
        if self.rho is None:
            return self.linear + self.epsilon * self.neg_entropy
        rows, columns = self.plan.sum(1), self.plan.sum(0)
        omega = kl(self.plan, self.a[:, None] * self.b) if self.reg_type == "kl" else self.neg_entropy
        return self.linear + self.epsilon * omega + self.rho * (kl(rows, self.a) + kl(columns, self.b))


@dataclass(frozen=True, eq=False)
class FusedCoupling(Coupling):
    """Stationary point of entropic fused Gromov-Wasserstein; see `fused_gromov_wasserstein` for its objective.

    Attributes:
        cost: M (n, m), scaled.
        alpha: weight of the structure.
        outer_iters: mirror descent steps that were done.
        distortion: T -> sum (C1_ik - C2_jl)^2 T_ij T_kl, with scaled structures.
    """

    cost: Tensor
    alpha: float
    outer_iters: int | Tensor
    distortion: Callable[[Tensor], Tensor]

    @cached_property
    def linear(self) -> Tensor:
        """<T, M>, a scalar."""
        return inner(self.plan, self.cost)

    @cached_property
    def quadratic(self) -> Tensor:
        """sum_ijkl (C1_ik - C2_jl)^2 T_ij T_kl, a scalar, the Gromov-Wasserstein distortion."""
        return self.distortion(self.plan)

    @cached_property
    def objective(self) -> Tensor:
        """(1 - alpha) <T, M> + alpha distortion + eps sum T (log T - 1), a scalar."""
        return (1 - self.alpha) * self.linear + self.alpha * self.quadratic + self.epsilon * self.neg_entropy
