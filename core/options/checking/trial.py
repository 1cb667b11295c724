"""A trial of optimizers and schedules on a small layer: what they refuse is known before a training begins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ....schedulers import SCHEDULERS, build_scheduler
from ...annotations import Epochs
from ...errors import UserError, in_one_line
from ...registry import Registry
from ...runtime.optimizers import OPTIMIZERS, build_optimizer
from ...runtime.optimizers.uncompiled import plain_step, without_compiler

PER_GROUP = ("max_lr", "base_lr", "min_lr", "lr_lambda")
"""Options that may hold one value for every parameter group, of which a trial knows nothing."""


def layer() -> list[tuple[str, nn.Parameter]]:
    """Parameters with gradients, such as every network has."""
    found = [("weight", nn.Parameter(torch.ones(2, 1, 3, 3))), ("bias", nn.Parameter(torch.ones(2)))]
    for _, parameter in found:
        parameter.grad = torch.ones_like(parameter)
    return found


def try_optimizer(block: Mapping[str, Any]) -> None:
    """Build the optimizer of a checked block, for every entry of ``param_groups``, and take a step with torch's.

    Raises:
        UserError: it refuses a value, or cannot train a network.
    """
    groups = block.get("param_groups") or ()
    for rule in (None, *groups):
        build_optimizer(layer(), {**block, "param_groups": [] if rule is None else [{**rule, "params": "^weight$"}]})
        own = {k: v for k, v in (rule or {}).items() if k not in ("params", "lr_scale")}
        # A group's values are taken as they are; those of the whole are looked at.
        optimizer = build_optimizer(layer(), {**block, **own, "param_groups": None})
        # On which devices these can be used is known in the training only.
        if type(optimizer).__module__.startswith("torch.") and not (block.get("capturable") or block.get("fused")):
            try:
                plain_step(optimizer)
            except Exception as e:
                raise UserError(f"optimizer {block['type']}: {in_one_line(e)}") from e


def try_scheduler(block: Mapping[str, Any]) -> None:
    """Build the schedule of a checked block.

    Raises:
        UserError: it refuses a value.
    """
    values = [v for value in block.values() for v in (value if isinstance(value, (list, tuple)) else [value])]
    in_epochs = any(isinstance(v, Epochs) for v in values)  # how long those are, the training set says
    if in_epochs or any(isinstance(block.get(k), (list, tuple)) for k in PER_GROUP):
        return
    with warnings.catch_warnings(), without_compiler():
        warnings.simplefilter("ignore")
        build_scheduler(torch.optim.SGD([p for _, p in layer()], lr=1e-3, momentum=0.9), block)


TRIALS: dict[Registry, Callable[[Mapping[str, Any]], None]] = {OPTIMIZERS: try_optimizer, SCHEDULERS: try_scheduler}
