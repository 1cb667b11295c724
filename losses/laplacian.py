"""Laplacian pyramids: errors by scale (Burt and Adelson, 1983), as losses for frame interpolation use them."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.laplacian import laplacian_pyramid as laplacian_pyramid
from ..core.ops.laplacian import pyramid_size
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import comparable


@LOSSES.register()
class LaplacianLoss(nn.Module):
    """Sum over levels of the mean absolute differences of the bands of two Laplacian pyramids.

    All levels weigh the same, although coarse bands have fewer pixels; so it is in RIFE, EMA-VFI and their kin. Without
    `low_pass` the loss does not see a constant difference of brightness.

    Args:
        loss_weight: factor of the result.
        levels: bands; images need sides of more than 2 ** levels pixels.
        low_pass: also compare what the last level leaves.

    Raises:
        UserError: images too small for the levels, or of different shapes.
    """

    def __init__(self, loss_weight: float = 1.0, levels: int = 5, low_pass: bool = False) -> None:
        super().__init__()
        if levels < 1:
            raise UserError(f"LaplacianLoss: levels must be at least 1, not {levels}")
        self.loss_weight = loss_weight
        self.levels = levels
        self.low_pass = low_pass

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of images (B, C, H, W).

        Raises:
            UserError: the images are too small for so many levels.
        """
        pred, target = comparable("LaplacianLoss", pred, target)
        least = 2**self.levels + 1
        if min(pred.shape[-2:]) < least:
            raise UserError(
                f"LaplacianLoss: {self.levels} levels need images of at least {least}x{least} pixels; these have "
                f"{pred.shape[-2]}x{pred.shape[-1]}"
            )
        with full_precision(pred):
            return self.loss_weight * pyramid_size(pred - target, self.levels, self.low_pass).mean()
