"""The learning-rate schedule of every optimizer, and whether it is as long as the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from ...schedulers import build_scheduler
from ...schedulers.schedule import Schedule
from ..errors import UserError
from ..options.schema import Train
from ..runtime import distributed
from ..runtime.gate import gate

log = logging.getLogger("relume")
PEAKED = ("CosineAnnealingWarmupRestarts", "OneCycleLR", "CyclicLR")
"""Schedules that have their own rates, whatever the optimizer's."""
ASTRAY = 0.05
"""Share of the iterations by which a schedule may end too early or too late without a word."""


def build_schedules(
    optimizers: Mapping[str, Optimizer],
    blocks: Mapping[str, Any],
    train: Train,
    samples: Callable[[int], int],
    better: str | None,
) -> dict[str, Schedule]:
    """The schedule of each optimizer: ``scheduler_<key>`` of the blocks, or else ``scheduler``.

    Args:
        samples, better: see `build_scheduler`.

    Raises:
        UserError: one follows a score, and there is none.
    """
    schedules = {}
    for key, optimizer in optimizers.items():
        own = f"scheduler_{key}" if f"scheduler_{key}" in blocks else "scheduler"
        with gate(f"train.{own}", blocks.get(own)):
            say_which_rate_counts(key, blocks.get(own) or {}, optimizer)
            schedules[key] = build_scheduler(optimizer, blocks.get(own), train.warmup_iter, samples, better)
    if better is None and any(s.waits_for_metric for s in schedules.values()):
        raise UserError(
            "train.scheduler: ReduceLROnPlateau follows a score, and there is none: give datasets.val and val.metrics"
        )
    return schedules


def say_which_rate_counts(key: str, block: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Tell the user of an optimizer's rate that a schedule with rates of its own replaces by another."""
    peak, rate = block.get("max_lr"), optimizer.param_groups[0]["lr"]
    if block.get("type") in PEAKED and isinstance(peak, (int, float)) and peak != rate and distributed.is_main():
        log.warning(
            "train.optim_%s.lr: %g has no effect: the rates are those of %s, whose max_lr is %g",
            *(key, rate, block["type"], peak),
        )


def say_where_they_end(schedules: Mapping[str, Schedule], trained: Iterable[str], total_iter: int) -> None:
    """Tell the user, once, of a schedule of the whole training that ends long before or after it.

    Args:
        trained: keys of the networks that are trained; other optimizers have a part of the training for themselves.
        total_iter: iterations of the training.
    """
    for key in trained:
        length = schedules[key].length if key in schedules else None
        if length is None or abs(length - total_iter) <= ASTRAY * total_iter or not distributed.is_main():
            continue
        when = "before the training does" if length < total_iter else "after the training has ended"
        log.warning(
            "train.scheduler: %s ends at iteration %d, %s (train.total_iter is %d): the rates are those of a training of "
            "another length",
            schedules[key].name,
            length,
            when,
            total_iter,
        )
        return
