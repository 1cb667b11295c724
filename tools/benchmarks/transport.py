"""Fused Gromov-Wasserstein transport against POT 0.9.7 and against the algorithm of the original, at its sizes and budget.

Features are clustered unit vectors, 384-d; structures Euclidean; lambda 0.125 and epsilon 0.1 in the original's convention.
"All 50 x 10" performs every Sinkhorn iteration of every step (tol 0), as POT does there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from relume.core.errors import require
from relume.core.ops import hosts
from relume.losses.ot import Dense, SquaredEuclidean, costs, from_lambda, fused_gromov_wasserstein
from relume.losses.ot.structure import distortion

from .common import Row, best_of, seconds, section

SIZES = ((32, 2048), (256, 2048), (512, 512))
OUTER, INNER = 10, 50
LAMBDA, EPSILON = 0.125, 0.1
ROUNDS = 8


@dataclass(frozen=True)
class Problem:
    """Points of two clouds, and the costs between and within them; both structures over the larger of their maxima."""

    x: Tensor
    y: Tensor
    between: Tensor
    first: Tensor
    second: Tensor

    def objective(self, plan: Any) -> float:
        """The minimised functional in float64."""
        alpha, epsilon = from_lambda(LAMBDA, EPSILON)
        plan = torch.as_tensor(plan).double()
        quadratic_term = distortion(Dense(self.first.double()), plan, Dense(self.second.double()))
        entropy = torch.xlogy(plan, plan).sum() - plan.sum()
        return float((1 - alpha) * (plan * self.between.double()).sum() + alpha * quadratic_term + epsilon * entropy)


def problem(n: int, m: int) -> Problem:
    """Both clouds drawn from ten clusters on the sphere."""
    drawn = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 384, generator=drawn)

    def cloud(size: int) -> Tensor:
        chosen = centres[torch.randint(10, (size,), generator=drawn)]
        return F.normalize(chosen + 0.7 * torch.randn(size, 384, generator=drawn), dim=1)

    x, y = cloud(n), cloud(m)
    between, first, second = costs.squared_euclidean(x, y), costs.euclidean(x), costs.euclidean(y)
    size = torch.maximum(first.max(), second.max())
    return Problem(x, y, between / between.max(), first / size, second / size)


def original(given: Problem) -> Tensor:
    """The plan (n, m) of the original's solver, by its description: three nested maxima, wrong constants where n differs from
    m.

    Plans are what they are; this is here for the time that it takes.
    """
    n, m = given.between.shape
    log_p, log_q = torch.full((n,), 1 / n).log(), torch.full((m,), 1 / m).log()
    plan = torch.full((n, m), 1 / (n * m))
    for _ in range(OUTER):
        constant_rows = (given.first**2).sum(1, keepdim=True) * plan.sum(0, keepdim=True)
        constant_columns = plan.sum(1, keepdim=True) * (given.second**2).sum(0, keepdim=True)
        gradient = constant_rows + constant_columns - 2 * given.first @ plan @ given.second
        cost = (1 - LAMBDA) * given.between + LAMBDA * gradient / gradient.abs().max()
        logits = -cost / cost.max() / EPSILON
        u, v = torch.zeros(n), torch.zeros(m)
        for _ in range(INNER):
            before = u.clone()
            u = log_p - torch.logsumexp(logits + v[None, :], 1)
            v = log_q - torch.logsumexp(logits + u[:, None], 0)
            if (u - before).abs().max() < 1e-6:
                break
        plan = torch.exp(u[:, None] + logits + v[None, :])
        plan = plan / plan.sum()
    return plan


def pot(given: Problem, convert: Callable[[Tensor], Any]) -> Callable[[], Any]:
    """POT's projected gradient descent on arrays that `convert` makes of tensors, in their shapes."""
    solver = require("ot", "this section", "pip install POT==0.9.7").gromov.entropic_fused_gromov_wasserstein
    alpha, epsilon = from_lambda(LAMBDA, EPSILON)
    n, m = given.between.shape
    marginals = torch.full((n,), 1 / n), torch.full((m,), 1 / m)
    arrays = [convert(t) for t in (given.between, given.first, given.second, *marginals)]
    options = {"epsilon": epsilon, "alpha": alpha, "symmetric": True, "max_iter": OUTER, "tol": 0, "solver": "PGD"}

    def solve() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the tolerance of 0 that is not reached
            return solver(*arrays, "square_loss", **options, numItermax=INNER, stopThr=0)

    return solve


@section("transport")
def transport() -> list[Row]:
    """Time for one plan, and how far the objective is from POT's, relatively."""
    alpha, epsilon = from_lambda(LAMBDA, EPSILON)
    options: dict[str, Any] = {"alpha": alpha, "epsilon": epsilon, "outer_iters": OUTER, "inner_iters": INNER}
    rows: list[Row] = []
    for n, m in SIZES:
        given = problem(n, m)

        def ours(tol: float = 0.0, given: Problem = given) -> Tensor:
            return fused_gromov_wasserstein(
                given.between, given.first, given.second, **options, tol=tol, cost_scale="none"
            ).plan

        def every_product(ours: Callable[[], Tensor] = ours) -> Tensor:
            with mock.patch.object(hosts, "asks_freely", lambda x: False):
                return ours()

        def points(given: Problem = given) -> Tensor:
            structures = SquaredEuclidean(given.x / 2), SquaredEuclidean(given.y / 2)  # distances within 1
            return fused_gromov_wasserstein(given.between, *structures, **options, tol=0, cost_scale="none").plan

        # Every solver on the same problem, those of others included.
        peers = [pot(given, Tensor.numpy), pot(given, lambda t: t), lambda given=given: original(given)]
        contestants = [ours, every_product, lambda ours=ours: ours(1e-6), points, *peers]
        full, products, stopping, squared, numpy, backend, origin = best_of(ROUNDS, *contestants)
        what = f"transport {n} x {m}"
        # Times, and that all of them find plans of the same objective.
        rows += [
            (f"{what}: all 50 x 10", seconds(full), f"{seconds(numpy)} POT numpy float32", f"{full / numpy:.2f}"),
            ("", "", f"{seconds(backend)} POT torch", f"{full / backend:.2f}"),
            ("", "", f"{seconds(origin)} original's", f"{full / origin:.2f}"),
            ("  every product formed", seconds(products), "POT numpy float32", f"{products / numpy:.2f}"),
            ("  stopping at 1e-6, the default", seconds(stopping), "POT numpy float32", f"{stopping / numpy:.2f}"),
            ("  squared Euclidean from points, all", seconds(squared), "POT numpy float32", f"{squared / numpy:.2f}"),
        ]
        reference = given.objective(peers[0]())
        worst = max(abs(given.objective(run()) / reference - 1) for run in contestants[:3])
        rows.append(("  objective, relative difference", f"{worst:.1e}", f"{reference:.6f} POT numpy", "<= 1e-6"))
    return rows
