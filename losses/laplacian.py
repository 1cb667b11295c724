"""Laplacian pyramids: errors by scale (Burt and Adelson, 1983), as losses for frame interpolation use them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.precision import full_precision
from ..core.runtime.constants import constant
from . import LOSSES
from .common import comparable

BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def blurred(x: Tensor, gain: float = 1.0) -> Tensor:
    """Binomial filter, 5 x 5, of every channel of (B, C, H, W), mirrored at the border; sides of at least 3."""
    taps = constant(BINOMIAL, x) * (gain**0.5 / 16)
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    channels = x.shape[1]
    x = F.conv2d(x, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def enlarged(x: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, then the filter with four times its gain."""
    b, c, h, w = x.shape
    spread = x.new_zeros(b, c, 2 * h, 2 * w)
    spread[..., ::2, ::2] = x
    return blurred(spread, gain=4.0)


def laplacian_pyramid(x: Tensor, levels: int) -> list[Tensor]:
    """Bands of (B, C, H, W) from fine to coarse, and what is left: `levels` + 1 maps; linear in x."""
    pyramid = []
    for _ in range(levels):
        smaller = blurred(x)[..., ::2, ::2]
        back = enlarged(smaller)
        if back.shape != x.shape:  # of odd sizes
            back = F.interpolate(back, size=x.shape[-2:], mode="bilinear", align_corners=False)
        pyramid.append(x - back)
        x = smaller
    return [*pyramid, x]


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
        pred, target = comparable("LaplacianLoss", pred, target)
        least = 2**self.levels + 1
        if min(pred.shape[-2:]) < least:
            raise UserError(
                f"LaplacianLoss: {self.levels} levels need images of at least {least}x{least} pixels; these have "
                f"{pred.shape[-2]}x{pred.shape[-1]}"
            )
        with full_precision(pred):
            *bands, rest = laplacian_pyramid(pred - target, self.levels)
            terms = [band.abs().mean() for band in (*bands, *([rest] if self.low_pass else []))]
        return self.loss_weight * torch.stack(terms).sum()
