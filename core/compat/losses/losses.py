"""``basicsr.losses.losses``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ....losses.gan import GANLoss, MultiScaleGANLoss
from ....losses.gradient import TVLoss
from ....losses.penalties import gradient_penalty_loss, r1_penalty
from ....losses.perceptual import PerceptualLoss
from ....losses.pixel import CharbonnierLoss, L1Loss, MSELoss, PSNRLoss
from .loss_util import weighted_loss

__all__ = [
    "CharbonnierLoss",
    "GANLoss",
    "L1Loss",
    "MSELoss",
    "MultiScaleGANLoss",
    "PSNRLoss",
    "PerceptualLoss",
    "WeightedTVLoss",
    "charbonnier_loss",
    "gradient_penalty_loss",
    "l1_loss",
    "mse_loss",
    "r1_penalty",
]


@weighted_loss
def l1_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Absolute differences of two tensors of one shape."""
    return F.l1_loss(pred, target, reduction="none")


@weighted_loss
def mse_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Squared differences of two tensors of one shape."""
    return F.mse_loss(pred, target, reduction="none")


@weighted_loss
def charbonnier_loss(pred: Tensor, target: Tensor, eps: float = 1e-12) -> Tensor:
    """``sqrt((pred - target)^2 + eps)`` of two tensors of one shape."""
    return torch.sqrt((pred - target) ** 2 + eps)


class WeightedTVLoss(TVLoss):
    """Total variation, whose weight comes right after the prediction."""

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`pred` and `weight`: (N, C, H, W)."""
        return super().forward(pred, weight=weight)
