"""What must hold at the ends of the path."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from ...core.annotations import Range
from .. import LOSSES
from ..base import LossTraits
from ..common import checked_choice, comparable
from .flow import pseudo_huber

EARLY, LATE = 0.01, 0.99
"""Times before which a sample is all but noise, and after which it is all but data."""


@LOSSES.register()
class BoundaryLoss(LossTraits, nn.Module):
    """What the prediction must be at the ends of the path: the input itself at t > 0.99, the target at t < 0.01.

    The mean is over the samples of the batch that are there; zero if none is. (A known implementation compares with noise
    instead of the input near t = 1, and counts all samples.)

    Args:
        loss_weight: factor of the result.
        ends: ``start`` is t < 0.01, ``end`` t > 0.99.
        metric: `pseudo_huber` with k = c sqrt(elements), or ``l2``, the mean squared difference.
        c: factor c of that k; 0 is the plain norm.
    """

    context = ("t", "point")

    def __init__(
        self,
        loss_weight: float = 1.0,
        ends: Literal["both", "start", "end"] = "both",
        metric: Literal["huber", "l2"] = "huber",
        c: Annotated[float, Range(least=0)] = 0.00054,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.ends = checked_choice("BoundaryLoss", "ends", ends, Literal["both", "start", "end"])
        self.metric = checked_choice("BoundaryLoss", "metric", metric, Literal["huber", "l2"])
        self.c = c

    def forward(self, pred: Tensor, target: Tensor, t: Tensor, point: Tensor) -> Tensor:
        """The loss, a scalar, of a prediction, its target and the input `point`, all (B, C, H, W), at times t (B,)."""
        pred, target = comparable("BoundaryLoss", pred, target)
        late, early = t > LATE, t < EARLY
        wanted = torch.where(late.view(-1, 1, 1, 1), point.to(target), target)
        chosen = {"both": late | early, "start": early, "end": late}[self.ends].to(pred.dtype)
        difference = pred - wanted
        if self.metric == "huber":
            distances = pseudo_huber(difference, self.c * pred[0].numel() ** 0.5)
        else:
            distances = difference.square().flatten(1).mean(1)
        return self.loss_weight * (distances * chosen).sum() / chosen.sum().clamp_min(1)
