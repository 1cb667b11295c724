"""Whole state dicts of networks and optimizers, sharded or not; the state of generators, and of memory."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import devices, zero
from .parallel import is_sharded, is_shared, sharded_owner


def full_state(network: nn.Module) -> dict[str, Any]:
    """The state dict, on the CPU, gathered from all ranks where it is sharded (a collective then)."""
    if not is_sharded(network):
        return {k: v.detach().cpu() for k, v in network.state_dict().items()}
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return dict(get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))


def full_optimizer_state(networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state dict, gathered where it, or what it trains, is split (a collective then): the latter by name."""
    if zero.is_divided(optimizer):
        return zero.whole_state(optimizer)
    network = sharded_owner(networks, optimizer)
    if network is None:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_optimizer_state_dict(network, optimizer, options=options))


def load_optimizer_state(
    networks: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Inverse of `full_optimizer_state`, except that lr, weight decay etc. stay as built, so that edited options count.

    Raises:
        ValueError: the state is another optimizer's, or another network's.
    """
    _compare(optimizer, state)
    # Options, and no counters, which some optimizers keep beside them.
    named = {*inspect.signature(type(zero.inner(optimizer))).parameters, *KEPT} - {"params"}
    settings = [{k: v for k, v in g.items() if k in named} for g in optimizer.param_groups]
    network = sharded_owner(networks, optimizer)
    if network is None:
        # Where counters go is for what is built to say: the state may be of another device.
        places = [{k: g[k] for k in ("fused", "capturable") if k in g} for g in optimizer.param_groups]
        saved = zip(state["param_groups"], places, strict=True)
        placed = {**state, "param_groups": [{**group, **place} for group, place in saved]}
        if zero.is_divided(optimizer):
            zero.load(optimizer, placed)
        else:
            optimizer.load_state_dict(placed)
    else:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        whole = not any(is_shared(v) for entries in state["state"].values() for v in entries.values())
        set_optimizer_state_dict(network, optimizer, dict(state), options=StateDictOptions(full_state_dict=whole))
    for group, built in zip(optimizer.param_groups, settings, strict=True):
        group.update(built)


HOW = frozenset({"foreach", "fused", "capturable", "differentiable", "maximize", "nesterov", "train_mode"})
"""Switches of optimizers that change nothing of what they remember."""
KEPT = frozenset({"initial_lr", "lr_scale"})
"""What else the options say of a group."""
ADDED = frozenset({"initial_lr", "param_names"})
"""What schedulers and torch add to a group."""
ALIKE = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "sum"}
)
"""What torch's optimizers remember of a parameter in tensors of its shape."""


def _compare(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Raises ValueError if `state` cannot be of such an optimizer. By parameter name (sharded), torch itself compares."""
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    for built, saved in zip(optimizer.param_groups, state["param_groups"], strict=False):
        absent, surplus = sorted(built.keys() - saved.keys() - ADDED), sorted(saved.keys() - built.keys() - ADDED)
        if absent and surplus:  # a newer release of the same optimizer only adds settings
            raise ValueError(f"{type(optimizer).__name__} has {absent[0]}, and what was saved has {surplus[0]} instead")
        for key, value in built.items():
            before = saved.get(key, value)
            if isinstance(value, bool) and isinstance(before, bool) and before != value and key not in HOW:
                raise ValueError(f"{key} was {before} and is {value}")
    others = not type(optimizer).__module__.startswith(("torch.", "relume."))  # which call other things by these names
    for key, remembered in state["state"].items():
        if others or not isinstance(key, int) or not 0 <= key < len(parameters):
            continue
        shape = parameters[key].shape
        for name, tensor in remembered.items():
            if name in ALIKE and tensor is not None and getattr(tensor, "shape", None) != shape:
                found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
                raise ValueError(f"{name} of parameter {key} is {found}, and the parameter {tuple(shape)}")


def seed_everything(seed: int, iteration: int, rank: int) -> None:
    """Make every global generator a function of (seed, iteration, rank): a resumed step draws what the lost one drew."""
    words = np.random.SeedSequence([seed, iteration, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    # torch.manual_seed would note a stack trace for every backend that is not in use, which costs more than all of this.
    torch.default_generator.manual_seed(int(words[2]))
    devices.seed(int(words[2]))


def held_memory_gib(device: torch.device) -> float:
    """Memory held now, in GiB: by tensors on a GPU, by this process on a CPU (where the system says it)."""
    if (held := devices.held(device)) is not None:
        return held / 2**30
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory_gib(device)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def whole_memory_gib(device: torch.device) -> float:
    """Memory of a GPU, or of this machine as far as this process may use it; 0 where the system does not say."""
    if (size := devices.there_is(device)) is not None:
        return size / 2**30
    limits = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text()))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=0) / 2**30


def peak_memory_gib(device: torch.device) -> float:
    """Most memory held so far, in GiB: by tensors on a GPU, by this process on a CPU."""
    if (most := devices.most_held(device)) is not None:
        return most / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB elsewhere
