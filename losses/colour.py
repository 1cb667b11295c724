"""Consistency of colour and brightness, at a lower resolution or as the eye sees it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.ops.constants import constant
from ..core.ops.precision import full_precision
from . import LOSSES
from .common import at_least, checked_choice, comparable
from .pixel import CRITERIA, Criterion

CHROMA = [[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
"""Rows of Cb and Cr of BT.601 in the studio range; their offset of 128 cancels in differences."""
LUMINANCE = [0.2126, 0.7152, 0.0722]
"""Weights of linear R, G and B in CIE Y, BT.709's primaries."""
KNEE = 216 / 24389
"""The Y at which CIE's L* turns from a line into a cube root."""
SLOPE = 24389 / 27


class ColourConsistency(nn.Module):
    """A distance of something seen in both images. Subclasses define `seen`.

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.
    """

    def __init__(self, loss_weight: float = 1.0, criterion: Criterion = "l1") -> None:
        super().__init__()
        checked_choice(type(self).__name__, "criterion", criterion, Criterion)
        self.criterion = CRITERIA[criterion](loss_weight)

    def seen(self, image: Tensor) -> Tensor:
        """What is compared, of an image (B, C, H, W) in [0, 1].

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of two images (B, C, H, W) in [0, 1]."""
        pred, target = comparable(type(self).__name__, pred, target)
        with full_precision(pred):
            loss: Tensor = self.criterion(self.seen(pred), self.seen(target))
        return loss


class ScaledConsistencyLoss(ColourConsistency):
    """A `ColourConsistency` on shrunk images.

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.
        scale: how many times height and width shrink.
    """

    def __init__(self, loss_weight: float = 1.0, criterion: Criterion = "l1", scale: Count = 4) -> None:
        super().__init__(loss_weight, criterion)
        self.scale = scale

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of two images (B, C, H, W) in [0, 1]."""
        at_least(type(self).__name__, pred, self.scale, f"scale {self.scale}")
        return super().forward(pred, target)


@LOSSES.register()
class AverageLoss(ScaledConsistencyLoss):
    """Distance of images averaged over blocks of `scale` x `scale` pixels, so that colours do not drift (traiNNer-redux).

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.
        scale: side of a block.
    """

    def seen(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, self.scale)


@LOSSES.register()
class BicubicLoss(ScaledConsistencyLoss):
    """Distance of images shrunk bicubically with antialiasing (traiNNer-redux).

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.
        scale: how many times height and width shrink.
    """

    def seen(self, image: Tensor) -> Tensor:
        return F.interpolate(image, scale_factor=1 / self.scale, mode="bicubic", antialias=True)


@LOSSES.register()
class ColorLoss(ScaledConsistencyLoss):
    """Distance of chroma, Cb and Cr of BT.601 over 255, averaged over blocks of `scale` x `scale` pixels (traiNNer-redux).

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.
        scale: side of a block.

    Raises:
        UserError: images are not of 3 channels.
    """

    def seen(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(mixed(image, CHROMA, "ColorLoss") / 255, self.scale)


@LOSSES.register()
class LumaLoss(ColourConsistency):
    """Distance of CIE lightness L* / 100 of sRGB images: differences count as much as the eye sees them.

    traiNNer-redux and neosr have a square where the line near black belongs, and see hardly anything below a gray of 0.088.

    Args:
        loss_weight: factor of the result.
        criterion: ``l1``, ``l2`` or ``charbonnier``, averaged.

    Raises:
        UserError: images are not of 3 channels.
    """

    def seen(self, image: Tensor) -> Tensor:
        y = mixed(linear(image), [LUMINANCE], "LumaLoss")
        dark = y <= KNEE
        root = torch.where(dark, 1.0, y).pow(1 / 3)  # where it is not used its derivative would be infinite
        return torch.where(dark, y * SLOPE, 116 * root - 16) / 100


def linear(image: Tensor) -> Tensor:
    """sRGB values as linear light (IEC 61966-2-1), both limited to [0, 1]; elementwise, any shape."""
    dark = image <= 0.04045
    light = torch.where(dark, image / 12.92, ((torch.where(dark, 1.0, image) + 0.055) / 1.055).pow(2.4))
    return light.clamp(0.0, 1.0)


def mixed(image: Tensor, rows: list[list[float]], owner: str) -> Tensor:
    """Weighted sums of the three channels: (B, 3, H, W) to (B, len(rows), H, W).

    Raises:
        UserError: the images do not have 3 channels.
    """
    if image.shape[1] != 3:
        raise UserError(f"{owner}: images need 3 channels, these have {image.shape[1]}")
    return torch.einsum("oc,bchw->bohw", constant(tuple(map(tuple, rows)), image), image)
