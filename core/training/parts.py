"""What the pipeline builds and the trainer puts to work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..ema import EMA
from ..evaluation import Evaluator
from ..guard import Guard
from ..models.base import Model
from ..runtime.checkpoint import Checkpoints
from ..runtime.logger import RunLogger


@dataclass
class Parts:
    """All of it."""

    model: Model
    networks: dict[str, nn.Module]
    """Trained networks, unwrapped: what is saved, averaged and evaluated."""
    ema: EMA | None
    optimizers: dict[str, torch.optim.Optimizer]
    schedulers: dict[str, Any]
    loader: Any
    evaluator: Evaluator
    checkpoints: Checkpoints
    logger: RunLogger
    guard: Guard
    device: torch.device
    descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the weights of each trained network say of themselves."""
    best: dict[str, Any] = field(default_factory=dict)
    show: Callable[[Mapping[str, Tensor], int], None] | None = None
    """Shows pictures of a training sample, by label, of an iteration."""
