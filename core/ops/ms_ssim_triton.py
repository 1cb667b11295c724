"""Triton kernels of `ms_ssim.multiscale_similarity`: a launch a scale, each way, and one for the product.

A forward launch sums a scale's similarity, writes the means of 2 x 2 pixels which are the next, and keeps three maps: how the
sum changes with the filtered x, x^2 and x y. Of each scale one factor alone matters, so that backward these maps are filtered
back as they are, times a number of the plane, and what comes from the next scale is added. With five scales 11 launches in
place of about 350. Limit: arithmetic, 2 k^2 products of five moments a pixel; of a patch the launches.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .constants import constant
from .launching import launch, operator, tile
from .planes import alike, steps
from .ssim_triton import PIXELS, _factors, _moments, _spread, constants_of

CHUNK = 256
"""Partial sums that are added at once."""


@triton.jit
def _pooled(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, step, height, width, down, across, at, here, PIXELS: tl.constexpr,  # noqa: ANN001
):  # fmt: skip
    """Means of 2 x 2 pixels of a plane; of an odd side the first is a single one, among zeros."""
    row, column = at // across * 2 - height % 2, at % across * 2 - width % 2
    total = tl.zeros((PIXELS,), tl.float32)
    for k in range(4):
        r, c = row + k // 2, column + k % 2
        inside = here & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        total += tl.load(x + (r * width + c) * step, mask=inside, other=0.0)
    return total * 0.25


@triton.jit
def _scale(  # type: ignore[no-untyped-def]  # noqa: ANN202
    x, y, window, partial, slopes, next_x, next_y,  # noqa: ANN001
    channels, of_sample, of_channel, step, height, width, across, pixels, down2, across2, blocks, stride, shift, c1, c2,  # noqa: ANN001
    LAST: tl.constexpr, SLOPED: tl.constexpr, K: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    planes = (tl.num_programs(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    x += plane // channels * of_sample + plane % channels * of_channel
    y += plane // channels * of_sample + plane % channels * of_channel
    if not LAST:
        there = at < down2 * across2
        own = plane * down2 * across2 + at
        tl.store(next_x + own, _pooled(x, step, height, width, down2, across2, at, there, PIXELS), mask=there)
        tl.store(next_y + own, _pooled(y, step, height, width, down2, across2, at, there, PIXELS), mask=there)
    here = at < pixels
    mx, my, xx, yy, xy = _moments(x, y, window, at, here, width, across, shift, step, K, PIXELS)
    luminance, contrast, below1, below2 = _factors(mx, my, xx, yy, xy, shift, c1, c2)
    total = luminance * contrast if LAST else contrast
    tl.store(partial + plane * stride + tl.program_id(0) % blocks, tl.sum(tl.where(here, total, 0.0)) / pixels)
    if SLOPED:
        d = (luminance if LAST else 1.0) / pixels
        of_mean = d * 2 * (mx * contrast - my) / below2
        if LAST:
            of_mean += contrast * 2 * (my + shift - (mx + shift) * luminance) / below1 / pixels
        where = slopes + plane * pixels + at
        tl.store(where, of_mean, mask=here)
        tl.store(where + planes * pixels, -d * contrast / below2, mask=here)
        tl.store(where + 2 * planes * pixels, 2 * d / below2, mask=here)


@triton.jit
def _product(  # type: ignore[no-untyped-def]  # noqa: ANN202
    partial, counts, exponents, value, weights, channels, scales, stride,  # noqa: ANN001
    SCALES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Of one sample: the mean over channels of the product of the scales' powers, and its slopes by the scales' sums."""
    sample = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, SCALES)
    powers = tl.load(exponents + at, mask=at < scales, other=0.0)
    total = 0.0
    for channel in range(channels):
        plane = sample * channels + channel
        sums = partial + plane * stride
        factors = tl.full((SCALES,), 1.0, tl.float32)
        for scale in range(scales):
            count = tl.load(counts + scale).to(tl.int32)
            gathered = tl.zeros((CHUNK,), tl.float32)
            for start in range(0, count, CHUNK):
                k = start + tl.arange(0, CHUNK)
                gathered += tl.load(sums + k, mask=k < count, other=0.0)
            factors = tl.where(at == scale, tl.sum(gathered), factors)
            sums += count
        positive = tl.where(factors > 0, factors, 1.0)
        # The logarithm of a product that has no factor of zero; a NaN stays one.
        product = tl.exp(tl.sum(powers * tl.log(positive)))
        product = tl.where(tl.sum((factors <= 0).to(tl.int32)) > 0, 0.0, product)
        product = tl.where(tl.sum((factors != factors).to(tl.int32)) > 0, tl.sum(factors), product)
        total += product / channels
        slope = tl.where(factors > 0, product * powers / positive / channels, 0.0)
        tl.store(weights + plane * scales + at, slope, mask=at < scales)
    tl.store(value + sample, total)


