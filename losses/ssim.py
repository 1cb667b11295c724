"""Structural similarity, at one scale and at several: the package pytorch-msssim, and its definitions where it stops.

It refuses images that five scales would not fit into (161 pixels with a window of 11) whatever the number of scales asked for,
and images one pixel high or wide. For those, and where the kernels of `core.ops.ssim` run, the same is written out here; both
agree to 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.ms_ssim import fuses as fuses_scales
from ..core.ops.ms_ssim import multiscale_similarity
from ..core.ops.precision import full_precision
from ..core.ops.ssim import fuses, gaussian, similarity
from . import LOSSES
from .common import Reduction, checked_choice, comparable, reduced

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang, Simoncelli and Bovik, Asilomar 2003)."""


class _Similarity(nn.Module):
    """What both losses share: the window, the checks, and 1 - similarity."""

    window: Tensor

    def __init__(
        self, loss_weight: float, reduction: Reduction, data_range: float, win_size: int, win_sigma: float
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if win_size < 1 or win_size % 2 == 0:
            raise UserError(f"{name}: win_size must be odd and positive; got {win_size}")
        self.loss_weight = loss_weight
        self.reduction = checked_choice(name, "reduction", reduction, Reduction)
        self.data_range = data_range
        self.register_buffer("window", gaussian(win_size, win_sigma), persistent=False)

    def similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        """The similarity of each image, a mean over channels: (B,).

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def windows(self, images: Tensor) -> Tensor:
        """The window as pytorch-msssim wants it, (C, 1, 1, k)."""
        return self.window.view(1, 1, 1, -1).repeat(images.shape[1], 1, 1, 1)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable(type(self).__name__, pred, target)
        with full_precision(pred):
            return self.loss_weight * reduced(1 - self.similarity(pred, target), self.reduction)


@LOSSES.register()
class SSIMLoss(_Similarity):
    """1 - SSIM (Wang et al., IEEE TIP 2004): Gaussian window, no padding, mean over pixels, channels and images.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over the batch, or ``none`` for one value per image, (B,).
        data_range: largest minus smallest possible pixel value.
        win_size: side of the window; odd, and no larger than the images.
        win_sigma: standard deviation of the window in pixels.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        data_range: float = 1.0,
        win_size: int = 11,
        win_sigma: float = 1.5,
    ) -> None:
        super().__init__(loss_weight, reduction, data_range, win_size, win_sigma)

    def similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        """SSIM of each image of (B, C, H, W), a mean over pixels and channels: (B,).

        Raises:
            UserError: the images are smaller than the window.
        """
        side, needed = min(pred.shape[-2:]), len(self.window)
        if side < needed:
            raise UserError(
                f"SSIMLoss: images of {side} pixels are smaller than the window of {needed}; lower win_size"
            )
        if side == 1 or fuses(pred, target, self.window):
            return similarity(pred, target, self.window, self.data_range)[0].mean(dim=1)
        from pytorch_msssim import ssim

        value: Tensor = ssim(pred, target, self.data_range, size_average=False, win=self.windows(pred))
        return value


@LOSSES.register()
class MSSSIMLoss(_Similarity):
    """1 - MS-SSIM (Wang, Simoncelli and Bovik, 2003): contrast at every scale and SSIM at the coarsest, multiplied.

    Scales are halved by 2x2 averages; each factor has its own exponent. Negative factors count as zero, so that
    strongly anticorrelated images give a loss of 1 with a gradient of exactly zero: pair it with a pixel loss.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean`` or ``sum`` over the batch, or ``none`` for one value per image, (B,).
        data_range: largest minus smallest possible pixel value.
        win_size: side of the Gaussian window, odd.
        win_sigma: standard deviation of the window in pixels.
        scales: 1 to 5. Images must be larger than (win_size - 1) 2^(scales - 1) pixels: 160 by default. With fewer
            than 5 the finest scales' exponents are rescaled to a sum of 1.
    """

    exponents: Tensor

    def __init__(
        self,
        loss_weight: float = 1.0,
        reduction: Reduction = "mean",
        data_range: float = 1.0,
        win_size: int = 11,
        win_sigma: float = 1.5,
        scales: int = 5,
    ) -> None:
        super().__init__(loss_weight, reduction, data_range, win_size, win_sigma)
        if not 1 <= scales <= len(SCALE_WEIGHTS):
            raise UserError(f"MSSSIMLoss: scales must be 1 to {len(SCALE_WEIGHTS)}; got {scales}")
        exponents = torch.tensor(SCALE_WEIGHTS[:scales])
        if scales < len(SCALE_WEIGHTS):  # the published five are used as they are, though they sum to 1.0001
            exponents = exponents / exponents.sum()
        self.weights = exponents.tolist()
        self.register_buffer("exponents", exponents, persistent=False)

    def _check_size(self, side: int) -> None:
        scales, reach = len(self.exponents), len(self.window) - 1
        if side > reach * 2 ** (scales - 1):
            return
        fitting = max((n for n in range(1, scales) if side > reach * 2 ** (n - 1)), default=0)
        advice = f"set scales: {fitting}, or " if fitting else ""
        raise UserError(
            f"MSSSIMLoss: images of {side} pixels are too small for {scales} scales with a window of {reach + 1}; "
            f"{advice}use more than {reach * 2 ** (scales - 1)} pixels (gt_size)"
        )

    def similarity(self, pred: Tensor, target: Tensor) -> Tensor:
        side = min(pred.shape[-2:])
        self._check_size(side)
        whole = side > max((len(self.window) - 1) * 2 ** (len(SCALE_WEIGHTS) - 1), 1)
        if whole and not fuses_scales(pred, target, self.window):
            from pytorch_msssim import ms_ssim

            value: Tensor = ms_ssim(
                pred, target, self.data_range, size_average=False, win=self.windows(pred), weights=self.weights
            )
            return value
        return self.written_out(pred, target)

    def written_out(self, pred: Tensor, target: Tensor) -> Tensor:
        """The same for images of any size that the scales fit into, (B,)."""
        return multiscale_similarity(pred, target, self.window, self.exponents, self.data_range)
