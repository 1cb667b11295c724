"""Schedules as functions: a learning rate depends on the step and on the configured rate, and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.errors import UserError


def read_rates(optimizer: Optimizer) -> list[float]:
    """The learning rate in force, one per parameter group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def write_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Put learning rates into force; a rate kept as a tensor (capturable optimizers) is overwritten in place."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine wave from `start` (progress 0) to `end` (progress 1)."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


def positive(owner: str, option: str, value: int) -> int:
    """`value`, if it is a positive number of iterations.

    Raises:
        UserError: it is not.
    """
    if value <= 0:
        raise UserError(f"{owner}: {option} must be a positive number of iterations; got {value}")
    return value


def restart_table(owner: str, restarts: list[int] | None, weights: list[float] | None) -> dict[int, float]:
    """Weights by restart, in order of time; one restart at step 0, weights of 1 where they are omitted.

    Raises:
        UserError: the lists differ in length.
    """
    restarts = [0] if restarts is None else restarts
    weights = [1.0] * len(restarts) if weights is None else weights
    if len(weights) != len(restarts):
        raise UserError(f"{owner}: {len(restarts)} restarts, but {len(weights)} restart_weights")
    return dict(sorted(zip(restarts, weights, strict=True)))


class ClosedForm(LRScheduler):
    """A schedule given by a formula, `rate`, of the step and of a group's base rate.

    Never reading the current rate back makes it exact on resume, and independent of what else sets rates (a warm-up, a user).
    What `rate` returns below zero becomes zero.

    Args:
        optimizer: optimizer whose groups' ``initial_lr`` (their ``lr`` before any schedule) are the base rates.
        last_epoch: steps taken minus one; -1 starts from the beginning.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, step: int) -> float:
        """The learning rate of a group with base rate `base` after `step` steps (0 for the first iteration).

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    @property
    def length(self) -> int | None:
        """Steps that the schedule is made for; None for one that says nothing of an end."""
        return None

    def get_lr(self) -> list[Any]:
        """One rate per group, for the current step."""
        return [max(0.0, self.rate(float(base), self.last_epoch)) for base in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go on by one step, or to step `epoch`, and put the rates into force."""
        self._go_to(self.last_epoch + 1 if epoch is None else epoch)

    def _go_to(self, step: int) -> None:
        self.last_epoch = step
        rates = self.get_lr()
        write_rates(self.optimizer, rates)
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        """The position, and nothing that the options say."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the position of `state_dict` and put its rates into force; other entries are ignored."""
        self._go_to(int(state_dict["last_epoch"]))


class Constant(ClosedForm):
    """The configured rates, for ever: what an option file without a scheduler means."""

    def rate(self, base: float, step: int) -> float:
        return base
