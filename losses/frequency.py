"""Losses in the frequency domain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from . import LOSSES
from .common import Reduction, checked_choice, comparable, full_precision, reduced

Norm = Literal["backward", "ortho", "forward"]


@LOSSES.register()
class FFTLoss(nn.Module):
    """L1 distance of the real and imaginary parts of the images' spectra.

    The spectrum is ``torch.fft.rfft2`` over height and width: the half with non-negative horizontal frequencies,
    W // 2 + 1 columns, unscaled unless `norm` says otherwise. The mean runs over the 2 C H (W // 2 + 1) real numbers of
    each image. This is the term of MIMO-UNet (ICCV 2021), weighted 0.1 there.

    Args:
        loss_weight: factor of the result.
        reduction: ``mean``, ``sum``, or ``none`` for (B, C, H, W // 2 + 1, 2).
        norm: ``backward`` does not scale, ``ortho`` divides by sqrt(H W), ``forward`` by H W.
    """

    def __init__(self, loss_weight: float = 1.0, reduction: Reduction = "mean", norm: Norm = "backward") -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.reduction = checked_choice("FFTLoss", "reduction", reduction, Reduction)
        self.norm = checked_choice("FFTLoss", "norm", norm, Norm)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = comparable("FFTLoss", pred, target)
        with full_precision(pred):
            spectrum = torch.fft.rfft2(pred - target, norm=self.norm)  # of the difference: the transform is linear
            return self.loss_weight * reduced(torch.view_as_real(spectrum).abs(), self.reduction)
