"""Where on the path from noise (t = 0) to data (t = 1) a generator is trained, sample by sample and stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from ....schedulers.ramp import between
from ...annotations import Positive, Range, Share
from ...errors import UserError, require


@dataclass
class Times:
    """Distribution of the training time t, which is 0 at noise and 1 at data.

    With probability `one_step` t is 0, the only time that one-step generation uses; else it is drawn from [a, b]:
    ``t = a + (b - a) sigmoid(mean + std x)``, x from Student's distribution (1 degree of freedom is Cauchy's) or the normal
    one; uniform; ``cosine``, (1 - cos(pi u)) / 2; or beta. [a, b] is `stage1` for the first `stage1_samples` training samples,
    then moves to `stage2` along a cosine, over `transition_samples`.

    Noise is at 0: an implementation that has data there calls our first stage (0.7, 1).

    Args:
        distribution: distribution of t within [a, b].
        one_step: probability of t = 0.
        df: degrees of freedom of Student's distribution.
        mean: mean of the logit of t.
        std: standard deviation of the logit of t.
        alpha: first parameter of the beta distribution.
        beta: second parameter of the beta distribution.
        stage1: [a, b] at first.
        stage2: [a, b] later.
        stage1_samples: length of the first stage.
        transition_samples: length of the way to the second.

    Raises:
        UserError: an interval that is empty or not within [0, 1].
    """

    MODES: ClassVar = {
        "df": ("distribution", ("logit_student_t",)),
        **dict.fromkeys(("mean", "std"), ("distribution", ("logit_student_t", "logit_normal"))),
        **dict.fromkeys(("alpha", "beta"), ("distribution", ("beta",))),
    }
    """Options that only some distributions have."""
    distribution: Literal["logit_student_t", "logit_normal", "uniform", "cosine", "beta"] = "logit_student_t"
    one_step: Share = 0.5
    df: Positive = 1.0
    mean: float = 0.0
    std: Positive = 1.0
    alpha: Positive = 2.0
    beta: Positive = 3.0
    stage1: tuple[float, float] = (0.0, 0.3)
    stage2: tuple[float, float] = (0.0, 1.0)
    stage1_samples: Annotated[float, Range(least=0)] = 10_000
    transition_samples: Annotated[float, Range(least=0)] = 5_000

    def __post_init__(self) -> None:
        for name in ("stage1", "stage2"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise UserError(f"{name}: [{low}, {high}] is no interval of times from 0 (noise) to 1 (data)")

    def range_at(self, done: float) -> tuple[float, float]:
        """[a, b] after `done` samples."""
        after = done - self.stage1_samples
        progress = after / self.transition_samples if self.transition_samples else float(after >= 0)
        (a1, b1), (a2, b2) = self.stage1, self.stage2
        return between(a1, a2, progress, "cosine"), between(b1, b2, progress, "cosine")

    def quantile(self, u: np.ndarray, low: float, high: float) -> np.ndarray:
        """The times in [low, high] below which shares `u` of all times in there lie: (B,) to (B,), float64."""
        special = require("scipy.special", "train.times")
        if self.distribution in ("logit_student_t", "logit_normal"):
            if self.distribution == "logit_normal":
                x = special.ndtri(u)
            else:
                x = np.tan(np.pi * (u - 0.5)) if self.df == 1 else special.stdtrit(self.df, u)
            share = special.expit(self.mean + self.std * x)
        elif self.distribution == "beta":
            share = special.betaincinv(self.alpha, self.beta, u)
        else:
            share = u if self.distribution == "uniform" else (1 - np.cos(np.pi * u)) / 2
        result: np.ndarray = np.clip(low + (high - low) * share, low, high)
        return result

    def draw(self, u: np.ndarray, done: float) -> np.ndarray:
        """Times (B,), float64, from two uniform numbers for each sample, `u` (B, 2), after `done` samples."""
        times = self.quantile(u[:, 1], *self.range_at(done))
        return np.where(u[:, 0] < self.one_step, 0.0, times)
