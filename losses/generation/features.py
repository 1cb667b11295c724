"""Distances of feature vectors, and of the shapes of clouds of them."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from .. import LOSSES
from ..base import LossTraits
from ..common import checked_choice, comparable
from ..ot.costs import euclidean

SHORTEST = 1e-3
"""Length below which a feature vector has less than a whole direction."""


def direction(features: Tensor) -> Tensor:
    """Rows of (B, d) at length 1; shorter than `SHORTEST` in proportion to their own length."""
    return F.normalize(features, dim=1, eps=SHORTEST)


@LOSSES.register()
class FeatureLoss(LossTraits, nn.Module):
    """Distance of feature vectors (B, d), mean over the batch.

    Args:
        loss_weight: factor of the result.
        metric: ``cosine``, 1 - cos, of vectors no shorter than 1e-3, so that gradients are bounded at 0; or
            ``l2``, the sum of squared differences.
    """

    in_features = True

    def __init__(self, loss_weight: float = 1.0, metric: Literal["cosine", "l2"] = "cosine") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.metric = checked_choice("FeatureLoss", "metric", metric, Literal["cosine", "l2"])

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("FeatureLoss", pred, target)
        if self.metric == "l2":
            return self.loss_weight * (pred - target).square().sum(1).mean()
        return self.loss_weight * (1 - (direction(pred) * direction(target)).sum(1)).mean()


@LOSSES.register()
class StructureLoss(LossTraits, nn.Module):
    """Mean squared difference of two matrices of distances (B, B): among predicted and among target features.

    Args:
        loss_weight: factor of the result.
        normalize: divide each matrix by its largest entry first (gradients flow through that too).
        against: ``targets``, distances among the features of the chosen targets; ``plan``, R D R^T, the distances that the
            whole plan expects, whatever is chosen from it (`losses.ot.targets.expected_distances`). Its diagonal is not zero.
    """

    in_features = True

    def __init__(
        self, loss_weight: float = 1.0, normalize: bool = True, against: Literal["targets", "plan"] = "targets"
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.normalize = normalize
        self.against = checked_choice("StructureLoss", "against", against, Literal["targets", "plan"])
        self.context = ("distances",) if against == "plan" else ()

    def forward(self, pred: Tensor, target: Tensor, distances: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of features (B, d).

        Raises:
            UserError: the structure of a plan is asked for, and `distances` is None.
        """
        pred, target = comparable("StructureLoss", pred, target)
        found = euclidean(pred)
        if self.against == "targets":
            wanted = euclidean(target)
        elif distances is None:
            raise UserError("StructureLoss: against plan needs the distances that a plan expects, (B, B)")
        else:
            found, wanted = comparable("StructureLoss", found, distances)
        if self.normalize:
            found, wanted = found / (found.max() + 1e-8), wanted / (wanted.max() + 1e-8)
        return self.loss_weight * F.mse_loss(found, wanted)