@triton.jit
def _scale_back(  # type: ignore[no-untyped-def]  # noqa: ANN202
    grad, weights, x, y, window, slopes, coarser, of_x,  # noqa: ANN001
    channels, of_sample, of_channel, step, height, width, across, pixels, down2, across2, blocks, scale, scales, shift,  # noqa: ANN001
    LAST: tl.constexpr, K: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    further = (tl.num_programs(0) // blocks).to(tl.int64) * pixels
    at = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    here = at < height * width
    row, column = at // width, at % width
    of_mean, of_square, of_product = _spread(
        slopes + plane * pixels, further, window, at, here, height, width, across, K, PIXELS
    )
    own = plane // channels * of_sample + plane % channels * of_channel + at * step
    a = tl.load(x + own, mask=here, other=0.0) - shift
    b = tl.load(y + own, mask=here, other=0.0) - shift
    factor = tl.load(grad + plane // channels) * tl.load(weights + plane * scales + scale)
    total = factor * (of_mean + 2 * a * of_square + b * of_product)
    if not LAST:
        place = plane * down2 * across2 + (row + height % 2) // 2 * across2 + (column + width % 2) // 2
        total += 0.25 * tl.load(coarser + place, mask=here, other=0.0)
    tl.store(of_x + own, total, mask=here)


def _sides(x: Tensor, scales: int) -> list[tuple[int, int]]:
    found = [(x.shape[2], x.shape[3])]
    while len(found) < scales:
        found.append(((found[-1][0] + 1) // 2, (found[-1][1] + 1) // 2))
    return found


def _results(sides: list[tuple[int, int]], window: Tensor) -> list[tuple[int, int]]:
    """Of every scale columns and pixels of the filtered map."""
    reach = window.numel() - 1
    return [(width - reach, (height - reach) * (width - reach)) for height, width in sides]


def _parts(kept: Tensor, planes: int, each: int, pixels: list[int]) -> list[Tensor]:
    """What is kept, by scales: so many maps of all planes."""
    return list(kept.split([each * planes * count for count in pixels])) if kept.numel() else [kept] * len(pixels)


def _fake(
    x: Tensor, y: Tensor, window: Tensor, exponents: Tensor, data_range: float, sloped: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scales, (batch, channels) = exponents.numel(), x.shape[:2]
    sides = _sides(x, scales)
    maps = 2 * batch * channels * sum(h * w for h, w in sides[1:])
    slopes = 3 * batch * channels * sum(pixels for _, pixels in _results(sides, window)) if sloped else 0
    return x.new_empty(batch), x.new_empty(batch, channels, scales), x.new_empty(maps), x.new_empty(slopes)


def _run(
    x: Tensor, y: Tensor, window: Tensor, exponents: Tensor, data_range: float, sloped: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Memory for all scales: halved images, slopes, and one partial sum for each block of pixels.
    value, weights, kept, kept_slopes = _fake(x, y, window, exponents, data_range, sloped)
    x, y = alike(x, y)
    scales, held, planes = exponents.numel(), tile(PIXELS), x.shape[0] * x.shape[1]
    sides = _sides(x, scales)
    results = _results(sides, window)
    areas = [h * w for h, w in sides[1:]]
    maps = _parts(kept, planes, 2, areas)
    slopes = _parts(kept_slopes, planes, 3, [pixels for _, pixels in results])
    counts = [triton.cdiv(max([pixels, *areas[s : s + 1]]), held) for s, (_, pixels) in enumerate(results)]
    partial, done = x.new_empty(planes, sum(counts)), 0
    shift, c1, c2 = constants_of(data_range)
    window, apart = window.contiguous(), steps(x)
    # Each scale: both measures, and the images of the next one, in one launch.
    for scale, ((height, width), (across, pixels), blocks) in enumerate(zip(sides, results, counts, strict=True)):
        last = scale == scales - 1
        next_x, next_y = (x, y) if last else maps[scale].chunk(2)
        launch(
            _scale, (planes * blocks,), x, y, window, partial[:, done:], slopes[scale], next_x, next_y, *apart, height, width,
            across, pixels, *(sides[-1] if last else sides[scale + 1]), blocks, sum(counts), shift, c1, c2, LAST=last,
            SLOPED=sloped, K=window.numel(), PIXELS=held,
        )  # fmt: skip
        x, y, done = next_x, next_y, done + blocks
        apart = _apart(apart[0], *sides[min(scale + 1, scales - 1)])
    launch(
        _product, (len(value),), partial, constant(tuple(counts), exponents), exponents.contiguous(), value, weights,
        weights.shape[1], scales, sum(counts), SCALES=triton.next_power_of_2(scales), CHUNK=CHUNK,
    )  # fmt: skip
    return value, weights, kept, kept_slopes


def _fake_backward(
    grad: Tensor, weights: Tensor, maps: Tensor, slopes: Tensor, x: Tensor, y: Tensor, window: Tensor, data_range: float
) -> Tensor:
    return torch.empty_like(x)


def _run_backward(
    grad: Tensor, weights: Tensor, maps: Tensor, slopes: Tensor, x: Tensor, y: Tensor, window: Tensor, data_range: float
) -> Tensor:
    """The gradient of x, in its layout."""
    x, y = alike(x, y)
    of_x, scales, held, planes = torch.empty_like(x), weights.shape[2], tile(PIXELS), x.shape[0] * x.shape[1]
    sides = _sides(x, scales)
    results = _results(sides, window)
    kept = [(x, y), *(part.chunk(2) for part in _parts(maps, planes, 2, [h * w for h, w in sides[1:]]))]
    by_scale = _parts(slopes, planes, 3, [pixels for _, pixels in results])
    grad, window, coarser = grad.contiguous(), window.contiguous(), of_x
    for scale in range(scales - 1, -1, -1):
        (height, width), (across, pixels) = sides[scale], results[scale]
        blocks, last = triton.cdiv(height * width, held), scale == scales - 1
        made = of_x if scale == 0 else x.new_empty(planes, height, width)
        launch(
            _scale_back, (planes * blocks,), grad, weights, *kept[scale], window, by_scale[scale], coarser, made,
            *(steps(x) if scale == 0 else _apart(x.shape[1], height, width)), height, width, across, pixels,
            *sides[min(scale + 1, scales - 1)], blocks, scale, scales, constants_of(data_range)[0], LAST=last, K=window.numel(),
            PIXELS=held,
        )  # fmt: skip
        coarser = made
    return of_x


def _apart(channels: int, height: int, width: int) -> tuple[int, int, int, int]:
    """`planes.steps` of planes that lie one after the other."""
    return channels, channels * height * width, height * width, 1


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, y, window, _, ctx.data_range, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], x, y, window)


def _gradients(ctx: Any, backward: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    return backward(grad, *ctx.saved_tensors, ctx.data_range), None, None, None, None, None


fused = operator("ms_ssim", _run, _fake, _run_backward, _fake_backward, _setup, _gradients)
"""``fused(x, y, window, exponents, data_range, sloped)`` of float32: MS-SSIM (B), and what its gradient by x is made of.

Without `sloped` there is no gradient; y has none.
"""
