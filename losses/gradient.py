"""Losses on derivatives of images: edges that should agree, and noise that should not be there."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..core.ops.gradient import derivative_sums, derivatives, fuses
from ..core.ops.laplacian import edge_band, edge_size
from ..core.ops.precision import at_least_float32, full_precision
from . import LOSSES
from .common import Reduction, at_least, check_weight, checked_choice, comparable, reduced
from .pixel import L1Loss

Operator = Literal["laplacian", "sobel"]


@LOSSES.register()
class GradientLoss(nn.Module):
    """L1 distance of image derivatives, taken per channel.

    ``laplacian`` (Spectroformer's): the five-point Laplacian without padding, a map of H - 2 by W - 2.
    ``sobel``: horizontal and vertical Sobel derivatives with zero padding; their two losses are added.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean``, ``sum``, or ``none`` for the map.
        operator: derivative, ``laplacian`` or ``sobel``.
    """

    def __init__(
        self, loss_weight: float = 1.0, reduction: Reduction = "mean", operator: Operator = "laplacian"
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice("GradientLoss", "reduction", reduction, Reduction)
        checked_choice("GradientLoss", "operator", operator, Operator)
        self.operator: Operator = operator

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss of two images (B, C, H, W): a scalar, or with ``none`` a map of the derivatives' shape."""
        pred, target = comparable("GradientLoss", pred, target)
        at_least("GradientLoss", pred, 3 if self.operator == "laplacian" else 1, f"operator {self.operator}")
        with full_precision(pred):
            d = pred - target
            if self.reduction == "none" or not fuses(d):
                maps = [derivative.abs() for derivative in derivatives(d, self.operator)]
                return self.loss_weight * reduced(torch.stack(maps).sum(dim=0), self.reduction)
            total = derivative_sums(d, self.operator).sum()
            edge = 2 if self.operator == "laplacian" else 0
            count = len(d) * d.shape[1] * (d.shape[2] - edge) * (d.shape[3] - edge)
            return self.loss_weight * (total / count if self.reduction == "mean" else total)


@LOSSES.register()
class EdgeLoss(nn.Module):
    """Charbonnier distance of the finest level of Laplacian pyramids (MPRNet's, CVPR 2021).

    The level is x - G(up(down(G(x)))): G blurs with a 5x5 kernel and replicated borders, `down` keeps every second
    pixel, `up` puts them back among zeros, times 4. The loss of equal images is `eps`.

    Args:
        loss_weight: factor of the result (0.05 in MPRNet, beside a Charbonnier loss).
        reduction: ``mean``, ``sum``, or ``none`` for the map (B, C, H, W).
        eps: the distance is sqrt(d^2 + eps^2).
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean", eps: float = 1e-3) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice("EdgeLoss", "reduction", reduction, Reduction)
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("EdgeLoss", pred, target)
        with full_precision(pred):
            d = pred - target  # the band is linear in the image
            if self.reduction == "none":
                return self.loss_weight * torch.sqrt(edge_band(d).square() + self.eps**2)
            mean = edge_size(d, self.eps).mean()
            return self.loss_weight * (mean if self.reduction == "mean" else mean * d.numel())


@LOSSES.register(aliases=("WeightedTVLoss",))
class TVLoss(nn.Module):
    """Total variation of the prediction: L1 distances of vertical plus of horizontal neighbours; no target needed.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum``, in each direction.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.reduction = checked_choice("TVLoss", "reduction", reduction, Literal["mean", "sum"])
        self.loss_weight = loss_weight
        self.distance = L1Loss(loss_weight, reduction)

    def forward(self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """The loss; `weight`, (B, 1, H, W) or (B, C, H, W), belongs to the upper or left pixel of a pair."""
        check_weight("TVLoss", weight, pred)
        at_least("TVLoss", pred, 2, "a difference of neighbours")
        pred = at_least_float32(pred)
        if weight is None and pred.dim() == 4 and fuses(pred):
            down, right = derivative_sums(pred, "neighbours").sum(0)
            if self.reduction == "mean":
                height, width = pred.shape[2:]
                down, right = (t * (n / (n - 1) / pred.numel()) for t, n in ((down, height), (right, width)))
            return self.loss_weight * (down + right)
        upper, left = (None, None) if weight is None else (weight[:, :, :-1], weight[:, :, :, :-1])
        vertical: Tensor = self.distance(pred[:, :, :-1], pred[:, :, 1:], upper)
        return vertical + self.distance(pred[:, :, :, :-1], pred[:, :, :, 1:], left)
