"""Cosine cycles that grow, shrink in height, and begin with a ramp."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from ..core.annotations import Steps
from ..core.errors import UserError
from . import SCHEDULERS
from .base import ClosedForm, cosine


@SCHEDULERS.register()
class CosineAnnealingWarmupRestarts(ClosedForm):
    """Cycles of a linear ramp from `min_lr` to the peak and a cosine back down.

    Cycle n peaks at ``max_lr gamma^n``. Its length L_n follows from ``L_0 = first_cycle_steps`` by
    ``L_{n+1} = int((L_n - warmup_steps) cycle_mult) + warmup_steps``. A cycle's ramp begins at exactly `min_lr`, so
    does the first cycle where there is no ramp, and none quite comes back to it, its last step being L_n - 1. The rates
    here are absolute: the optimizer's own do not enter.

    Args:
        optimizer: optimizer whose groups get these rates.
        first_cycle_steps: length of the first cycle.
        cycle_mult: growth of the cosine part from cycle to cycle.
        max_lr: first peak; a list gives every parameter group one of its own.
        min_lr: rate at which cycles begin and end.
        warmup_steps: length of the ramp in every cycle.
        gamma: factor of the peak from cycle to cycle.
        last_epoch: steps taken minus one; -1 starts from the beginning.

    Raises:
        UserError: the ramp fills the first cycle, `cycle_mult` is negative, or `max_lr` does not match the groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        first_cycle_steps: Steps,
        cycle_mult: float = 1.0,
        max_lr: float | list[float] = 0.1,
        min_lr: float = 0.001,
        warmup_steps: Steps = 0,
        gamma: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        name = type(self).__name__
        if not 0 <= warmup_steps < first_cycle_steps:
            raise UserError(
                f"{name}: warmup_steps ({warmup_steps}) must be less than first_cycle_steps ({first_cycle_steps})"
            )
        if cycle_mult < 0:
            raise UserError(f"{name}: cycle_mult must not be negative; got {cycle_mult}")
        groups = len(optimizer.param_groups)
        self.peaks = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * groups
        if len(self.peaks) != groups:
            raise UserError(f"{name}: max_lr has {len(self.peaks)} entries, the optimizer {groups} parameter groups")
        self.first_cycle_steps = first_cycle_steps
        self.cycle_mult = cycle_mult
        self.min_lr = min_lr
        self.warmup_steps = warmup_steps
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        return [max(0.0, self.rate(peak, self.last_epoch)) for peak in self.peaks]

    def rate(self, base: float, step: int) -> float:
        """The rate after `step` steps of a group whose first peak is `base`."""
        if step == 0:
            return self.min_lr
        cycle, length, step = self._locate(step)
        peak = base * self.gamma**cycle
        ramp = self.warmup_steps
        if step < ramp:
            return self.min_lr + (peak - self.min_lr) * step / ramp
        if length == ramp:  # cycles have shrunk to nothing
            return self.min_lr
        return cosine(peak, self.min_lr, (step - ramp) / (length - ramp))

    def _locate(self, step: int) -> tuple[int, int, int]:
        """Number and length of the cycle that holds `step`, and the steps since it began."""
        cycle, length = 0, self.first_cycle_steps
        while step >= length > 0:
            following = int((length - self.warmup_steps) * self.cycle_mult) + self.warmup_steps
            if following == length:  # and so they all are from here on
                return cycle + step // length, length, step % length
            cycle, length, step = cycle + 1, following, step - length
        return cycle, length, step
