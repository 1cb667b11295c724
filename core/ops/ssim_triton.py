"""Triton kernels of `ssim.similarity`: both images are read where they are, and no map is written forward.

A program has some pixels of one plane and goes through all places of the window, whose reads come from the cache. Forward one
launch and one that adds partial sums; pytorch-msssim takes 40, and 12 maps and more. Backward two launches: the slopes by the
three moments that the prediction is in, computed from the images again, then these filtered back: 5 maps and 4, in place of
about 150. Limit: arithmetic, 2 k^2 products of five moments a pixel.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launch, operator, tile
from .operators import or_zeros

PIXELS = 256
"""Pixels of a program."""


@triton.jit
def _moments(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, window, at, here, width, across, shift, step, K: tl.constexpr, PIXELS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """Filtered x - shift, y - shift, variances of x and y and covariance, at pixels `at` of the result, `step` apart."""
    first = (at // across * width + at % across) * step
    mx = tl.zeros((PIXELS,), tl.float32)
    my, xx, yy, xy = mx, mx, mx, mx
    for i in range(K):
        for j in range(K):
            w = tl.load(window + i) * tl.load(window + j)
            a = tl.load(x + first + (i * width + j) * step, mask=here, other=0.0) - shift
            b = tl.load(y + first + (i * width + j) * step, mask=here, other=0.0) - shift
            mx += w * a
            my += w * b
            xx += w * a * a
            yy += w * b * b
            xy += w * a * b
    return mx, my, xx - mx * mx, yy - my * my, xy - mx * my


@triton.jit
def _factors(mx, my, xx, yy, xy, shift, c1, c2):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Luminance and contrast, and their denominators."""
    mx, my = mx + shift, my + shift
    below1, below2 = mx * mx + my * my + c1, xx + yy + c2
    return (2 * mx * my + c1) / below1, (2 * xy + c2) / below2, below1, below2


