"""Correlation of images, each with a small kernel of its own, as blurs of degradations are.

In PyTorch it takes a few launches for images of one size, and the image once more with its border. Fused
(`filter_images_triton`) it takes one for images of any sizes together, and weights of zero, with which smaller kernels are
padded, cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .dispatch import use_kernel
from .ragged import at_once, in_batches, obstacle_without_gradient
from .self_test import case
from .shapes import check_shapes


def filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Each image correlated with its kernel, all channels alike; the kernel is not flipped.

    Borders are reflected (without repeating the last line), or replicated where an image is too small for that.

    Args:
        x: (B, C, H, W), of any strides.
        kernels: (B, k, k), k odd.

    Returns:
        (B, C, H, W).

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    side = kernels.shape[-1]
    _refuse_even(kernels)
    if x.dim() != 4:
        raise UserError(f"filtered: x must be (B, C, H, W); it is {tuple(x.shape)}")
    check_shapes("filtered", f"x {tuple(x.shape)}", kernels=(kernels, (len(x), side, side)))
    if _fuses(x, kernels):
        return _fused(x, None, kernels)
    spread = x
    if side > 1:
        spread = F.pad(x, (side // 2,) * 4, mode="reflect" if min(x.shape[2:]) > side // 2 else "replicate")
    return by_plane(spread, kernels.repeat_interleave(x.shape[1], dim=0)).reshape(x.shape)


def filtered_all(images: Sequence[Tensor], kernels: Sequence[Tensor]) -> list[Tensor]:
    """`filtered` of images (C, h, w) of any sizes, each by its (k, k): in one launch, else those of one size together.

    Raises:
        UserError: as `filtered`.
    """
    _refuse_even(*kernels)
    alike = len({kernel.shape for kernel in kernels}) == 1
    if alike and _fuses(images[0][None], kernels[0][None]):
        return at_once(images, lambda x, sizes: _fused(x, sizes, torch.stack(list(kernels))))
    return in_batches(images, kernels, filtered)


def _refuse_even(*kernels: Tensor) -> None:
    for kernel in kernels:
        if kernel.shape[-1] % 2 == 0:
            raise UserError(
                f"filtered: a kernel of {kernel.shape[-1]} x {kernel.shape[-1]} has no centre; take odd sides"
            )


def _fused(x: Tensor, sizes: Tensor | None, kernels: Tensor) -> Tensor:
    from .filter_images_triton import fused

    result: Tensor = fused(x, kernels, sizes)
    return result


def by_plane(x: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each plane of (B, C, H, W) with its own of (B C, m, n), or all with (1, m, n): (B, C, H - m + 1, W - n + 1).

    As one convolution in groups, of which a processor computes many for the time of one.
    """
    batch, channels, height, width = x.shape
    planes = batch * channels
    found = F.conv2d(x.reshape(1, planes, height, width), kernels[:, None].expand(planes, -1, -1, -1), groups=planes)
    return found.reshape(batch, channels, *found.shape[-2:])


def _fuses(x: Tensor, kernels: Tensor) -> bool:
    return use_kernel(
        "filter_images", functools.partial(obstacle_without_gradient, "filter_images", x=x, kernels=kernels), x
    )


@case("filter_images", (2, 1, 9, 13), (2, 3, 3), sized=lambda side, w: ((1, 3, max(side**2 // 3, 1), w), (1, 21, 21)))
def _case(x: Tensor, kernels: Tensor) -> Tensor:
    with torch.no_grad():
        return filtered(x, kernels).detach()
