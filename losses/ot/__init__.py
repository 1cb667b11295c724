"""Optimal transport between small point clouds, on any device: solvers that know how well they converged.

Problems and their solutions are objects: `sinkhorn` and `fused_gromov_wasserstein` return couplings with marginal errors,
objective, potentials and perplexity; `costs` makes costs from features, `targets` says what to do with a plan. Letters: n rows,
m columns, plan T, costs C and M, potentials f and g. The conventions, POT's, are in the two docstrings.

Plans are constants. Everything is computed in float32 or, for float64 costs, in float64, whatever autocast says.
"""

from __future__ import annotations

from . import costs, targets
from .coupling import Coupling, FusedCoupling, LinearCoupling
from .exact import assignment
from .graphs import Graphs
from .linear import sinkhorn
from .quadratic import from_lambda, fused_gromov_wasserstein
from .structure import Dense, SquaredEuclidean, tensor_product

__all__ = [
    "Coupling",
    "Dense",
    "FusedCoupling",
    "Graphs",
    "LinearCoupling",
    "SquaredEuclidean",
    "assignment",
    "costs",
    "from_lambda",
    "fused_gromov_wasserstein",
    "sinkhorn",
    "targets",
    "tensor_product",
]
