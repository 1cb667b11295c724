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
from .runtime.predicated import part, put_back


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
        self._modules: dict[nn.Module, list[nn.Module]] = {}
        self.networks = {k: copy.deepcopy(n).requires_grad_(False).eval() for k, n in networks.items()}
        self.weights: dict[torch.device, Tensor] = {}
        """Where the decay changes: what it leaves to one in the next step, by device, always in the same place."""

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
        if not self.weights:
            devices = {p.device for network in self.networks.values() for p in network.parameters()}
            self.weights = {device: torch.empty((), device=device) for device in devices}
        for weight in self.weights.values():
            weight.fill_(1.0 - self.decay_at(seen, taken))

    @torch.no_grad()
    def update(self, networks: Mapping[str, nn.Module], sound: Tensor | None = None) -> None:
        """Take one step towards `networks`, the unwrapped ones; where the decay changes, after `begin`.

        Args:
            sound: (), boolean, on the device; where it is false, the averages stay as they are.
        """
        for key, average in self.networks.items():
            mean, buffers = self._tensors(average)
            latest, of_latest = self._tensors(networks[key])
            # As BasicSR rounds it: with a decay of 0.999 the rounding of a step is a hundredth of what the average moves.
            if sound is None and self.halflife is None:
                torch._foreach_mul_(mean, self.decay)
                torch._foreach_add_(mean, latest, alpha=1.0 - self.decay)
            elif mean:
                rest: Tensor | float = 1.0 - self.decay if self.halflife is None else self.weights[mean[0].device]
                share = rest if sound is None else sound.to(mean[0].dtype) * rest
                torch._foreach_mul_(mean, 1.0 - share)
                torch._foreach_add_(mean, torch._foreach_mul(latest, share))
            before = [b.clone() for b in buffers] if sound is not None else []
            for mine, theirs in zip(buffers, of_latest, strict=True):
                mine.copy_(theirs)
            if sound is not None:
                put_back(sound, buffers, before)

    def _tensors(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """This rank's parts of a network's parameters and buffers; its modules are looked for once."""
        modules = self._modules.get(network)
        if modules is None:
            modules = self._modules[network] = list(network.modules())
        parameters = {id(p): p for m in modules for p in m._parameters.values() if p is not None}
        buffers = {id(b): b for m in modules for b in m._buffers.values() if b is not None}
        return [part(p) for p in parameters.values()], [part(b) for b in buffers.values()]


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
