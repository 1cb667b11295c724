"""Intra-space costs of Gromov-Wasserstein, and the products with them that its solver needs."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ...core.errors import UserError
from .costs import squared_euclidean
from .inputs import checked_tensor, precise, scale_of

LOOK = 64
"""Rows of a matrix that are looked at to see whether it is symmetric; all of a large one would take as long as the product."""


class Structure(Protocol):
    """A symmetric matrix C (n, n) of costs within one space."""

    @property
    def size(self) -> int:
        """n."""

    @property
    def source(self) -> Tensor:
        """The tensor that holds the structure: the matrix (n, n), or points (n, d)."""

    def remade(self, source: Tensor) -> Structure:
        """A structure of the same kind that `source` holds, a tensor of the same shape as its own."""

    @property
    def factors(self) -> list[Tensor]:
        """Matrices (n, r), (r, n) whose product is C; (n, n) alone where there is one."""

    def squared_times(self, w: Tensor) -> Tensor:
        """(C o C) w, with the elementwise square: (n,) -> (n,)."""

    def scale(self, kind: str) -> Tensor:
        """A statistic of the entries, a scalar; see `scale_of`."""

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Two numbers, () each, that all entries lie between."""

    def asymmetry(self) -> Tensor:
        """The largest |C_ij - C_ji| in the first rows, a tensor without dimensions, ()."""

    def times(self, w: Tensor) -> Tensor:
        """C w: (n,) -> (n,)."""

    def to(self, like: Tensor) -> Structure:
        """The same structure on the device and in the dtype of `like`, a tensor of any shape."""


class Dense:
    """C itself.

    Args:
        matrix: (n, n), symmetric.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    @property
    def source(self) -> Tensor:
        return self.matrix

    def remade(self, source: Tensor) -> Dense:
        return Dense(source)

    @property
    def factors(self) -> list[Tensor]:
        return [self.matrix]

    def squared_times(self, w: Tensor) -> Tensor:
        return self.matrix.square() @ w

    def asymmetry(self) -> Tensor:
        columns = self.matrix[:, :LOOK].contiguous()  # before it is read across
        return (self.matrix[:LOOK] - columns.t()).abs().amax()

    def times(self, w: Tensor) -> Tensor:
        return self.matrix @ w

    @cached_property
    def extremes(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest entry, scalars."""
        low, high = torch.aminmax(self.matrix)
        return low, high

    def scale(self, kind: str) -> Tensor:
        if kind == "max":
            return scale_of(torch.stack(self.extremes), kind)
        return scale_of(self.matrix, kind)

    def bounds(self) -> tuple[Tensor, Tensor]:
        return self.extremes

    def to(self, like: Tensor) -> Dense:
        same = self.matrix.dtype == like.dtype and self.matrix.device == like.device
        return self if same else Dense(self.matrix.to(like))


