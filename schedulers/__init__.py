"""Learning-rate schedules: closed forms of the iteration, selected by ``type`` in ``train.scheduler``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core.registry import Registry


def _from_torch(name: str) -> Callable[..., Any] | None:
    base = torch.optim.lr_scheduler.LRScheduler
    found = getattr(torch.optim.lr_scheduler, name, None)
    return found if isinstance(found, type) and issubclass(found, base) and found is not base else None


SCHEDULERS = Registry("scheduler", "relume.schedulers", runtime=("optimizer", "last_epoch"), library=_from_torch)
