"""Learning-rate schedules: closed forms of the iteration, selected by ``type`` in ``train.scheduler``."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.annotations import Range
from ..core.errors import UserError
from ..core.registry import Registry
from .base import Constant
from .schedule import Schedule

NOT_OPTIONS = {
    **dict.fromkeys(("LRScheduler", "_LRScheduler"), "is what the others are made of"),
    **dict.fromkeys(("LambdaLR", "MultiplicativeLR"), "is made of a function, which no option file can say"),
    **dict.fromkeys(
        ("SequentialLR", "ChainedScheduler"),
        "is made of other schedulers; CosineAnnealingRestartCyclicLR, WarmupCosineLR and warmup_iter join several parts",
    ),
}
"""Schedulers of torch that cannot be used, and why."""


def _from_torch(name: str) -> Callable[..., Any] | None:
    if name in NOT_OPTIONS:
        raise UserError(f"no scheduler is called '{name}' that could be used here: it {NOT_OPTIONS[name]}")
    found = getattr(torch.optim.lr_scheduler, name, None)
    is_one = isinstance(found, type) and issubclass(found, LRScheduler)
    return found if is_one else None


log = logging.getLogger("relume")

SCHEDULERS = Registry(
    "scheduler",
    "relume.schedulers",
    runtime=("optimizer", "last_epoch", "samples"),
    library=_from_torch,
    library_names=lambda: [n for n in dir(torch.optim.lr_scheduler) if n not in NOT_OPTIONS and _from_torch(n)],
    ranges={
        **dict.fromkeys(("gamma", "eta_min", "factor", "start_factor", "end_factor", "power"), Range(least=0)),
        **dict.fromkeys(("max_lr", "min_lr", "base_lr", "eta_mins", "restart_weights", "cycle_mult"), Range(least=0)),
        **dict.fromkeys(("milestones", "restarts", "start"), Range(least=0)),
        **dict.fromkeys(("periods", "every"), Range(above=0)),
        **dict.fromkeys(("div_factor", "final_div_factor", "T_mult", "epochs"), Range(above=0)),
        **dict.fromkeys(
            ("T_max", "T_0", "step_size", "step_size_up", "step_size_down"), Range(above=0, in_epochs=True)
        ),
        **dict.fromkeys(("total_steps", "steps_per_epoch"), Range(above=0, in_epochs=True)),
        **dict.fromkeys(("patience", "cooldown", "threshold"), Range(least=0)),
        "total_iters": Range(least=0, in_epochs=True),
    },
)


def build_scheduler(
    optimizer: Optimizer,
    opt: Mapping[str, Any] | None,
    warmup_iter: int = -1,
    samples: Callable[[int], int] = int,
    better: str | None = None,
) -> Schedule:
    """Build the schedule that ``opt = {type: Name, **constructor_arguments}`` describes, and set the first rates.

    Args:
        optimizer: optimizer, which gets the learning rates of iteration 1.
        opt: a registered scheduler or one of torch's; None keeps the configured rates. Not modified.
        warmup_iter: length of the linear warm-up in iterations; -1 is none.
        samples: how many samples are seen when an iteration is over, for schedules that count those.
        better: whether the ``higher`` or the ``lower`` score is better for ReduceLROnPlateau: its `mode`,
            where `opt` has none; torch's when None.

    Raises:
        UserError: unknown type, unknown, missing or impossible argument.
    """
    # The scheduler of an optimizer, from the options.
    settings = deepcopy(dict(opt)) if opt is not None else None
    if settings is not None and better is not None and settings.get("type") == "ReduceLROnPlateau":
        settings.setdefault("mode", {"higher": "max", "lower": "min"}[better])

    def build(optimizer: Optimizer) -> LRScheduler:
        """The scheduler of an optimizer.

        Raises:
            UserError: the scheduler refuses its options.
        """
        if settings is None:
            return Constant(optimizer)
        try:
            kind = settings.get("type")
            counts = kind in SCHEDULERS and "samples" in inspect.signature(SCHEDULERS.get(str(kind))).parameters
            more = {"samples": samples} if counts else {}
            scheduler: LRScheduler = SCHEDULERS.build(settings, optimizer=optimizer, **more)
        except (TypeError, ValueError, ZeroDivisionError) as e:
            raise UserError(f"scheduler {settings.get('type')}: {e}") from e
        return scheduler

    # Options that do not go with groups that have rates of their own.
    scaled = any("lr_scale" in group for group in optimizer.param_groups)
    for key in ("max_lr", "base_lr", "min_lr") if scaled else ():
        if settings is not None and isinstance(settings.get(key), (list, tuple)):
            raise UserError(
                f"scheduler {settings['type']}: {key} has a rate for each group, and lr_scale in param_groups gives them "
                "others; leave one of the two out"
            )
    own = [k for k in ("max_lr", "base_lr") if isinstance((settings or {}).get(k), (int, float))]
    if own and not scaled and len({float(group["lr"]) for group in optimizer.param_groups}) > 1:
        log.warning(
            "scheduler %s: %s is the rate of all groups, whatever lr they have in param_groups; give them lr_scale instead, "
            "or %s a list with a rate for each",
            *(opt["type"] if opt else "", own[0], own[0]),
        )
    return Schedule(optimizer, build, warmup_iter)
