"""Optimizers whose memory is divided among ranks (ZeRO, Rajbhandari et al. 2020, stage 1): ``train.zero_optimizer``.

Torch's ZeroRedundancyOptimizer steps a rank's parameters and sends them to the others. Its own way of collecting the state
unpickles what other ranks send, so that this is done here: descriptions travel as `messages`, numbers as tensors. States that
are saved are those of the optimizer without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from ..errors import UserError
from . import distributed


def divided(optimizer: torch.optim.Optimizer, name: str) -> torch.optim.Optimizer:
    """The optimizer with its memory divided among ranks; itself without others. Ranks do it together.

    Args:
        optimizer: which has not stepped.
        name: name of its block, for messages.

    Raises:
        UserError: it changes weights besides its steps.
    """
    if not distributed.active():
        return optimizer
    from torch.distributed.optim import ZeroRedundancyOptimizer

    if callable(getattr(optimizer, "train", None)):
        raise UserError(
            f"train.zero_optimizer: {type(optimizer).__name__} of {name} has weights to train with and others to use, of which "
            "each rank would have its own; leave one of the two out"
        )
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {k: v for k, v in optimizer.defaults.items() if k in accepted}
    groups = [dict(group) for group in optimizer.param_groups]
    return ZeroRedundancyOptimizer(groups, type(optimizer), **settings)


def inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """What steps this rank's parameters; the optimizer itself where it is not divided."""
    own: torch.optim.Optimizer = optimizer.optim if is_divided(optimizer) else optimizer  # type: ignore[attr-defined]
    return own


def is_divided(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its memory is divided among ranks."""
    return type(optimizer).__name__ == "ZeroRedundancyOptimizer"


def whole_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict that the optimizer would have undivided, on every rank, tensors on the host. Ranks ask for it together."""
    # What each rank has of which parameter.
    own = inner(optimizer).state
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    mine = {
        str(i): {k: _described(v) for k, v in own[p].items()} for i, p in enumerate(parameters) if own.get(p)
    }  # of the parameters that this rank steps
    every = distributed.gather(mine)
    # Every tensor from the rank that owns it to all the others, on the CPU.
    state: dict[int, dict[str, Any]] = {}
    for i, parameter in enumerate(parameters):
        owner = next((rank for rank, theirs in enumerate(every) if str(i) in theirs), None)
        if owner is None:
            continue
        state[i] = {}
        for key, (dtype, shape, value) in every[owner][str(i)].items():
            if dtype is None:
                state[i][key] = value
                continue
            sent = torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=parameter.device)
            if owner == distributed.rank():
                sent.copy_(own[parameter][key])
            dist.broadcast(sent, src=owner)
            state[i][key] = sent.cpu()
    # Groups with the numbers that torch gives their parameters.
    groups, first = [], 0
    for group in optimizer.param_groups:
        count = len(group["params"])
        groups.append(
            {**{k: v for k, v in group.items() if k != "params"}, "params": list(range(first, first + count))}
        )
        first += count
    return {"state": state, "param_groups": groups}


def _described(value: Any) -> tuple[str | None, list[int], Any]:
    """Type and shape of a tensor, or a plain value."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch."), list(value.shape), None
    return None, [], value


def load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take this rank's part of a whole state, whose parameters are numbered, or named in the order of their numbers."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: i for i, name in enumerate(names)}
    numbered = {numbers[name]: entries for name, entries in state["state"].items()}
    groups, first = [], 0
    for group in state["param_groups"]:
        groups.append({**group, "params": list(range(first, first + len(group["params"])))})
        first += len(group["params"])
    optimizer.load_state_dict({**state, "state": numbered, "param_groups": groups})
    optimizer.state.clear()  # the part's own memory has it
    own = inner(optimizer)
    for group in own.param_groups:
        if group.get("fused") or group.get("capturable"):
            for p in group["params"]:
                for key, value in own.state.get(p, {}).items():
                    if isinstance(value, torch.Tensor):
                        own.state[p][key] = value.to(p.device)
