"""Means, deviations and paired bootstrap intervals of scores per picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
"""Bootstrap samples."""
LEVEL = 0.95
"""Confidence level of intervals."""
CHUNK = 2_000_000
"""Numbers that are drawn at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean, and the interval that it lies in with probability `LEVEL`: NaN of fewer than two values."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


def bootstrap(values: np.ndarray, seed: int = 0) -> Interval:
    """The percentile bootstrap of a mean (Efron, 1979): of differences between two methods on the same pictures, it is paired.

    Args:
        values: (N,), finite.
        seed: seed of the resampling; the same values have the same interval.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2:
        return Interval(float(values.mean()) if n else math.nan, math.nan, math.nan)
    random = np.random.default_rng(seed)
    means = []
    for first in range(0, RESAMPLES, step := max(1, CHUNK // n)):
        drawn = random.integers(n, size=(min(step, RESAMPLES - first), n))
        means.append(values[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def decimals(halves: list[float], means: list[float]) -> int:
    """Decimals of a column: those that its narrowest interval leaves meaning to, of 1 to 4; without one, 2 of large figures.

    >>> decimals([0.04, 0.3], [24.1, 25.0]), decimals([0.3], [24.1]), decimals([], [0.81])
    (2, 1, 4)
    """
    known = [h for h in halves if math.isfinite(h) and h > 0]
    if known:
        return min(4, max(1, -math.floor(math.log10(min(known)))))
    finite = [abs(m) for m in means if math.isfinite(m)]
    return 2 if finite and max(finite) > 2 else 4
