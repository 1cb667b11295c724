"""Means over a window of the training patch's size in place of means over the whole image.

"Test-time local converter" (Chu, Chen, Chen, Lu, "Improving Image Restoration by Revisiting Global Information Aggregation",
ECCV 2022): a network that learned to pool patches is given means of about as many pixels when it sees a whole image.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.ops.deterministic import running_sum
from ..core.ops.precision import at_least_float32

STRIDES = (5, 4, 3, 2, 1)
"""Subsampling that the fast form chooses from."""


class LocalMean(nn.Module):
    """Mean over a window around each pixel, in the place of ``AdaptiveAvgPool2d(1)``. (B, C, H, W) -> (B, C, H or 1, W or 1).

    An image no larger than the window has one mean for all, (B, C, 1, 1). Else windows lie within the image, and pixels near
    its border take the mean of the nearest whole window.

    Args:
        window: height and width.
        stride: distance of the rows and columns whose means are taken, if given, which is the fast form (as far as that
            divides the image), repeated. It is another function, which published results with ``fast_imp`` come from.

    Raises:
        UserError: the fast form is exported for images of any size.
    """

    def __init__(self, window: tuple[int, int], stride: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window, self.stride = window, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), or (B, C, 1, 1) where the window covers the image.

        Raises:
            UserError: the fast form is exported for images of any size.
        """
        height, width = x.shape[-2:]
        symbols = isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt)  # exported for images of any size
        if symbols and self.stride is not None:
            raise UserError("fast_imp takes distances that divide the sides of the image, which must be known")
        if not symbols and self.window[0] >= height and self.window[1] >= width:
            return x.mean((2, 3), keepdim=True)
        exact = at_least_float32(x)
        # Sums of deviations stay small, so that differences of running sums keep their digits.
        mean = exact.mean((2, 3), keepdim=True)
        if symbols:
            rows = _around_each(exact - mean, -2, self.window[0])
            return (mean + _around_each(rows, -1, self.window[1])).to(x.dtype)
        y = mean + self._boxes(exact - mean)
        down, right = height - y.shape[-2], width - y.shape[-1]
        y = F.pad(y, (right // 2, right - right // 2, down // 2, down - down // 2), mode="replicate")
        return y.to(x.dtype)

    def _boxes(self, x: Tensor) -> Tensor:
        """Means of all whole windows."""
        size = x.shape[-2], x.shape[-1]
        if self.stride is not None:
            step = [min(most, _largest(n)) for most, n in zip(self.stride, size, strict=True)]
            sums = running_sum(running_sum(x[..., :: step[0], :: step[1]], -1), -2)
            box = [
                min(n - 1, k // r) for n, k, r in zip((sums.shape[-2], sums.shape[-1]), self.window, step, strict=True)
            ]
            if min(box) > 0:
                return F.interpolate(_differences(sums, *box), scale_factor=step)
        sums = F.pad(running_sum(running_sum(x, -1), -2), (1, 0, 1, 0))
        return _differences(sums, min(size[0], self.window[0]), min(size[1], self.window[1]))


def _around_each(x: Tensor, dim: int, window: int) -> Tensor:
    """Means along an axis of whole windows around each place, or of all where the axis is no longer than the window."""
    n = x.shape[dim]
    size: Any = torch.sym_min(n, window)
    sums = running_sum(x, dim)
    sums = torch.cat([torch.zeros_like(sums.narrow(dim, 0, 1)), sums], dim)
    first = (torch.arange(n, device=x.device) - (size - 1) // 2).clamp(min=0)
    first = torch.minimum(first, torch.full_like(first, n - size))
    result: Tensor = (sums.index_select(dim, first + size) - sums.index_select(dim, first)) / size
    return result


def _largest(n: int) -> int:
    """The largest of `STRIDES` that divides `n`."""
    return next(r for r in STRIDES if n % r == 0)


def _differences(sums: Tensor, height: int, width: int) -> Tensor:
    """Means of boxes, of running sums over rows and columns."""
    rows = sums[..., height:, :] - sums[..., :-height, :]
    result: Tensor = (rows[..., width:] - rows[..., :-width]) / (height * width)
    return result


def pool_locally(module: nn.Module, level: int, multiple: int, train_size: tuple[int, int], fast: bool) -> None:
    """Replace every global pooling in `module` by a local one.

    Args:
        module: module that is changed in place; its state dict stays what it is.
        level: how often its input was halved.
        multiple: multiple to which the network extends images.
        train_size: height and width of the patches that the weights were trained on; the window is one and a half times as
            large.
        fast: whether the fast form is taken, see `LocalMean`.
    """
    sides = [-(-n // multiple) * multiple // 2**level for n in train_size]
    height, width = (side * int(1.5 * n) // n for side, n in zip(sides, train_size, strict=True))
    rows, columns = (max(1, STRIDES[0] * side // n) for side, n in zip(sides, train_size, strict=True))
    for child in list(module.modules()):
        for name, layer in list(child.named_children()):
            if isinstance(layer, nn.AdaptiveAvgPool2d):
                setattr(child, name, LocalMean((height, width), (rows, columns) if fast else None))


def patch_size(train_size: object) -> tuple[int, int]:
    """Height and width in the option ``train_size``, [batch, channels, height, width] or the last two alone.

    Raises:
        UserError: it is neither.
    """
    numbers = list(train_size) if isinstance(train_size, (list, tuple)) else []
    if len(numbers) not in (2, 4) or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise UserError(
            f"train_size: must be [batch, channels, height, width] of the training patches; got {train_size}"
        )
    return numbers[-2], numbers[-1]
