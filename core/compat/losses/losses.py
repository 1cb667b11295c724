"""``basicsr.losses.losses``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....losses.gan import GANLoss, MultiScaleGANLoss
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
    """Absolute differences."""
    return F.l1_loss(pred, target, reduction="none")


@weighted_loss
def mse_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Squared differences."""
    return F.mse_loss(pred, target, reduction="none")


@weighted_loss
def charbonnier_loss(pred: Tensor, target: Tensor, eps: float = 1e-12) -> Tensor:
    """``sqrt((pred - target)^2 + eps)``."""
    return torch.sqrt((pred - target) ** 2 + eps)


class WeightedTVLoss(nn.Module):
    """Mean absolute differences of neighbours along both axes, summed.

    Args:
        loss_weight: factor.
        reduction: ``mean`` or ``sum`` of each axis' differences.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"Unsupported reduction mode: {reduction}. Supported ones are: mean | sum")
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        """`pred` and `weight`: (N, C, H, W)."""
        down = None if weight is None else weight[:, :, :-1]
        right = None if weight is None else weight[..., :-1]
        y = l1_loss(pred[:, :, :-1], pred[:, :, 1:], weight=down, reduction=self.reduction)
        x = l1_loss(pred[..., :-1], pred[..., 1:], weight=right, reduction=self.reduction)
        return self.loss_weight * (x + y)
