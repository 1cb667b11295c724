"""Sinkhorn's iterations: alternate scaling of a positive matrix to given marginals, in the log domain or on the kernel.

Both solvers work on ``logits = -C / eps`` (n, m) and on scaled potentials phi = f / eps (n,), gamma = g / eps (m,), so that

    T_ij = exp(phi_i + gamma_j + logits_ij).

One iteration updates gamma, then phi: afterwards the rows of T are exact and the columns approximate. A marginal of zero gives
the potential -inf and an empty row or column. A logit of -inf forbids a pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.ops.log_sinkhorn import PotentialRule, absorbed, update_potentials
from ...core.ops.sinkhorn import scale_to_marginals

HARD = 87.0
"""Range of logits above which exp underflows in float32, and above which plain iterations are slow in any precision."""

STAGES = 10
"""Temperatures of an annealing whose first one is known to the device alone."""

ABSORB_EVERY = {False: 100, True: 25}
"""Iterations on one kernel before its scalings are moved into the potentials, for easy and hard problems."""


class Potentials(NamedTuple):
    """phi (n,) and gamma (m,)."""

    phi: Tensor
    gamma: Tensor

    def plan(self, logits: Tensor) -> Tensor:
        """T_ij = exp(phi_i + gamma_j + logits_ij), (n, m)."""
        return (logits + self.phi[:, None]).add_(self.gamma).exp_()


class Problem(NamedTuple):
    """What an update has to reach: logits (n, m), marginals a (n,) and b (m,), and how potentials are updated."""

    logits: Tensor
    a: Tensor
    b: Tensor
    rule: PotentialRule

    def with_logits(self, logits: Tensor) -> Problem:
        return self._replace(logits=logits)


@dataclass(frozen=True)
class Stopping:
    """When to stop iterating: after `iters`, or when the L1 error, looked at every `every` iterations, is small enough.

    Args:
        iters: largest number of iterations.
        tol: small enough. 0 never looks, hence never waits for the device.
        every: iterations between looks.
        rounding: errors up to this may be due to rounding; among them, one that no longer falls is small enough too.
        there: decide on the device, which is then not waited for: what is left of the iterations changes nothing.
    """

    iters: int
    tol: float = 0.0
    every: int = 10
    rounding: float = 0.0
    there: bool = False

    def due(self, done: int) -> bool:
        return self.tol > 0 and done > 0 and done % self.every == 0

    def look_after(self, done: int) -> int:
        """After how many iterations, more than `done`, the next look at the error is due."""
        return done - done % self.every + self.every if self.tol > 0 else self.iters

    def only(self, iters: int) -> Stopping:
        """The same with another limit."""
        return replace(self, iters=iters)


class Watch:
    """Looks at errors, and knows whether to go on: on the host, or on the device, where work that is too much is undone.

    Args:
        stop: the condition.
        like: a tensor on the device.
    """

    def __init__(self, stop: Stopping, like: Tensor) -> None:
        self.stop = stop
        self.there = stop.there and stop.tol > 0
        self.ended: Tensor | None = None
        """Whether the end was seen, on the device."""
        self.count: int | Tensor = 0
        """Iterations that counted."""
        self.error: Any = math.inf
        if self.there:
            self.count = like.new_zeros((), dtype=torch.int64)
            self.error, self.ended = like.new_full((), math.inf), like.new_zeros((), dtype=torch.bool)

    def over(self, error: Tensor) -> bool:
        """Whether to stop now, at `error`, a scalar. An error up to the rounding is small enough if the one before was no
        larger.
        """
        now: Any = error if self.ended is not None else float(error)
        met = (now <= self.stop.tol) | (self.error <= now) & (now <= self.stop.rounding)
        self.error = now
        if self.ended is None:
            return bool(met)
        self.ended = self.ended | met
        return False

    def counted(self, iterations: int | Tensor) -> int | Tensor:
        """`iterations`, a number or a scalar tensor, or 0 where the end was seen."""
        return iterations if self.ended is None else torch.where(self.ended, 0, iterations)

    def add(self, iterations: int | Tensor) -> None:
        """Count iterations, a number or a scalar tensor, that were done since the last look."""
        self.count = self.count + self.counted(iterations)

    def held(self, before: Tensor, after: Tensor, ended: Tensor | None = None) -> Tensor:
        """`after`, or `before`, of one shape, where the end was seen already: now, or when `ended` was read."""
        ended = self.ended if ended is None else ended
        return after if ended is None else torch.where(ended, before, after)


def balanced(logits: Tensor, a: Tensor, b: Tensor) -> Problem:
    """Both marginals are constraints: phi = log a - LSE_j(gamma + logits), (n,), and the same for gamma, (m,)."""
    return Problem(logits, a, b, PotentialRule())


def unbalanced(logits: Tensor, a: Tensor, b: Tensor, damping: float, reference: bool) -> Problem:
    """The problem of logits (n, m) and marginals (n,) and (m,), of which only rho KL penalises a deviation.

    Its fixed point damps each update by ``damping`` = rho / (rho + eps).

    With the entropy relative to a b^T (`reference`), phi = log a - damping LSE; relative to the constant 1,
    phi = damping (log a - LSE). Where nothing is allowed, no mass goes; the penalty lets it. Chizat et al., "Scaling
    algorithms for unbalanced optimal transport problems" (2018).
    """
    return Problem(logits, a, b, PotentialRule(damping, 1.0 if reference else damping, True))


def log_iterations(problem: Problem, start: Potentials, stop: Stopping) -> tuple[Potentials, int | Tensor]:
    """Iterate in the log domain, where nothing over- or underflows: potentials (n,) and (m,), and the iterations done.

    The residual is how much mass the next column update would move, which for balanced problems is the column error.
    """
    (logits, a, b, rule), (phi, gamma) = problem, (potential.clone() for potential in start)
    done, watch = 0, Watch(stop, logits)
    while done < stop.iters:
        if stop.due(done):
            lse = torch.logsumexp(logits + phi[:, None], 0)
            following = rule.potential(b, lse)
            if watch.over((torch.exp(gamma + lse) - torch.exp(following + lse)).abs().sum()):
                break
        count = min(stop.iters, stop.look_after(done)) - done
        before = (phi.clone(), gamma.clone()) if watch.there else (phi, gamma)
        update_potentials(logits, a, b, phi, gamma, count, rule)
        phi, gamma = (watch.held(*pair) for pair in zip(before, (phi, gamma), strict=True))
        watch.add(count)
        done += count
    return Potentials(phi, gamma), watch.count


def temperatures(spread: float | Tensor) -> list[float] | list[Tensor]:
    """Falling temperatures above 1 of an annealing from `spread`, the range of the logits.

    Each is half of the one before, down to 2. For a scalar tensor, whose value the host does not read, there are `STAGES` in
    equal proportions, all of them 1 if the range is below that.
    """
    if isinstance(spread, Tensor):
        return [spread.clamp_min(1) ** (stage / STAGES) for stage in range(STAGES, 0, -1)]
    stages = math.ceil(math.log2(spread)) if 1 < spread < math.inf else 0
    return [2.0**stage for stage in range(stages, 0, -1)]


def anneal(problem: Problem, start: Potentials, spread: float | Tensor, budget: int) -> tuple[Potentials, int]:
    """Iterate in the log domain at falling temperatures (eps scaling) from `spread`, a number or a scalar tensor.

    Potentials in units of the cost carry over from one temperature to the next, so that a small eps needs far fewer iterations.

    Returns:
        Potentials at temperature 1, and the iterations done: ten for each stage, less if that would exceed `budget`.
    """
    stages = temperatures(spread)
    each = min(10, budget // len(stages)) if stages else 0
    phi, gamma = start
    for temperature in stages if each else ():
        tempered = problem.with_logits(problem.logits / temperature)
        cooled, _ = log_iterations(tempered, Potentials(phi / temperature, gamma / temperature), Stopping(each))
        phi, gamma = cooled.phi * temperature, cooled.gamma * temperature
    return Potentials(phi, gamma), len(stages) * each


def kernel_iterations(
    problem: Problem, start: Potentials, stop: Stopping, absorb_every: int, guarded: bool = False
) -> tuple[Potentials, Tensor, int | Tensor]:
    """Iterate by matrix-vector products with K = exp(phi + gamma + logits), (n, m); balanced problems only.

    The scalings u, v of K are absorbed into the potentials, and K computed afresh, every `absorb_every` iterations (Schmitzer,
    "Stabilized sparse scaling algorithms for entropy regularized transport problems", 2019, section 3.1).
    The columns of K are first divided by their maxima, which changes nothing: gamma is updated first.

    Args:
        problem: what to reach.
        start: potentials to start from.
        stop: condition to stop at.
        absorb_every: iterations on one K.
        guarded: take one more iteration in the log domain before each K, and go on from there, as the device decides, where the
            numbers of that K left the range of the dtype.

    Returns:
        The potentials, the plan, and the iterations done. When the kernel underflows nevertheless, the plan has wrong row
        sums or NaN unless `guarded`; its caller checks.
    """
    (phi, gamma), a, b = start, problem.a, problem.b
    u, v = torch.empty_like(a), torch.empty_like(b)
    done, converged, watch = 0, False, Watch(stop, a)
    plan: Tensor | None = None
    while True:
        # K from the potentials, which one safe iteration may improve first.
        if guarded:
            (phi, gamma), _ = log_iterations(problem, Potentials(phi, gamma), Stopping(1))
        safe = Potentials(phi, gamma)
        kernel, shift = absorbed(problem.logits, phi, gamma)
        u.fill_(1)
        v.copy_(torch.exp(shift))  # what u, v stand for before the first update
        # Iterations on this K.
        absorb = min(done + absorb_every, stop.iters)
        ended = watch.ended
        while done < absorb and not converged:
            count = min(absorb, stop.look_after(done)) - done
            before = (u.clone(), v.clone()) if watch.there else (u, v)
            scale_to_marginals(kernel, a, b, u, v, count)
            u, v = (watch.held(*pair) for pair in zip(before, (u, v), strict=True))
            watch.add(count)
            done += count
            if stop.due(done):
                converged = watch.over((v * (kernel.t() @ u) - b).abs().sum())
        last = converged or done == stop.iters
        made = phi + u.log(), gamma - shift + v.log(), kernel.mul_(u[:, None]).mul_(v)
        if guarded:
            held = sound(made[2], a)
            kept = *safe, safe.plan(problem.logits) if last else made[2]
            phi_kept, gamma_kept, plan_kept = (torch.where(held, n, o) for n, o in zip(made, kept, strict=True))
            made = phi_kept, gamma_kept, plan_kept
        old = made if plan is None else (phi, gamma, plan)
        # What is made of a kernel after the end differs by rounding.
        phi, gamma, plan = (watch.held(*pair, ended) for pair in zip(old, made, strict=True))
        if last:
            return Potentials(phi, gamma), plan, watch.count


def sound(plan: Tensor, a: Tensor) -> Tensor:
    """Whether no number of a plan (n, m) left the range of its dtype, a bool tensor, ().

    Rows are exact after every iteration, up to rounding: if they are not, numbers did.
    """
    return (plan.sum(1) - a).abs().sum() <= torch.finfo(a.dtype).eps ** 0.5 * a.sum()


class Solution(NamedTuple):
    """What an inner or outer solver returns: potentials (n,) and (m,), the plan (n, m), and iterations done."""

    potentials: Potentials
    plan: Tensor
    iters: int | Tensor
    outer_iters: int | Tensor = 1


def solve(
    problem: Problem, start: Potentials, stop: Stopping, kernel: bool, spread: float | Tensor, cold: bool = True
) -> Solution:
    """Scale to the marginals on the kernel or in the log domain.

    Args:
        problem: balanced, if `kernel`.
        start: potentials to start from.
        stop: condition to stop at.
        kernel: whether the kernel solver is taken, or the one in the log domain.
        spread: about the range of the logits. A tensor, (), is not looked at: the problem counts as hard, and the device
            decides where the log domain has to serve.
        cold: `start` knows nothing of the problem. Then eps is annealed if `spread` is HARD. The kernel is preceded by one
            iteration in the log domain, after which none of its columns is empty, if either holds.
    """
    unseen = isinstance(spread, Tensor)
    hard = isinstance(spread, Tensor) or spread > HARD
    used = 0
    if cold and hard:
        start, used = anneal(problem, start, spread, stop.iters // 2)
    if not kernel:
        # Each exponential carries the rounding error of its exponent, on the kernel only until the scalings correct it.
        if stop.tol > 0:
            stop = replace(stop, rounding=stop.rounding * max(1.0, float(spread) / 4))
        potentials, done = log_iterations(problem, start, stop.only(stop.iters - used))
        return Solution(potentials, potentials.plan(problem.logits), used + done)
    if stop.iters > used and (cold or hard):
        start, _ = log_iterations(problem, start, Stopping(1))
        used += 1
    potentials, plan, done = kernel_iterations(problem, start, stop.only(stop.iters - used), ABSORB_EVERY[hard], unseen)
    return Solution(potentials, plan, used + done)


def kernel_or_log(
    run: Callable[[bool], Solution], kernel: bool, a: Tensor, asking: bool = True
) -> tuple[Solution, str]:
    """``run(kernel)``, and again in the log domain if the kernel broke down; also the name of the solver that succeeded.

    `a` (n,) is the marginal of the rows. Without `asking` the device whether it broke down, the plan is then NaN.
    """
    if kernel:
        solution = run(True)
        held = sound(solution.plan, a)
        if not asking:
            return solution._replace(plan=torch.where(held, solution.plan, torch.nan)), "kernel"
        if bool(held):
            return solution, "kernel"
    return run(False), "log"
