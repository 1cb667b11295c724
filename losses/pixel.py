"""Losses on pixel differences. Images are (B, C, H, W); the value range is the caller's, usually [0, 1]."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.ops.charbonnier import charbonnier_sums, fuses
from . import LOSSES
from .common import Reduction, check_weight, checked_choice, comparable, reduced


class PixelLoss(nn.Module):
    """A distance per pixel and channel, reduced and weighted. Subclasses define `distance`.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over everything, or ``none`` for the map of shape (B, C, H, W).
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice(type(self).__name__, "reduction", reduction, Reduction)

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """Elementwise loss of two tensors of equal shape and dtype.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss; `weight`, (B, 1, H, W) or (B, C, H, W), multiplies it per pixel and divides the mean.

        Raises:
            UserError: shapes that do not fit.
        """
        pred, target = comparable(type(self).__name__, pred, target)
        if weight is not None:
            check_weight(type(self).__name__, weight, pred)
        return self.loss_weight * reduced(self.distance(pred, target), self.reduction, weight)


@LOSSES.register()
class L1Loss(PixelLoss):
    """Absolute difference |x - y|."""

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).abs()


@LOSSES.register()
class MSELoss(PixelLoss):
    """Squared difference (x - y)^2."""

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).square()


@LOSSES.register()
class SmoothL1Loss(PixelLoss):
    """Huber's loss over `beta`: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean``, ``sum`` or ``none``.
        beta: difference at which the parabola meets the line; 0 is the absolute difference.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(loss_weight, reduction)
        self.beta = beta

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(pred, target, reduction="none", beta=self.beta)


@LOSSES.register()
class CharbonnierLoss(PixelLoss):
    """A smooth absolute difference: sqrt(d^2 + eps), or sqrt(d^2 + eps^2).

    Two conventions are in use. BasicSR adds `eps` itself, 1e-12 by default. Charbonnier et al. (ICIP 1994), MPRNet and
    Spectroformer add its square, with 1e-3: write ``eps: 1e-3, eps_squared: true`` for theirs.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean``, ``sum`` or ``none``.
        eps: the smoothing constant, > 0.
        eps_squared: whether the square of `eps` is added; the loss of equal images is then `eps`.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        eps: float = 1e-12,
        eps_squared: bool = False,
    ) -> None:
        super().__init__(loss_weight, reduction)
        self.offset = eps * eps if eps_squared else eps

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return torch.sqrt((pred - target).square() + self.offset)

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        pred, target = comparable(type(self).__name__, pred, target)
        if weight is not None or self.reduction == "none" or pred.dim() < 1 or not fuses(pred, target):
            return super().forward(pred, target, weight)
        total = charbonnier_sums(pred, target, self.offset).sum()
        return self.loss_weight * (total / pred.numel() if self.reduction == "mean" else total)


Criterion = Literal["l1", "l2", "charbonnier"]
CRITERIA: dict[str, type[PixelLoss]] = {"l1": L1Loss, "l2": MSELoss, "charbonnier": CharbonnierLoss}
"""Distances as other losses' option ``criterion`` names them."""


@LOSSES.register()
class PSNRLoss(nn.Module):
    """The negative peak signal-to-noise ratio in dB for images in [0, 1]: 10 log10(MSE + 1e-8), per image (NAFNet's).

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over the batch, or ``none`` for one value per image, (B,).
        toY: compare luma (BT.601, 16 to 235, over 255) of RGB images.
    """

    luma: Tensor

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean", toY: bool = False) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice("PSNRLoss", "reduction", reduction, Reduction)
        self.toY = toY
        self.register_buffer("luma", torch.tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1) / 255, persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("PSNRLoss", pred, target)
        error = pred - target
        if self.toY:  # the offset of 16 cancels
            error = (error * self.luma).sum(dim=1, keepdim=True)
        decibels = 10 * torch.log10(error.square().mean(dim=(1, 2, 3)) + 1e-8)
        return self.loss_weight * reduced(decibels, self.reduction)
