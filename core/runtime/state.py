"""Whole state dicts of networks and optimizers, sharded or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .distributed import is_sharded


def full_state(network: nn.Module) -> dict[str, Any]:
    """The state dict, on the CPU, gathered from all ranks where it is sharded (a collective then)."""
    if not is_sharded(network):
        return {k: v.detach().cpu() for k, v in network.state_dict().items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return dict(get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))


def full_optimizer_state(networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict; by parameter name, gathered, where its parameters are sharded (a collective then)."""
    network = _sharded_owner(networks, optimizer)
    if network is None:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_optimizer_state_dict(network, optimizer, options=options))


def load_optimizer_state(
    networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Inverse of `full_optimizer_state`, except that lr, weight decay etc. stay as built, so that edited options count."""
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    network = _sharded_owner(networks, optimizer)
    if network is None:
        optimizer.load_state_dict(dict(state))
    else:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        set_optimizer_state_dict(network, optimizer, dict(state), options=StateDictOptions(full_state_dict=True))
    for group, built in zip(optimizer.param_groups, settings, strict=True):
        group.update(built)


def _sharded_owner(networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> nn.Module | None:
    """The sharded network whose parameters `optimizer` steps, if it is one."""
    stepped = {id(p) for g in optimizer.param_groups for p in g["params"]}
    for network in networks.values():
        if is_sharded(network) and any(id(p) in stepped for p in network.parameters()):
            return network
    return None
