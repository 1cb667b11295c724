"""A warm-up and a decay that are counted in samples, whatever the batch size is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer

from ..core.annotations import Count, NonNegative, Share
from . import SCHEDULERS
from .base import ClosedForm
from .ramp import between


@SCHEDULERS.register()
class WarmupDecayLR(ClosedForm):
    r"""Linear warm-up, then a decay to a fraction of the base rate, counted in samples: the schedule of one-step generation.

    With k samples, w = `warmup`, T = `total` and m = `min_ratio`,

    .. math:: lr_k = \begin{cases} \text{base} \cdot k / w & k < w \\
        \text{base} \cdot (m + (1 - m)\, d((k - w) / (T - w))) & \text{otherwise} \end{cases}

    where d falls from 1 to 0, for ``cosine`` along half a wave. k includes the samples of the step itself, so that the first
    step is not lost. With ``unit: iterations``, k is the number of iterations before the step, however many samples they had:
    so counted the run that this schedule is known from, and was still warming up when it ended.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        warmup: samples of the warm-up; 0 is none.
        total: samples at which the decay ends.
        shape: shape of the decay; ``polynomial`` is (1 - p)^2, ``exponential`` geometric.
        min_ratio: final over base rate.
        unit: what `warmup` and `total` count.
        samples: samples seen when an iteration is over; the iteration itself by default.
        last_epoch: steps taken minus one; -1 starts from the beginning.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: NonNegative,
        total: Count,
        shape: Literal["cosine", "linear", "exponential", "polynomial", "constant"] = "cosine",
        min_ratio: Share = 0.01,
        unit: Literal["samples", "iterations"] = "samples",
        samples: Callable[[int], int] = int,
        last_epoch: int = -1,
    ) -> None:
        if shape == "exponential" and min_ratio == 0:
            raise ValueError("shape exponential needs min_ratio above 0, which it never reaches")
        self.warmup = warmup
        self.total = total
        self.shape = shape
        self.min_ratio = min_ratio
        self.unit = unit
        self.samples = samples
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        if self.unit == "iterations":
            return self.total
        return bisect_left(range(self.total), self.total, key=self.samples)  # a step has at least one sample

    def rate(self, base: float, step: int) -> float:
        return self.after(base, step if self.unit == "iterations" else self.samples(step + 1))

    def after(self, base: float, count: int) -> float:
        """The rate after so many samples or iterations."""
        if count < self.warmup:
            return base * count / self.warmup
        length = self.total - self.warmup
        progress = (count - self.warmup) / length if length > 0 else 1.0
        return between(base, base * self.min_ratio, progress, self.shape)
