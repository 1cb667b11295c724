"""Costs between feature vectors: (n, d) and (m, d) -> (n, m), or (n, n) with an exactly zero diagonal for one set.

In float32 at least, by one matrix product. Gradients flow.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.ops.precision import full_precision


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """|x_i - y_j|^2 of (n, d) and (m, d): (n, m); for unit vectors 2 - 2 cos."""
    with full_precision(x):
        x = _precise(x)
        other = x if y is None else _precise(y)
        norms, other_norms = x.square().sum(1), other.square().sum(1)
        cost = torch.addmm(other_norms.expand(len(x), -1), x, other.t(), alpha=-2).add(norms[:, None]).clamp_min(0)
        return cost if y is not None else cost * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))


def euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """|x_i - y_j| of (n, d) and (m, d): (n, m). The gradient at coinciding points is zero."""
    squares = squared_euclidean(x, y)
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), 0)


def cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """1 - cos of the angle of (n, d) and (m, d): (n, m) in [0, 2], half the squared distance of the directions."""
    with full_precision(x):
        directions = F.normalize(_precise(x), dim=1)
        return squared_euclidean(directions, None if y is None else F.normalize(_precise(y), dim=1)) / 2
