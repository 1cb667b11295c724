"""The Triton kernel of `jpeg.recompressed`: every image is read once and written once, in one launch for images of all sizes.

A program has a few blocks of 16 x 16 pixels side by side in registers: colours, halved chroma, both transforms as products with
matrices of 16 x 16, rounding, and the same back. 2 maps of bytes in one launch, in place of about 22 maps in 35. Limit: bytes;
of a patch the launch. It has no gradient: the degradations that it is for ask for none.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: ANN001, ANN202
# Triton reads annotations of kernels itself and knows its own only.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import operations
from .launching import launch, tile

BLOCKS = 2
"""Blocks of 16 x 16 of a program."""
NEAREST = tl.constexpr(12582912.0)
"""1.5 2^23: adding and subtracting it leaves the nearest whole number, the even one of two, of what is below 2^22."""


@triton.jit
def _there_and_back(
    plane, factor, transforms, tables, which, BLOCKS: tl.constexpr, WHOLE: tl.constexpr, SOFT: tl.constexpr
):
    """A plane (16, 16 BLOCKS), centred on 0, with rounded coefficients; that of `which` 1 halved and doubled besides."""
    i, j = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    entry = which * 256 + i * 16 + j
    transform, turned = tl.load(transforms + entry), tl.load(transforms + which * 256 + j * 16 + i)
    down = tl.dot(transform, plane, input_precision="ieee")
    found = tl.dot(tl.reshape(down, (16 * BLOCKS, 16)), turned, input_precision="ieee")
    steps = tl.load(tables + entry) * factor
    if WHOLE:
        steps = tl.minimum(tl.maximum(tl.floor(steps + 0.5), 1.0), 255.0)
    # Each row of `found` is a row of a block, those of one row of the image next to each other.
    steps = tl.reshape(tl.broadcast_to(steps[:, None, :], (16, BLOCKS, 16)), (16 * BLOCKS, 16))
    scaled = tl.div_rn(found, steps)
    nearest = (scaled + NEAREST) - NEAREST
    if SOFT:
        rest = scaled - nearest
        nearest += rest * rest * rest
    back = tl.dot(nearest * steps, transform, input_precision="ieee")
    return tl.dot(turned, tl.reshape(back, (16, 16 * BLOCKS)), input_precision="ieee")


@triton.jit
def _recompress(
    x, factors, transforms, tables, sizes, y, height, width, pixels, across, programs,
    BLOCKS: tl.constexpr, SIZED: tl.constexpr, WHOLE: tl.constexpr, SOFT: tl.constexpr,
):  # fmt: skip
    image = (tl.program_id(0) // programs).to(tl.int64)
    top = tl.program_id(0) % programs // across * 16
    left = tl.program_id(0) % across * (16 * BLOCKS)
    own_height, own_width = height, width
    if SIZED:
        own_height, own_width = tl.load(sizes + 2 * image), tl.load(sizes + 2 * image + 1)
    if (top < own_height) & (left < own_width):
        row, column = top + tl.arange(0, 16)[:, None], left + tl.arange(0, 16 * BLOCKS)[None, :]
        here = (row < own_height) & (column < own_width)
        at = image * 3 * pixels + row * width + column
        red = tl.load(x + at, mask=here, other=0.0) * 255
        green = tl.load(x + at + pixels, mask=here, other=0.0) * 255
        blue = tl.load(x + at + 2 * pixels, mask=here, other=0.0) * 255
        factor = tl.load(factors + image)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue - 128
        cb = -0.168736 * red - 0.331264 * green + 0.5 * blue
        cr = 0.5 * red - 0.418688 * green - 0.081312 * blue
        luma = _there_and_back(luma, factor, transforms, tables, 0, BLOCKS, WHOLE, SOFT) + 128
        cb = 4 * _there_and_back(cb, factor, transforms, tables, 1, BLOCKS, WHOLE, SOFT)
        cr = 4 * _there_and_back(cr, factor, transforms, tables, 1, BLOCKS, WHOLE, SOFT)
        red, blue = luma + 1.402 * cr, luma + 1.772 * cb
        green = luma - 0.344136 * cb - 0.714136 * cr
        tl.store(y + at, tl.div_rn(tl.minimum(tl.maximum(red, 0.0), 255.0), 255.0), mask=here)
        tl.store(y + at + pixels, tl.div_rn(tl.minimum(tl.maximum(green, 0.0), 255.0), 255.0), mask=here)
        tl.store(y + at + 2 * pixels, tl.div_rn(tl.minimum(tl.maximum(blue, 0.0), 255.0), 255.0), mask=here)


@torch.library.custom_op("relume::jpeg", mutates_args=())
def fused(
    x: Tensor, factor: Tensor, transforms: Tensor, tables: Tensor, sizes: Tensor | None, whole: bool, soft: bool
) -> Tensor:
    """`jpeg.recompressed` of float32, shapes included."""
    x, blocks = x.contiguous(), tile(BLOCKS)
    y = torch.empty_like(x)
    height, width = x.shape[2:]
    across = triton.cdiv(width, 16 * blocks)
    programs = triton.cdiv(height, 16) * across
    launch(
        _recompress, (len(x) * programs,), x, factor.contiguous(), transforms, tables, x if sizes is None else sizes, y,
        height, width, height * width, across, programs, BLOCKS=blocks, SIZED=sizes is not None, WHOLE=whole, SOFT=soft,
    )  # fmt: skip
    return y


@fused.register_fake
def _(
    x: Tensor, factor: Tensor, transforms: Tensor, tables: Tensor, sizes: Tensor | None, whole: bool, soft: bool
) -> Tensor:
    return torch.empty(x.shape, device=x.device)


operations.register("jpeg")