@triton.jit
def _similarity(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, window, sums, height, width, across, pixels, blocks, shift, c1, c2,  # noqa: ANN001
    K: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < pixels
    x += plane * height * width
    y += plane * height * width
    mx, my, xx, yy, xy = _moments(x, y, window, at, here, width, across, shift, 1, K, PIXELS)
    luminance, contrast, _, _ = _factors(mx, my, xx, yy, xy, shift, c1, c2)
    where = sums + (plane * blocks + tl.program_id(0) % blocks) * 2
    tl.store(where, tl.sum(tl.where(here, luminance * contrast, 0.0)) / pixels)
    tl.store(where + 1, tl.sum(tl.where(here, contrast, 0.0)) / pixels)


@triton.jit
def _slopes(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, window, of_value, of_contrast, slopes, height, width, across, pixels, blocks, shift, c1, c2,  # noqa: ANN001
    K: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """By filtered x, x^2 and x y: (3, planes, pixels)."""
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < pixels
    x += plane * height * width
    y += plane * height * width
    mx, my, xx, yy, xy = _moments(x, y, window, at, here, width, across, shift, 1, K, PIXELS)
    luminance, contrast, below1, below2 = _factors(mx, my, xx, yy, xy, shift, c1, c2)
    of_both = tl.load(of_value + plane) / pixels
    d = of_both * luminance + tl.load(of_contrast + plane) / pixels
    of_mean = of_both * contrast * 2 * (my + shift - (mx + shift) * luminance) / below1
    of_mean += d * 2 * (mx * contrast - my) / below2
    planes = tl.num_programs(0) // blocks
    where = slopes + plane * pixels + at
    further = planes.to(tl.int64) * pixels
    tl.store(where, of_mean, mask=here)
    tl.store(where + further, -d * contrast / below2, mask=here)
    tl.store(where + 2 * further, 2 * d / below2, mask=here)


@triton.jit
def _spread(  # type: ignore[no-untyped-def]  # noqa: ANN202
    slopes, further, window, at, here, height, width, across, K: tl.constexpr, PIXELS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """Slopes by filtered x, x^2 and x y of one plane, `further` from one another, as slopes by these at pixels `at`."""
    row, column = at // width, at % width
    down = height - K + 1
    of_mean = tl.zeros((PIXELS,), tl.float32)
    of_square, of_product = of_mean, of_mean
    for i in range(K):
        for j in range(K):
            w = tl.load(window + i) * tl.load(window + j)
            inside = here & (row >= i) & (row - i < down) & (column >= j) & (column - j < across)
            where = slopes + (row - i) * across + column - j
            of_mean += w * tl.load(where, mask=inside, other=0.0)
            of_square += w * tl.load(where + further, mask=inside, other=0.0)
            of_product += w * tl.load(where + 2 * further, mask=inside, other=0.0)
    return of_mean, of_square, of_product


@triton.jit
def _filtered_back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, window, slopes, of_x, height, width, across, pixels, blocks, shift,  # noqa: ANN001
    K: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    planes = tl.num_programs(0) // blocks
    further = planes.to(tl.int64) * pixels
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    of_mean, of_square, of_product = _spread(
        slopes + plane * pixels, further, window, at, here, height, width, across, K, PIXELS
    )
    own = plane * height * width + at
    a = tl.load(x + own, mask=here, other=0.0) - shift
    b = tl.load(y + own, mask=here, other=0.0) - shift
    tl.store(of_x + own, of_mean + 2 * a * of_square + b * of_product, mask=here)


def constants_of(data_range: float) -> tuple[float, float, float]:
    """What images are shifted by, and both constants of SSIM."""
    return 0.5 * data_range, (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


def _sizes(x: Tensor, window: Tensor, data_range: float) -> tuple[int, tuple[int, int, int, int], tuple[float, ...]]:
    """Planes; height, width, and columns and pixels of the result; what images are shifted by, and both constants."""
    height, width = x.shape[-2:]
    reach = window.numel() - 1
    across = width - reach
    return x.shape[0] * x.shape[1], (height, width, across, across * (height - reach)), constants_of(data_range)


def _fake(x: Tensor, y: Tensor, window: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    value, contrast = (torch.empty(x.shape[:2], device=x.device) for _ in range(2))
    return value, contrast


def _run(x: Tensor, y: Tensor, window: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    planes, shape, constants = _sizes(x, window, data_range)
    held = tile(PIXELS)
    blocks = triton.cdiv(shape[3], held)
    sums = torch.empty(planes, blocks, 2, device=x.device)
    launch(
        _similarity, (planes * blocks,), x.contiguous(), y.contiguous(), window.contiguous(), sums, *shape, blocks,
        *constants, K=window.numel(), PIXELS=held,
    )  # fmt: skip
    value, contrast = (t.clone(memory_format=torch.contiguous_format) for t in sums.sum(1).unbind(1))
    return value.view(x.shape[:2]), contrast.view(x.shape[:2])


def _fake_backward(
    of_value: Tensor, of_contrast: Tensor, x: Tensor, y: Tensor, window: Tensor, data_range: float
) -> Tensor:
    return torch.empty(x.shape, device=x.device)


def _run_backward(
    of_value: Tensor, of_contrast: Tensor, x: Tensor, y: Tensor, window: Tensor, data_range: float
) -> Tensor:
    """The gradient of x."""
    of_x = _fake_backward(of_value, of_contrast, x, y, window, data_range)
    planes, shape, constants = _sizes(x, window, data_range)
    x, y, window, held = x.contiguous(), y.contiguous(), window.contiguous(), tile(PIXELS)
    slopes = torch.empty(3, planes, shape[3], device=x.device)
    blocks = triton.cdiv(shape[3], held)
    launch(
        _slopes, (planes * blocks,), x, y, window, of_value.contiguous(), of_contrast.contiguous(), slopes, *shape, blocks,
        *constants, K=window.numel(), PIXELS=held,
    )  # fmt: skip
    blocks = triton.cdiv(shape[0] * shape[1], held)
    launch(
        _filtered_back, (planes * blocks,), x, y, window, slopes, of_x, *shape, blocks, constants[0], K=window.numel(),
        PIXELS=held,
    )  # fmt: skip
    return of_x


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.data_range = inputs[3]


def _gradients(ctx: Any, backward: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    x, y, window = ctx.saved_tensors
    given = [or_zeros(g, x[:, :, 0, 0]) for g in grads]
    of_x = backward(*given, x, y, window, ctx.data_range) if ctx.needs_input_grad[0] else None
    of_y = backward(*given, y, x, window, ctx.data_range) if ctx.needs_input_grad[1] else None
    return of_x, of_y, None, None


fused = operator("ssim", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, y, window, data_range)`` of float32: SSIM and its contrast, means over pixels (B, C)."""
