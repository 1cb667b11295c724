"""Exponential moving average of networks: parameters averaged, buffers copied."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .models.base import Model
from .runtime import parallel
from .runtime.predicated import local, put_back


class EMA:
    """Averages of some of a model's networks: ``ema = decay * ema + (1 - decay) * net`` after every step.

    The decay is a constant, or follows from a half-life H in samples: ``0.5 ** (taken / H)`` for a step that took so many.
    Early averages then forget faster, so that they do not remember the initial weights: with n samples seen, this step's
    included, H is at most ``rampup * n`` (Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020).

    Args:
        networks: networks by key, not yet wrapped or compiled; the averages start as copies of them.
        decay: decay of the averages, in [0, 1). (BasicSR's ``ema_decay``.)
        halflife: half-life of the averages in samples; counts instead of `decay` where given.
        rampup: see above; the half-life holds from the start when None.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        decay: float,
        halflife: float | None = None,
        rampup: float | None = None,
    ) -> None:
        self.decay = decay
        self.halflife = halflife
        self.rampup = rampup
        self.networks = {k: copy.deepcopy(n).requires_grad_(False).eval() for k, n in networks.items()}
        self.weights: dict[torch.device, tuple[Tensor, Tensor]] = {}
        """Where the decay changes: it and what is left to one, of the next step, by device, always in the same place."""

    def decay_at(self, seen: int, taken: int) -> float:
        """The decay of a step that took `taken` samples, after which `seen` are seen, over all ranks."""
        if self.halflife is None:
            return self.decay
        most = math.inf if self.rampup is None else self.rampup * seen
        return float(0.5 ** (taken / max(min(self.halflife, most), 1e-8)))

    def begin(self, seen: int, taken: int) -> None:
        """Say how much samples the next step sees and takes; the numbers as of `decay_at`."""
        if self.halflife is None:
            return
        decay = self.decay_at(seen, taken)
        for network in self.networks.values():
            for device in {p.device for p in network.parameters()}:
                if device not in self.weights:
                    self.weights[device] = torch.empty((), device=device), torch.empty((), device=device)
                for tensor, value in zip(self.weights[device], (decay, 1.0 - decay), strict=True):
                    tensor.fill_(value)

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module], sound: Tensor | None = None) -> None:
        """Take one step towards `networks`, the unwrapped ones; where the decay changes, after `begin`.

        Args:
            sound: (), boolean, on the device; where it is false, the averages stay bit for bit as they are.
        """
        for key, average in self.networks.items():
            current = networks[key]
            mean: list[Tensor] = list(average.parameters())
            latest: list[Tensor] = list(current.parameters())
            own = [*mean, *average.buffers()] if sound is not None else []
            before = [local(t).clone() for t in own]
            # As BasicSR rounds it: with a decay of 0.999 the rounding of a step is a hundredth of what the average moves.
            if self.halflife is None:
                torch._foreach_mul_(mean, self.decay)
                torch._foreach_add_(mean, latest, alpha=1.0 - self.decay)
            elif mean:
                decay, rest = self.weights[mean[0].device]
                parts = [local(t) for t in mean]
                torch._foreach_mul_(parts, decay)
                torch._foreach_add_(parts, torch._foreach_mul([local(t) for t in latest], rest))
            for mine, theirs in zip(average.buffers(), current.buffers(), strict=True):
                mine.copy_(theirs)
            if sound is not None:
                put_back(sound, own, before)


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
            parallel.reshard(network)
        model.networks = wrapped
