"""A plugin for tests: two networks trained against each other, two outputs, an optimizer that remembers, bad gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from relume.archs import ARCHS
from relume.core.models import MODELS
from relume.core.models.base import Batch, Model, Update
from relume.core.runtime.optimizers import OPTIMIZERS
from relume.losses import LOSSES


@MODELS.register()
class TwoPlayers(Model):
    """A restorer and a critic that tells how wrong it is: the critic learns alone first, then both do in every step.

    Args:
        alone: steps in which only the critic is trained.
    """

    required_networks = ("g", "d")
    averaged = ("g", "d")

    def __init__(self, networks: dict[str, nn.Module], losses: dict[str, nn.Module], alone: int = 2) -> None:
        super().__init__(networks, losses)
        self.alone = alone
        self.steps_seen: list[int] = []
        self.mean_error = torch.zeros(())

    def updates(self, batch: Batch, step: int) -> Iterator[Update]:
        output = self.networks["g"](batch["lq"])
        error = (output.detach() - batch["gt"]).abs()
        guess = self.networks["d"](output.detach())
        yield Update("d", {"l_d": (guess - error).square().mean()}, {"error": error.mean()})
        self.mean_error = 0.5 * self.mean_error + 0.5 * error.mean()
        self.steps_seen.append(step)
        if step <= self.alone:
            return
        criticism = self.networks["d"](output).mean()  # of the critic that has just been updated
        yield Update("g", {**self.loss_terms(output, batch["gt"], prefix="l_g_"), "l_g_critic": 0.1 * criticism})

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"output": self.networks["g"](batch["lq"])}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps_seen": self.steps_seen, "mean_error": self.mean_error}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps_seen = list(state["steps_seen"])
        self.mean_error = state["mean_error"]


@ARCHS.register()
class TwoOutputs(nn.Module):
    """An image and the same twice as large, both scaled by one learned factor each; remembers what it was given."""

    seen: list[tuple[int, ...]] = []

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([0.5, 0.25]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        TwoOutputs.seen.append(tuple(x.shape))
        large = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.factors[0] * x, self.factors[1] * large


@OPTIMIZERS.register()
class RememberingSGD(torch.optim.SGD):
    """Gradient descent; `seen` holds all gradients of every step, as one vector."""

    seen: list[Tensor] = []

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, lr=lr)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        gradients = [p.grad.flatten() for g in self.param_groups for p in g["params"] if p.grad is not None]
        RememberingSGD.seen.append(torch.cat(gradients).clone())
        super().step(closure)


@LOSSES.register()
class KinkLoss(nn.Module):
    """Mean absolute difference, whose gradient is NaN in the calls numbered in `at` (from 1) although its value is finite."""

    def __init__(self, at: list[int]) -> None:
        super().__init__()
        self.at = at
        self.calls = 0

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        loss = (pred - target).abs().mean()
        if self.calls in self.at:
            loss = loss + (pred - pred.detach()).abs().sum().sqrt()  # sqrt(0): infinite slope times zero
        return loss
