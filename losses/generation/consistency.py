"""Agreement of predictions along one path from noise to data."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from ...core.annotations import Range
from .. import LOSSES
from ..base import LossTraits
from ..common import comparable
from .flow import pseudo_huber

NEARLY_SAME = 1e-3
"""Number that is added to gaps, so that the weight of a vanishing one is finite."""


@LOSSES.register()
class ConsistencyLoss(LossTraits, nn.Module):
    """The prediction at t against that of the averaged generator at t + gap on the same path, which is a constant.

    Mean over the batch of w (sqrt(|d|^2 + k^2) - k) with k = c sqrt(elements), the `pseudo_huber` of the difference d, and
    w = 1 / (|gap| + 1e-3) over its mean. Gaps are uniform between 0 and `offset`.

    The point with less noise teaches the one with more, as in consistency models (Song et al., ICML 2023). An implementation
    whose time runs the same way but which steps from t to t - gap has a negative `offset`.

    Args:
        loss_weight: factor of the result.
        offset: the largest gap; negative for a point with more noise. Times stay within [0, 1].
        c: see `PseudoHuberLoss`.
    """

    context = ("gap",)

    def __init__(
        self,
        loss_weight: float = 1.0,
        offset: Annotated[float, Range(least=-1, most=1)] = 0.1,
        c: Annotated[float, Range(least=0)] = 0.00054,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.offset = offset
        self.c = c

    def gaps(self, uniforms: Tensor) -> Tensor:
        """Steps in time (B,) from uniform numbers (B,)."""
        return self.offset * uniforms

    def forward(self, pred: Tensor, target: Tensor, gap: Tensor) -> Tensor:
        """The loss, a scalar, of two predictions (B, C, H, W), the second made `gap` (B,) later."""
        pred, target = comparable("ConsistencyLoss", pred, target.detach())
        weights = 1 / (gap.abs() + NEARLY_SAME).to(pred)
        distances = pseudo_huber(pred - target, self.c * pred[0].numel() ** 0.5)
        return self.loss_weight * (weights / weights.mean() * distances).mean()
