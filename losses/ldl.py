"""Where a generated image has artefacts: the map of locally discriminative learning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UserError
from ..core.ops.precision import full_precision

SMALLEST_VARIANCE = 1e-20
"""The fifth root has an infinite derivative at 0, where an output equals its target; below this it counts as 0."""


def get_refined_artifact_map(gt: Tensor, output: Tensor, ema: Tensor, ksize: int = 7) -> Tensor:
    """LDL's map of artefacts (Liang et al., CVPR 2022), by which output and target are multiplied before ``ldl_opt``.

    With r the sum of |gt - output| over channels, it is ``var(r)^(1/5)`` of the whole image, times the variance of r in a
    window around each pixel, where r is at least as large as the residual of the moving average's output, and 0 elsewhere.

    Args:
        gt: (B, C, H, W).
        output: output of the generator; gradients flow back to it.
        ema: output of the generator's moving average.
        ksize: side of the window, odd; both sides of the images must exceed its half.

    Returns:
        (B, 1, H, W), float32.

    Raises:
        UserError: an even `ksize`.
    """
    if ksize < 1 or ksize % 2 == 0:
        raise UserError(f"the window of LDL's map must have an odd side, not {ksize}")
    with full_precision(output):
        gt, output, ema = gt.float(), output.float(), ema.float()
        residual = (gt - output).abs().sum(1, keepdim=True)
        of_average = (gt - ema).abs().sum(1, keepdim=True)
        variance = residual.var(dim=(1, 2, 3), keepdim=True)
        flat = variance < SMALLEST_VARIANCE
        of_patch = torch.where(flat, 1.0, variance).pow(0.2).masked_fill(flat, 0.0)
        return (of_patch * local_variance(residual, ksize)).masked_fill(residual < of_average, 0.0)


def local_variance(x: Tensor, side: int) -> Tensor:
    """Unbiased variance of `x`, (B, 1, H, W), in a window around each pixel, mirrored at the borders.

    It is a difference of means, taken of the deviation from the image's mean: digits that all pixels share would be lost.
    """
    count = side * side
    x = x - x.detach().mean(dim=(1, 2, 3), keepdim=True)
    x = F.pad(x, [(side - 1) // 2] * 4, mode="reflect")
    mean = F.avg_pool2d(x, side, stride=1)
    variance = (F.avg_pool2d(x.square(), side, stride=1) - mean.square()) * (count / max(count - 1, 1))
    return variance.clamp(min=0)
