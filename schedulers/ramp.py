"""Values that change in the course of training: from one to another over so many samples, and then no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..core.annotations import Positive
from ..core.errors import UserError
from .base import cosine

Shape = Literal["linear", "cosine", "exponential", "saturating", "quadratic", "polynomial", "sqrt", "step", "constant"]

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda p: p,
    "cosine": lambda p: 1 - cosine(1.0, 0.0, p),
    "saturating": lambda p: 1 - math.exp(-5 * p),
    "quadratic": lambda p: p * p,
    "polynomial": lambda p: 1 - (1 - p) ** 2,
    "sqrt": math.sqrt,
    "step": lambda p: 0.0,
    "constant": lambda p: 0.0,
}
"""How much of the way is done when a share p < 1 of the time is over. ``exponential`` multiplies instead of adding."""


def between(start: float, end: float, progress: float, shape: str) -> float:
    """From `start` (progress 0) to `end` (progress 1, and for ever after), except that ``constant`` stays at `start`."""
    if shape == "constant" or progress <= 0:
        return start
    if progress >= 1:
        return end
    if shape == "exponential":
        return float(start * (end / start) ** progress)
    return start + (end - start) * SHAPES[shape](progress)


@dataclass(frozen=True)
class Ramp:
    """A value that goes from `start` to `end`.

    Args:
        start: value at the beginning.
        end: value from `over` on.
        over: samples, or whatever else `at` is asked in.
        shape: shape of the way from `start` to `end`; ``exponential`` is geometric, ``saturating`` goes 1 - exp(-5 p) of
            the way, then jumps.

    Raises:
        UserError: a geometric way from, to or through zero.
    """

    start: float
    end: float
    over: Positive
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if self.shape == "exponential" and not self.start * self.end > 0:
            raise UserError(f"shape: exponential cannot lead from {self.start} to {self.end}; linear can")

    def at(self, done: float) -> float:
        """The value after `done` samples."""
        return between(self.start, self.end, done / self.over, self.shape)
