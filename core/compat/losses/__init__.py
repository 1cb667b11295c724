"""``basicsr.losses``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ....losses import build_loss as _build
from .loss_util import reduce_loss, weight_reduce_loss, weighted_loss
from .losses import CharbonnierLoss, GANLoss, L1Loss, MSELoss, PerceptualLoss, PSNRLoss

__all__ = [
    "CharbonnierLoss",
    "GANLoss",
    "L1Loss",
    "MSELoss",
    "PSNRLoss",
    "PerceptualLoss",
    "build_loss",
    "reduce_loss",
    "weight_reduce_loss",
    "weighted_loss",
]


def build_loss(opt: Mapping[str, Any]) -> nn.Module:
    """The loss of a block."""
    return _build(opt)
