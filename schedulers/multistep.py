"""Rates that drop at milestones."""

from __future__ import annotations

from bisect import bisect_right

from torch.optim import Optimizer

from . import SCHEDULERS
from .base import ClosedForm, restart_table


@SCHEDULERS.register(aliases=("MultiStepLR",))
class MultiStepRestartLR(ClosedForm):
    """Multiply the rate by `gamma` at every milestone; start again from the base rate at every restart.

    BasicSR's scheduler, of both its names. Without restarts it is torch's MultiStepLR.

    Args:
        optimizer: sets the base rates.
        milestones: steps at which the rate drops; one given twice counts twice. A milestone at a restart has no effect.
        gamma: factor of a drop.
        restarts: steps at which the rate becomes base rate times weight; ``[0]`` when omitted.
        restart_weights: one weight per restart; 1 each when omitted.
        last_epoch: see `ClosedForm`.

    Raises:
        UserError: `restarts` and `restart_weights` differ in length.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: list[int],
        gamma: float = 0.1,
        restarts: list[int] | None = None,
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
