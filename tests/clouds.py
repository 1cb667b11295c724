"""Problems of any size made by a formula, and one golden case by name, for the tests beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filling import waves
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from relume.losses.ot import costs


def unit_points(name: str, n: int, d: int = 3) -> Tensor:
    """Points on a sphere, (n, d) float64."""
    return torch.nn.functional.normalize(waves(name, (n, d)), dim=1)


def weights(name: str, n: int) -> Tensor:
    """A marginal of mass 1 that is far from uniform, (n,) float64."""
    w = waves(name, (n,)) + 1.1
    return w / w.sum()


def fused_problem(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """M (n, m), C1 (n, n), C2 (m, m) in [0, 1], float64; Euclidean structures."""
    x, y = unit_points("x", n), unit_points("y", m)
    return costs.squared_euclidean(x, y) / 4, costs.euclidean(x) / 2, costs.euclidean(y) / 2


def golden_case(golden: Callable[[str], Path], group: str, name: str) -> dict[str, Any]:
    stored = torch.load(golden("generation/ot.pt"), weights_only=True)
    return next(c for c in stored[group] if c["name"] == name)


def l1(a: Tensor, b: Tensor) -> float:
    """Sum of absolute differences, in float64."""
    return float((a.double() - b.double()).abs().sum())


class CountWaits(TorchDispatchMode):
    """Counts reads of a tensor's value by Python, each of which waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def waits_of(solve: Callable[[], Any]) -> int:
    """How often Python waits for the device in ``solve()``."""
    with CountWaits() as counter:
        solve()
    return counter.waits
