"""Rates that drop at milestones, listed or regular."""

from __future__ import annotations

from bisect import bisect_right

from torch.optim import Optimizer

from ..core.annotations import Steps
from . import SCHEDULERS
from .base import ClosedForm, positive, restart_table


@SCHEDULERS.register(aliases=("MultiStepLR",))
class MultiStepRestartLR(ClosedForm):
    """Multiply the rate by `gamma` at every milestone; start again from the base rate at every restart.

    BasicSR's scheduler, of both its names. Without restarts it is torch's MultiStepLR.

    Args:
        optimizer: optimizer, whose rates are the base rates.
        milestones: steps at which the rate drops; one given twice counts twice. A milestone at a restart has no effect.
        gamma: factor of a drop.
        restarts: steps at which the rate becomes base rate times weight; ``[0]`` when omitted.
        restart_weights: one weight per restart; 1 each when omitted.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `restarts` and `restart_weights` differ in length.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: list[Steps],
        gamma: float = 0.1,
        restarts: list[Steps] | None = None,
        restart_weights: list[float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.gamma = gamma
        self.restarts = restart_table("MultiStepRestartLR", restarts, restart_weights)
        self.milestones = sorted(m for m in milestones if m not in self.restarts)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, step: int) -> float:
        restart = max((r for r in self.restarts if r <= step), default=-1)
        drops = bisect_right(self.milestones, step) - bisect_right(self.milestones, restart)
        return base * self.restarts.get(restart, 1.0) * self.gamma**drops


@SCHEDULERS.register()
class StairsLR(ClosedForm):
    """Stairs: ``base gamma^k`` from iteration ``start + k every`` on (iterations count from 1; before `start`, k is 0).

    The rates of DiffIR's two optimizers: its ``lr_sr``, ``gamma_sr``, ``lr_decay_sr`` are base rate, `gamma` and `every` with
    ``encoder_iter`` as `start`; its ``lr_encoder`` and so on the same from 0. (Torch's StepLR drops one iteration later.)

    Args:
        optimizer: optimizer, whose rates are the base rates.
        every: iterations from one drop to the next.
        gamma: factor of a drop.
        start: iteration to count from.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: `every` is not positive.
    """

    def __init__(
        self, optimizer: Optimizer, every: Steps, gamma: float = 0.1, start: Steps = 0, last_epoch: int = -1
    ) -> None:
        self.every = positive("StairsLR", "every", every)
        self.gamma = gamma
        self.start = start
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, step: int) -> float:
        return base * self.gamma ** max(0, (step + 1 - self.start) // self.every)
