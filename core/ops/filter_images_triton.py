"""The Triton kernel of `filter_images.filtered`: one launch for images of all sizes, which writes no border anywhere.

A program has a tile of a plane; each weight is read once and multiplies a shifted tile, which comes from the cache. 2 maps of
bytes, where PyTorch has 4, and three launches for each size of images. Limit: loads from the cache, k^2 of every pixel. It has
no gradient: the degradations that it is for ask for none.
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

ROWS, COLUMNS = 8, 64
"""Tile of a program."""


@triton.jit
def _inside(at, length, reach, shortest):
    """The place in a line of that length that `at`, up to `reach` beyond its ends, stands for."""
    reflected = length - 1 - tl.abs(length - 1 - tl.abs(at))
    return tl.where(shortest > reach, reflected, tl.minimum(tl.maximum(at, 0), length - 1))


@triton.jit
def _filter(
    x, kernels, sizes, y, channels, height, width, side, across, programs,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZED: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // programs).to(tl.int64)
    image = plane // channels
    top = tl.program_id(0) % programs // across * ROWS
    left = tl.program_id(0) % across * COLUMNS
    own_height, own_width = height, width
    if SIZED:
        own_height, own_width = tl.load(sizes + 2 * image), tl.load(sizes + 2 * image + 1)
    if (top < own_height) & (left < own_width):
        row, column = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
        here = (row < own_height)[:, None] & (column < own_width)[None, :]
        shortest, reach = tl.minimum(own_height, own_width), side // 2
        x += plane * height * width
        kernels += image * side * side
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for i in range(side):
            above = _inside(row + i - reach, own_height, reach, shortest)[:, None] * width
            for j in range(side):
                weight = tl.load(kernels + i * side + j)
                if weight != 0:
                    beside = _inside(column + j - reach, own_width, reach, shortest)[None, :]
                    total += weight * tl.load(x + above + beside, mask=here, other=0.0)
        tl.store(y + plane * height * width + row[:, None] * width + column[None, :], total, mask=here)


@torch.library.custom_op("relume::filter_images", mutates_args=())
def fused(x: Tensor, kernels: Tensor, sizes: Tensor | None) -> Tensor:
    """`filter_images.filtered` of float32, shapes included."""
    x, rows = x.contiguous(), tile(ROWS)
    y = torch.empty_like(x)
    channels, height, width = x.shape[1:]
    across = triton.cdiv(width, COLUMNS)
    programs = triton.cdiv(height, rows) * across
    launch(
        _filter, (len(x) * channels * programs,), x, kernels.contiguous(), x if sizes is None else sizes, y, channels, height,
        width, kernels.shape[-1], across, programs, ROWS=rows, COLUMNS=COLUMNS, SIZED=sizes is not None,
    )  # fmt: skip
    return y


@fused.register_fake
def _(x: Tensor, kernels: Tensor, sizes: Tensor | None) -> Tensor:
    return torch.empty(x.shape, device=x.device)


operations.register("filter_images")
