"""Means of what is logged: since the last line, and since the epoch began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import distributed

LOSS = "l_"
"""How the names of loss terms begin: of what a step logs, they have means."""


class Means:
    """The means of one stretch of iterations. They stay on the device until somebody asks, and leave out what is not finite."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums: dict[str, Tensor] = {}
        """Sum and number of what was added, (2,), by name."""

    def add(self, name: str, value: Tensor | float) -> None:
        """Count a scalar."""
        number = torch.as_tensor(value).detach().to(self.device, self.dtype).reshape(())
        finite = number.isfinite()
        pair = torch.stack([torch.where(finite, number, torch.zeros_like(number)), finite.to(self.dtype)])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def values(self) -> dict[str, Tensor]:
        """The means by name, scalars; NaN where nothing finite was added."""
        return {name: pair[0] / pair[1] for name, pair in self._sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self._sums = {}

    def align(self) -> None:
        """Give every rank the mean of all ranks' sums, so that one rank's state is everybody's."""
        if distributed.active() and self._sums:
            together = distributed.mean(torch.stack(list(self._sums.values())))
            self._sums = dict(zip(self._sums, together, strict=True))

    def state_dict(self) -> dict[str, list[float]]:
        """The sums, as plain numbers."""
        return {name: pair.tolist() for name, pair in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Inverse of `state_dict`."""
        self._sums = {k: torch.tensor(v, device=self.device, dtype=self.dtype) for k, v in state.items()}


class RunningMeans:
    """The means of a run's loss terms: ``mean/<term>`` since the last line, ``epoch/<term>`` since its epoch began."""

    def __init__(self, device: torch.device) -> None:
        self.line, self.whole = Means(device), Means(device)
        self.epoch = 0
        self.steps = 0
        """Steps since the last line."""

    def add(self, scalars: Mapping[str, Tensor | float], epoch: int) -> None:
        """Count the scalars that a step has logged."""
        if epoch != self.epoch:
            self.whole.clear()
            self.epoch = epoch
        self.steps += 1
        for name, value in scalars.items():
            if name.startswith(LOSS):
                self.line.add(name, value)
                self.whole.add(name, value)

    def take(self) -> dict[str, Tensor]:
        """The means for a line over all ranks, scalars by their names there; the next line's means begin after this one.

        All ranks call it together. Whether they were aligned before, for a checkpoint, does not show in any digit.
        """
        self.align()
        found = {f"mean/{k}": v for k, v in self.line.values().items()}
        found.update({f"epoch/{k}": v for k, v in self.whole.values().items()})
        self.line.clear()
        self.steps = 0
        return found

    def align(self) -> None:
        """See `Means.align`; all ranks call it together."""
        self.line.align()
        self.whole.align()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to write the same lines."""
        return {
            "line": self.line.state_dict(),
            "whole": self.whole.state_dict(),
            "epoch": self.epoch,
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.line.load_state_dict(state["line"])
        self.whole.load_state_dict(state["whole"])
        self.epoch, self.steps = state["epoch"], state["steps"]
