"""Census loss: local structure, whatever the brightness (Zabih and Woodfill, ECCV 1994; smooth: Meister et al., AAAI 2018)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.census import census_distance
from ..core.ops.constants import constant
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import checked_choice, comparable

Gray = Literal["mean", "luma"]
LUMA = (0.2989, 0.5870, 0.1140)


@LOSSES.register()
class TernaryCensusLoss(nn.Module):
    """How much the signs of neighbours' differences differ, softly counted: mean over neighbours and over all pixels.

    A border, where neighbours are missing, counts as 0. A constant difference of brightness is hardly seen. Both published
    forms: gray as the mean of channels and a border of half a patch (the defaults), or luma and a border of 1 pixel (RIFE,
    EMA-VFI: ``gray: luma, border: 1``). The target gets no gradient. Computed by `core.ops.census.census_distance`.

    Args:
        loss_weight: factor of the result.
        patch_size: side of the neighbourhood, odd.
        gray: ``mean``, or ``luma``, 0.2989, 0.5870 and 0.1140 of the channels in their order.
        border: width that counts as 0; half a patch when None.

    Raises:
        UserError: an even patch, a negative border, images of different shapes, or luma of other than 3 channels.
    """

    def __init__(
        self, loss_weight: float = 1.0, patch_size: int = 7, gray: Gray = "mean", border: int | None = None
    ) -> None:
        super().__init__()
        if patch_size < 1 or patch_size % 2 == 0:
            raise UserError(f"TernaryCensusLoss: patch_size must be odd and positive, not {patch_size}")
        if border is not None and border < 0:
            raise UserError(f"TernaryCensusLoss: border must be at least 0, not {border}")
        self.loss_weight = loss_weight
        self.patch_size = patch_size
        self.gray = checked_choice("TernaryCensusLoss", "gray", gray, Gray)
        self.border = patch_size // 2 if border is None else border

    def brightness(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H, W).

        Raises:
            UserError: the images do not have 3 channels.
        """
        if self.gray == "mean":
            return x.mean(1)
        if x.shape[1] != 3:
            raise UserError(f"TernaryCensusLoss: luma needs 3 channels, these images have {x.shape[1]}")
        return (x * constant(LUMA, x)[:, None, None]).sum(1)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("TernaryCensusLoss", pred, target.detach())
        with full_precision(pred):
            distance = census_distance(self.brightness(pred), self.brightness(target), self.patch_size)
        edge, (height, width) = self.border, pred.shape[-2:]
        inside = distance[:, edge : max(height - edge, edge), edge : max(width - edge, edge)]
        return self.loss_weight * inside.sum() / distance.numel()
