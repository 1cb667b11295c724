"""Exponential moving average of networks: parameters averaged, buffers copied."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from . import distributed
from .models.base import Model


class EMA:
    """Averages of some of a model's networks: ``ema = decay * ema + (1 - decay) * net`` after every step.

    Args:
        networks: by key, not yet wrapped or compiled; the averages start as copies of them.
        decay: in [0, 1). (BasicSR's ``ema_decay``.)
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.networks = {k: copy.deepcopy(n).requires_grad_(False).eval() for k, n in networks.items()}

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module]) -> None:
        """Take one step towards `networks`, the unwrapped ones."""
        for key, average in self.networks.items():
            current = networks[key]
            torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1.0 - self.decay)
            for mine, theirs in zip(average.buffers(), current.buffers(), strict=True):
                mine.copy_(theirs)


@contextlib.contextmanager
def evaluating(model: Model, networks: Mapping[str, nn.Module], ema: EMA | None) -> Iterator[None]:
    """Inside: `model` runs on unwrapped `networks`, averaged ones where there are, all in evaluation mode, no gradients."""
    wrapped = model.networks
    model.networks = {**wrapped, **networks, **(ema.networks if ema else {})}
    modes = {network: network.training for network in model.networks.values()}
    try:
        for network in modes:
            network.eval()
        with torch.no_grad():
            yield
    finally:
        for network, mode in modes.items():
            network.train(mode)
            distributed.reshard(network)
        model.networks = wrapped
