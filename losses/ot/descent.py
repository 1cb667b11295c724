"""Mirror descent on the objective of fused Gromov-Wasserstein transport."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.ops import hosts
from .scaling import Potentials, Solution, Stopping, Watch, balanced, solve
from .structure import Structure, cross_product


@dataclass(frozen=True)
class Descent:
    """Mirror descent on the objective with step 1 / eps: each step is an entropic problem with the cost linearised at T.

    Half the gradient of the quadratic term, L x T, has parts that are constant along rows or columns. They are left out:
    the potentials of a balanced problem absorb them.

    Args:
        logits: -(1 - alpha) M / eps, (n, m).
        first, second: the structures C1, C2, unscaled.
        coefficient: 4 alpha / (eps s^2), s the scale of the structures.
        a, b: marginals.
        spread: an estimate of the range of the linearised cost, over eps; a tensor, (), is not looked at.
        sway: how far the logits move at most, but for constants along rows or columns, per L1 change of the plan.
        outer: steps at most, and the L1 change of the plan at which to stop.
        inner: iterations of each step.
        warm_start: start each step at the potentials of the one before.
    """

    logits: Tensor
    first: Structure
    second: Structure
    coefficient: Tensor
    a: Tensor
    b: Tensor
    spread: float | Tensor
    sway: float
    outer: Stopping
    inner: Stopping
    warm_start: bool

    def run(self, plan: Tensor | None, kernel: bool) -> Solution:
        """Descend from `plan` (n, m), or from a b^T over the mass, if None."""
        # Zero potentials of the full cost, in terms of the one without constants.
        rows = self.first.squared_times(self.a) * (-self.coefficient / 2)
        cold = potentials = Potentials(rows, torch.zeros_like(self.b))
        problem = balanced(self.linearised(plan), self.a, self.b)
        linearised_at = plan
        iters: int | Tensor = 0
        watch = Watch(self.outer, self.logits)
        for step in range(1, self.outer.iters + 1):
            if step > 1 and plan is not None and not self.still(plan, linearised_at):
                problem = problem.with_logits(self.linearised(plan))
                linearised_at = plan
            is_cold = step == 1 or not self.warm_start
            start = cold if is_cold else potentials
            previous, before = plan, potentials
            potentials, plan, done, _ = solve(problem, start, self.inner, kernel, self.spread, is_cold)
            iters = iters + watch.counted(done)
            watch.add(1)
            if previous is not None:
                plan = watch.held(previous, plan)
                potentials = Potentials(*(watch.held(*pair) for pair in zip(before, potentials, strict=True)))
                if self.outer.due(step) and watch.over(l1_distance(plan, previous)):
                    break
        assert plan is not None
        return Solution(potentials, plan, iters, watch.count)

    def linearised(self, plan: Tensor | None) -> Tensor:
        """The logits (n, m) of the problem at `plan`. At a b^T the product C1 T C2 is one of two vectors."""
        if plan is None:
            left = self.first.times(self.a) * (self.coefficient / self.b.sum())
            return torch.addr(self.logits, left, self.second.times(self.b))
        return torch.addcmul(self.logits, cross_product(self.first, plan, self.second), self.coefficient)

    def still(self, plan: Tensor, before: Tensor | None) -> bool:
        """Whether the logits at `plan` equal those at the plan `before`, both (n, m), up to rounding, and need not be computed
        again.

        C1 (T - T') C2 is bounded by the L1 norm of T - T', whose row and column sums vanish: only what C1 and C2 deviate
        from the middle of their ranges matters.
        """
        if before is None or self.sway == math.inf or isinstance(self.spread, Tensor) or not hosts.asks_freely(plan):
            return False
        return self.sway * float(l1_distance(plan, before)) <= torch.finfo(plan.dtype).eps * self.spread


def l1_distance(plan: Tensor, other: Tensor) -> Tensor:
    """The L1 norm of the difference of two (n, m), a scalar."""
    return (plan - other).abs().sum()
