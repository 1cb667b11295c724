"""Losses between what a student makes and what its teacher made."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import comparable


@LOSSES.register()
class KDLoss(nn.Module):
    """Distillation of a prior vector as DiffIR does it (Xia et al., ICCV 2023, eq. 13): mean absolute difference.

    What is minimised is ``mean |student - teacher|``. `divergence` is the Kullback-Leibler divergence of the two vectors read
    as distributions, which the original computes too, and only logs. Vectors are (B, L); the teacher gets no gradient.

    Args:
        loss_weight: factor of both.
        temperature: what both vectors are divided by before the softmax of `divergence`.

    Raises:
        UserError: the temperature is not positive.
    """

    def __init__(self, loss_weight: float = 1.0, temperature: float = 0.15) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"KDLoss: temperature must be positive, got {temperature}")
        self.loss_weight = loss_weight
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = comparable("KDLoss", student, teacher)
        return self.loss_weight * (student - teacher.detach()).abs().mean()

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """KL(softmax(teacher / temperature) || softmax(student / temperature)) of (B, L), summed over L, mean over B."""
        student, teacher = comparable("KDLoss", student, teacher)
        with full_precision(student):
            ours = (student / self.temperature).log_softmax(dim=1)
            theirs = (teacher.detach() / self.temperature).log_softmax(dim=1)
            return self.loss_weight * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
