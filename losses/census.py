"""Census loss: local structure, whatever the brightness (Zabih and Woodfill, ECCV 1994; smooth: Meister et al., AAAI 2018)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from . import LOSSES
from .common import checked_choice, comparable, full_precision

Gray = Literal["mean", "luma"]
LUMA = (0.2989, 0.5870, 0.1140)
SOFT_SIGN = 0.81
"""Of differences in [0, 1] images: d / sqrt(0.81 + d^2)."""
SOFT_COUNT = 0.1
"""Of their differences: d^2 / (0.1 + d^2)."""


def soft_census(gray: Tensor, patch_size: int) -> Tensor:
    """Soft signs of every neighbour minus the pixel: (B, 1, H, W) to (B, patch_size^2, H, W); beyond the border is 0."""
    height, width = gray.shape[-2:]
    padded = F.pad(gray, (patch_size // 2,) * 4)
    places = [(i, j) for i in range(patch_size) for j in range(patch_size)]
    difference = torch.cat([padded[..., i : i + height, j : j + width] for i, j in places], 1) - gray
    return difference * torch.rsqrt(SOFT_SIGN + difference.square())


@LOSSES.register()
class TernaryCensusLoss(nn.Module):
    """How much the signs of neighbours' differences differ, softly counted: mean over neighbours and over all pixels.

    A border, where neighbours are missing, counts as 0. A constant difference of brightness is hardly seen. Both published
    forms: gray as the mean of channels and a border of half a patch (the defaults), or luma and a border of 1 pixel (RIFE,
    EMA-VFI: ``gray: luma, border: 1``). The target gets no gradient.

    Args:
        loss_weight: factor of the result.
        patch_size: side of the neighbourhood, odd.
        gray: ``mean``, or ``luma``, 0.2989, 0.5870 and 0.1140 of the channels in their order.
        border: width that counts as 0; half a patch when None.

    Raises:
        UserError: an even patch, images of different shapes, or luma of other than 3 channels.
    """

    def __init__(
        self, loss_weight: float = 1.0, patch_size: int = 7, gray: Gray = "mean", border: int | None = None
    ) -> None:
        super().__init__()
        if patch_size < 1 or patch_size % 2 == 0:
            raise UserError(f"TernaryCensusLoss: patch_size must be odd and positive, not {patch_size}")
        self.loss_weight = loss_weight
        self.patch_size = patch_size
        self.gray = checked_choice("TernaryCensusLoss", "gray", gray, Gray)
        self.border = patch_size // 2 if border is None else border

    def brightness(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1, H, W)."""
        if self.gray == "mean":
            return x.mean(1, keepdim=True)
        if x.shape[1] != 3:
            raise UserError(f"TernaryCensusLoss: luma needs 3 channels, these images have {x.shape[1]}")
        return (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("TernaryCensusLoss", pred, target.detach())
        with full_precision(pred):
            found, wanted = (soft_census(self.brightness(x), self.patch_size) for x in (pred, target))
            squared = (found - wanted).square()
            distance = (squared / (SOFT_COUNT + squared)).mean(1)
        edge, (height, width) = self.border, pred.shape[-2:]
        inside = distance[:, edge : max(height - edge, edge), edge : max(width - edge, edge)]
        return self.loss_weight * inside.sum() / distance.numel()