class SquaredEuclidean:
    """C_ij = |x_i - x_j|^2, given by the points: with a = |x|^2, C = a 1^T + 1 a^T - 2 X X^T has rank d + 2.

    Products with C therefore cost 2 n (d + 2) instead of n^2 per row; C is formed only where that is more.

    Args:
        points: (n, d).

    Raises:
        UserError: not a matrix.
    """

    def __init__(self, points: Tensor) -> None:
        if points.dim() != 2 or 0 in points.shape:
            raise UserError(f"SquaredEuclidean: points must be a matrix (n, d), not of shape {tuple(points.shape)}")
        points = precise(points)
        self.points = points - points.mean(0)  # distances do not change, rounding errors shrink

    @property
    def size(self) -> int:
        return self.points.shape[0]

    @property
    def source(self) -> Tensor:
        return self.points

    def remade(self, source: Tensor) -> SquaredEuclidean:
        return SquaredEuclidean(source)

    @cached_property
    def norms(self) -> Tensor:
        """a = |x|^2 of the centred points, (n,)."""
        return self.points.square().sum(1)

    @cached_property
    def matrix(self) -> Tensor:
        return squared_euclidean(self.points)

    @cached_property
    def factors(self) -> list[Tensor]:
        n, d = self.points.shape
        if n <= 2 * (d + 2):
            return [self.matrix]
        ones, norms = torch.ones_like(self.norms)[:, None], self.norms[:, None]
        left = torch.cat([norms, ones, -2 * self.points], 1)
        right = torch.cat([ones, norms, self.points], 1)
        return [left, right.t()]

    def squared_times(self, w: Tensor) -> Tensor:
        """sum_j (a_i + a_j - 2 x_i . x_j)^2 w_j, multiplied out: (n,) -> (n,)."""
        x, a = self.points, self.norms
        weighted = x * w[:, None]
        second_moment = weighted.t() @ x
        return (
            w.sum() * a.square()
            + 2 * a * (w @ a)
            + w @ a.square()
            - 4 * a * (x @ weighted.sum(0))
            - 4 * (x @ (a @ weighted))
            + 4 * ((x @ second_moment) * x).sum(1)
        )

    def asymmetry(self) -> Tensor:
        return torch.zeros_like(self.points[0, 0])

    def times(self, w: Tensor) -> Tensor:
        """sum_j (a_i + a_j - 2 x_i . x_j) w_j, multiplied out: (n,) -> (n,)."""
        return self.norms * w.sum() + self.norms @ w - 2 * (self.points @ (w @ self.points))

    def scale(self, kind: str) -> Tensor:
        if kind == "mean":  # of centred points: the mean of x_i . x_j is 0
            mean = 2 * self.norms.mean()
            return torch.where(mean == 0, 1, mean)
        return self.norms.new_ones(()) if kind == "none" else scale_of(self.matrix, kind)

    def bounds(self) -> tuple[Tensor, Tensor]:
        highest = 4 * self.norms.amax()
        return torch.zeros_like(highest), highest

    def to(self, like: Tensor) -> SquaredEuclidean:
        same = self.points.dtype == like.dtype and self.points.device == like.device
        return self if same else SquaredEuclidean(self.points.to(like))


def as_structure(owner: str, name: str, structure: Tensor | SquaredEuclidean, size: int) -> Structure:
    """The structure of a space of `size` points, given as a matrix or by points.

    Raises:
        UserError: other shapes.
    """
    if isinstance(structure, SquaredEuclidean):
        if structure.size != size:
            raise UserError(f"{owner}: {name} has {structure.size} points, but M has {size} of them")
        return structure
    checked_tensor(owner, name, structure)
    if structure.shape != (size, size):
        raise UserError(f"{owner}: {name} has shape {tuple(structure.shape)}; with this M it must be ({size}, {size})")
    return Dense(precise(structure))


def cross_product(first: Structure, plan: Tensor, second: Structure) -> Tensor:
    """C1 T C2 (n, m), multiplied in the cheapest order."""
    return torch.linalg.multi_dot([*first.factors, plan, *second.factors])


def tensor_product(first: Structure, plan: Tensor, second: Structure) -> Tensor:
    """(L x T)_ij = sum_kl (C1_ik - C2_jl)^2 T_kl = ((C1 o C1) T 1)_i + ((C2 o C2) T^T 1)_j - 2 (C1 T C2)_ij, (n, m).

    Peyre, Cuturi and Solomon, "Gromov-Wasserstein averaging of kernel and distance matrices" (ICML 2016), proposition 1.
    """
    rows = first.squared_times(plan.sum(1))
    columns = second.squared_times(plan.sum(0))
    return rows[:, None] + columns - 2 * cross_product(first, plan, second)


def distortion(first: Structure, plan: Tensor, second: Structure) -> Tensor:
    """sum_ijkl (C1_ik - C2_jl)^2 T_ij T_kl = <L x T, T>, a scalar, for T (n, m)."""
    return (tensor_product(first, plan, second) * plan).sum()
