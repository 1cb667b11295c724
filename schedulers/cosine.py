"""Cosine annealing towards a floor, in periods or for ever up and down."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from torch.optim import Optimizer

from ..core.annotations import Steps
from ..core.errors import UserError
from . import SCHEDULERS
from .base import ClosedForm, cosine, positive, restart_table


@SCHEDULERS.register()
class CosineAnnealingRestartCyclicLR(ClosedForm):
    """Cosine periods, each with its own weight and floor (Restormer's).

    In period k, t steps after its beginning: ``eta_k + weight_k (base - eta_k) (1 + cos(pi t / period_k)) / 2``. The
    last step of a period belongs to it, so a restart shows one step later. After the last period the rate stays at its
    floor. A floor above the base rate makes the rate rise.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        periods: lengths in steps.
        restart_weights: one per period; 1 each when omitted.
        eta_mins: floors, one per period; 0 each when omitted.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: no period, one that is not positive, or lists of different lengths.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        periods: list[Steps],
        restart_weights: list[float] | None = None,
        eta_mins: list[float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        name = type(self).__name__
        if not periods or min(periods) <= 0:
            raise UserError(f"{name}: periods must be positive numbers of iterations; got {list(periods)}")
        self.periods = list(periods)
        self.ends = list(accumulate(self.periods))
        self.weights = [1.0] * len(periods) if restart_weights is None else list(restart_weights)
        self.floors = [0.0] * len(periods) if eta_mins is None else list(eta_mins)
        for option, values in (("restart_weights", self.weights), ("eta_mins", self.floors)):
            if len(values) != len(periods):
                raise UserError(f"{name}: {len(periods)} periods, but {len(values)} {option}")
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return self.ends[-1]

    def rate(self, base: float, step: int) -> float:
        k = bisect_left(self.ends, step)
        if k == len(self.ends):
            return self.floors[-1]
        progress = (step - (self.ends[k] - self.periods[k])) / self.periods[k]
        return self.floors[k] + self.weights[k] * (cosine(base, self.floors[k], progress) - self.floors[k])


@SCHEDULERS.register()
class CosineAnnealingRestartLR(CosineAnnealingRestartCyclicLR):
    """Cosine periods with one floor (BasicSR's); see `CosineAnnealingRestartCyclicLR`.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        periods: lengths in steps.
        restart_weights: one per period; 1 each when omitted.
        eta_min: the floor.
        last_epoch: steps taken minus one; -1 starts from the beginning.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        periods: list[Steps],
        restart_weights: list[float] | None = None,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, periods, restart_weights, [eta_min] * len(periods), last_epoch)


@SCHEDULERS.register()
class TrueCosineAnnealingLR(ClosedForm):
    """A cosine from the base rate to `eta_min` in `T_max` steps, and back, and so on (NAFNet's name for torch's
    CosineAnnealingLR). Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        T_max: steps of one descent; train no longer, or the rate rises again.
        eta_min: the floor.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `T_max` is not positive.
    """

    def __init__(self, optimizer: Optimizer, T_max: Steps, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = positive("TrueCosineAnnealingLR", "T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return self.T_max

    def rate(self, base: float, step: int) -> float:
        return cosine(base, self.eta_min, step / self.T_max)


@SCHEDULERS.register()
class CosineAnnealingLRWithRestart(ClosedForm):
    """A saw of cosines from the base rate to `eta_min`, each `T_max` steps long, begun anew at every restart.

    Known from the HDR fork of DiffIR. A restart's weight multiplies the rate of that one step only.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        T_max: steps of one descent.
        eta_min: the floor.
        restarts: steps at which a cosine begins besides; ``[0]`` when omitted.
        restart_weights: one per restart; 1 each when omitted.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `T_max` is not positive, or `restarts` and `restart_weights` differ in length.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: Steps,
        eta_min: float = 0.0,
        restarts: list[Steps] | None = None,
        restart_weights: list[float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.T_max = positive("CosineAnnealingLRWithRestart", "T_max", T_max)
        self.eta_min = eta_min
        self.restarts = restart_table("CosineAnnealingLRWithRestart", restarts, restart_weights)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, step: int) -> float:
        if step in self.restarts:
            return base * self.restarts[step]
        restart = max((r for r in self.restarts if r < step), default=0)
        return cosine(base, self.eta_min, (step - restart) % self.T_max / self.T_max)


@SCHEDULERS.register()
class WarmupCosineLR(ClosedForm):
    """A straight line from 0 to the base rate, then one cosine down to `eta_min` (HybridVFI's original, EMA-VFI, RIFE).

    Step s has ``base s / warmup_steps`` before `warmup_steps`, so the very first has the rate 0. A group whose base rate is
    below `eta_min` keeps it after the warm-up.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        total_steps: length of warm-up and cosine together; the rate stays at `eta_min` after that.
        warmup_steps: length of the line.
        eta_min: the floor.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: the warm-up is not shorter than the whole.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Steps,
        warmup_steps: Steps = 2000,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise UserError(
                f"WarmupCosineLR: warmup_steps ({warmup_steps}) must be less than total_steps ({total_steps})"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    @property
    def length(self) -> int:
        return self.total_steps

    def rate(self, base: float, step: int) -> float:
        if step < self.warmup_steps:
            return base * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return cosine(base, min(self.eta_min, base), min(progress, 1.0))
