"""Distances between sets of feature vectors, (n, d) against (m, d), in float64: the mathematics of generative metrics."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..runtime.messages import sendable

CHUNK = 4096
"""Rows of a distance matrix that are held at a time."""


@sendable
@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of vectors, which add up exactly: over batches, and over ranks.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).

    Attributes:
        n: number of vectors.
        mean: (d,) float64.
        scatter: sum of (x - mean)(x - mean)^T, (d, d) float64.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of the rows of (n, d); n may be 0."""
        x = features.double()
        mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
        centred = x - mean
        return cls(len(x), mean, centred.t() @ centred)

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        n = self.n + other.n
        if n == 0:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.n / n)
        return Moments(n, mean, self.scatter + other.scatter + torch.outer(step, step) * (self.n * other.n / n))

    @property
    def covariance(self) -> Tensor:
        """Unbiased, (d, d); NaN for fewer than two vectors."""
        return self.scatter / (self.n - 1) if self.n > 1 else torch.full_like(self.scatter, torch.nan)


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    The trace of the root is the sum of the singular values of S1^(1/2) S2^(1/2), which rounding harms less than eigenvalues of
    S1 S2 where the covariances are singular. NaN when a moment is not finite.

    Args:
        mean, covariance: (d,) and (d, d) of one set.
        other_mean, other_covariance: mean and covariance of the other.
    """
    moments = [t.double().cpu() for t in (mean, covariance, other_mean, other_covariance)]
    if not all(bool(t.isfinite().all()) for t in moments):
        return float("nan")
    m1, s1, m2, s2 = moments
    root = torch.linalg.svdvals(matrix_root(s1) @ matrix_root(s2)).sum()
    return float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * root)


def matrix_root(matrix: Tensor) -> Tensor:
    """The symmetric root (d, d) of a positive semi-definite matrix; what rounding makes of zero eigenvalues is left out."""
    values, vectors = torch.linalg.eigh(matrix)
    floor = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    result: Tensor = vectors * torch.where(values > floor, values, 0).sqrt() @ vectors.t()
    return result


def kernel_distance(x: Tensor, y: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020) -> Tensor:
    """Unbiased squared MMD with the kernel (x . y / d + 1)^3, of each of many pairs of random subsets, (subsets,).

    Binkowski et al., "Demystifying MMD GANs" (ICLR 2018). Subsets are drawn as torch-fidelity draws them. Sets that are
    no larger than `size` are taken whole; if both are, all values are the same and one is returned.

    Args:
        x: (n, d), n >= 2.
        y: (m, d), m >= 2.
        subsets: number of subsets.
        size: size of a subset, at most the size of the smaller set.
        seed: seed of the draws.
    """
    size = min(size, len(x), len(y))
    rng = np.random.RandomState(seed)  # its numbers are the same in every NumPy
    values = []
    for _ in range(1 if size == len(x) == len(y) else subsets):
        mine, theirs = (s[torch.from_numpy(rng.choice(len(s), size, replace=False)).to(s.device)] for s in (x, y))
        values.append(unbiased_mmd(mine.double(), theirs.double()))
    return torch.stack(values)


def unbiased_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared MMD of (n, d) and (m, d) with the cubic kernel of `kernel_distance`."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.t() / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def inception_score(logits: Tensor, splits: int = 10, seed: int | None = 2020) -> Tensor:
    """exp of the mean KL(p(y|x) | p(y)), of each of `splits` parts of the set, (splits,).

    Salimans et al., "Improved techniques for training GANs" (NeurIPS 2016).

    Args:
        logits: (n, classes), n >= splits.
        splits: number of parts, of which part i holds the images from i n // splits on.
        seed: seed of the order in which images are taken; None keeps theirs.
    """
    if seed is not None:
        order = np.random.RandomState(seed).permutation(len(logits))
        logits = logits[torch.from_numpy(order).to(logits.device)]
    log_p = torch.log_softmax(logits.double(), 1)
    ends = [i * len(log_p) // splits for i in range(splits + 1)]
    return torch.stack([_score(log_p[a:b]) for a, b in itertools.pairwise(ends)])


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    marginal = p.mean(0)
    return torch.exp((p * (log_p - torch.where(marginal > 0, marginal, 1).log())).sum(1).mean())


def precision_recall(generated: Tensor, real: Tensor, k: int = 3) -> tuple[float, float]:
    """Shares of generated images within the real ones' manifold, and of real ones within the generated ones'.

    The manifold of a set is the union of balls around its points that reach to their k-th nearest others. Kynkaanniemi et al.,
    "Improved precision and recall metric for assessing generative models" (NeurIPS 2019).

    Args:
        generated: (n, d), n > k.
        real: (m, d), m > k.
        k: number of the neighbour that bounds a ball, counted from 1.
    """
    centre = real.double().mean(0)  # distances do not change, rounding errors shrink
    x, y = generated.double() - centre, real.double() - centre
    return _covered(x, y, radii(y, k)), _covered(y, x, radii(x, k))


def radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each point of (n, d) to its k-th nearest other, (n,)."""
    found = []
    for start, squares in _squared_distances(x, x):
        rows = torch.arange(len(squares), device=x.device)
        squares[rows, rows + start] = torch.inf
        found.append(squares.kthvalue(k, dim=1).values)
    return torch.cat(found)


def _covered(points: Tensor, centres: Tensor, squared_radii: Tensor) -> float:
    """Share of points (n, d) inside any of the balls."""
    inside = [(squares <= squared_radii).any(1) for _, squares in _squared_distances(points, centres)]
    return float(torch.cat(inside).double().mean())


def _squared_distances(x: Tensor, y: Tensor) -> Iterable[tuple[int, Tensor]]:
    """First row, and squared distances (rows, m), of consecutive parts of `x`."""
    norms = y.square().sum(1)
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        yield start, torch.addmm(norms.expand(len(part), -1), part, y.t(), alpha=-2) + part.square().sum(1)[:, None]
