"""JPEG's way of an image through colours, cosine transform and quantisation, and back (ITU-T T.81, 4:2:0 chroma).

In PyTorch it takes about 35 launches for images of one size. Fused (`jpeg_triton`) it takes one for images of any sizes
together: a program does all of it for a few blocks of 16 x 16 pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from .constants import constant
from .dispatch import use_kernel
from .ragged import at_once, in_batches, obstacle_without_gradient
from .self_test import case
from .shapes import check_shapes

Table = tuple[tuple[float, ...], ...]
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
COSINES: Table = tuple(
    tuple(0.5 * math.cos((2 * j + 1) * i * math.pi / 16) / (math.sqrt(2) if i == 0 else 1) for j in range(8))
    for i in range(8)
)
"""The orthonormal transform of 8 numbers, frequency by row."""


class Coding(NamedTuple):
    """How coefficients are rounded.

    Attributes:
        luminance: steps of the luminance's coefficients at quality 50, 8 x 8, vertical frequency by row.
        chrominance: steps of the other two planes' coefficients.
        whole: whether steps are rounded to whole numbers from 1 to 255, as libjpeg does it.
        soft: whether coefficients are rounded by `soft_round`.
    """

    luminance: Table
    chrominance: Table
    whole: bool = False
    soft: bool = False


def soft_round(x: Tensor) -> Tensor:
    """Rounding that has a gradient (Shin and Song 2017), elementwise: round(x) + (x - round(x))^3, of any shape."""
    nearest = torch.round(x)
    return nearest + (x - nearest) ** 3


def recompressed(x: Tensor, factor: Tensor, coding: Coding) -> Tensor:
    """Images as they come back from JPEG, continued in black to multiples of 16 meanwhile.

    Args:
        x: (B, 3, H, W) RGB in [0, 1].
        factor: factor of each image's steps, (B,), positive.
        coding: the steps, and how coefficients are rounded.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        UserError: shapes do not go together, or kernels are forced on and cannot run.
    """
    if x.dim() != 4 or x.shape[1] != 3:
        raise UserError(f"recompressed: x must be (B, 3, H, W); it is {tuple(x.shape)}")
    check_shapes("recompressed", f"x {tuple(x.shape)}", factor=(factor, (len(x),)))
    if _fuses(x, factor, coding):
        return _fused(x, None, factor, coding)
    return _plain(x, factor, coding)


def recompressed_all(images: Sequence[Tensor], factor: Tensor, coding: Coding) -> list[Tensor]:
    """`recompressed` of images (3, h, w) of any sizes: by the kernel in one launch, else those of one size together.

    Args:
        images: images.
        factor: factor of each image's steps, (B,), on their device.
        coding: the steps, and how coefficients are rounded.

    Raises:
        UserError: as `recompressed`.
    """
    if images and _fuses(images[0][None], factor, coding):
        return at_once(images, lambda x, sizes: _fused(x, sizes, factor, coding))
    return in_batches(images, factor, lambda x, of_size: recompressed(x, of_size, coding))


def _fused(x: Tensor, sizes: Tensor | None, factor: Tensor, coding: Coding) -> Tensor:
    from .jpeg_triton import fused

    result: Tensor = fused(x, factor, *_matrices(coding, x), sizes, coding.whole, coding.soft)
    return result


def _fuses(x: Tensor, factor: Tensor, coding: Coding) -> bool:
    return use_kernel("jpeg", functools.partial(obstacle_without_gradient, "jpeg", x=x, factor=factor), x)


def _plain(x: Tensor, factor: Tensor, coding: Coding) -> Tensor:
    height, width = x.shape[-2:]
    factor = factor[:, None, None, None, None]
    padded = F.pad(x * 255, (0, -width % 16, 0, -height % 16))
    planes = torch.einsum("ij,bjhw->bihw", constant(TO_YCBCR, x), padded)
    luma = _coded(planes[:, :1] - 128, constant(coding.luminance, x), factor, coding) + 128
    chroma = _coded(F.avg_pool2d(planes[:, 1:], 2), constant(coding.chrominance, x), factor, coding)
    chroma = chroma.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    rgb = torch.einsum("ij,bjhw->bihw", constant(TO_RGB, x), torch.cat([luma, chroma], dim=1))
    return (rgb.clamp(0, 255) / 255)[..., :height, :width]


def _coded(planes: Tensor, table: Tensor, factor: Tensor, coding: Coding) -> Tensor:
    """Planes (B, C, H, W), centred on 0, with their coefficients rounded to multiples of the table's steps."""
    batch, channels, height, width = planes.shape
    transform = constant(COSINES, planes)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    blocks = blocks.reshape(batch, channels, -1, 8, 8)
    steps = table * factor
    if coding.whole:
        steps = torch.floor(steps + 0.5).clamp(1, 255)
    rounded = soft_round if coding.soft else torch.round
    coefficients = rounded(transform @ blocks @ transform.T / steps) * steps
    blocks = transform.T @ coefficients @ transform
    blocks = blocks.reshape(batch, channels, height // 8, width // 8, 8, 8).transpose(3, 4)
    return blocks.reshape(batch, channels, height, width)


def _matrices(coding: Coding, x: Tensor) -> tuple[Tensor, Tensor]:
    """For blocks of 16 x 16, luminance and chrominance: transforms T of T B T^t, and steps, (2, 16, 16) both.

    Luminance has four blocks of 8 x 8. Chrominance is halved, then transformed: its T has 8 rows, and 8 of zeros.
    """
    zeros, ones = (0.0,) * 8, (1.0,) * 8
    both = tuple((*row, *zeros) for row in COSINES) + tuple((*zeros, *row) for row in COSINES)
    halved = tuple(tuple(v / 2 for v in row for _ in range(2)) for row in COSINES) + (zeros * 2,) * 8
    luminance = tuple(row * 2 for row in coding.luminance) * 2
    chrominance = tuple((*row, *ones) for row in coding.chrominance) + (ones * 2,) * 8
    return constant((both, halved), x), constant((luminance, chrominance), x)


@case("jpeg", (2, 3, 18, 33), (2,), sized=lambda side, width: ((1, 3, max(side**2 // 3, 1), width), (1,)))
def _case(x: Tensor, factor: Tensor) -> Tensor:
    table = tuple(tuple(30.0 + i + j for j in range(8)) for i in range(8))
    with torch.no_grad():  # of what is rounded softly, since with steps a last bit decides which way
        return recompressed(x.clamp(0, 1), factor, Coding(table, table, soft=True)).detach()
