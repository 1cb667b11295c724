"""Natural image quality evaluator (Mittal, Soundararajan and Bovik, IEEE Signal Processing Letters 2013), without reference.

Statistics of an image's luma, normalised by local mean and contrast, on blocks and at two scales, are compared with those
of undistorted photographs. What those are is in ``niqe.npz``: mean (36,) and covariance (36, 36) of the multivariate Gaussian
that the authors fitted, as published with their software. That may be used, copied, changed and distributed for any purpose
with acknowledgement of its source: Copyright (c) 2011 The University of Texas at Austin, Laboratory for Image and Video
Engineering (http://live.ece.utexas.edu).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..annotations import NonNegative, Positive
from ..errors import UserError
from ..imaging.opencv import cv2
from . import metric
from .images import AnyImage, ColorOrder, InputOrder, has_colours, luma, prepared

BLOCK = 96
"""Side of the blocks of the image; those of the half-size image are half as large."""

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Offsets (down, right) of the pixels that each pixel is multiplied with."""


@metric("lower", "niqe")
def calculate_niqe(
    img: AnyImage,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    convert_to: Literal["y", "gray"] = "y",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """NIQE as BasicSR (and the authors' Matlab program) computes it. Lower is better. (Photographs: 2 to 5.)

    Paper: Mittal et al., IEEE Signal Processing Letters 2013. Constants: the authors' model of undistorted photographs and
    their Matlab program's windows. Input: gray or RGB; integers, or floats in [0, 1] or [0, 255]. Least size: 96x192 pixels,
    either way up; a smaller image is an error.

    NaN where there are no statistics to speak of: nothing but flat areas.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        convert_to: the luma, Matlab's (``y``) or OpenCV's (``gray``).
        color_order: bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the image when omitted.

    Raises:
        UserError: the image has fewer than two whole blocks of 96x96, so that there is no spread among them.
    """
    settings = {"crop_border": crop_border, "color_order": color_order, "input_order": input_order}
    (rgb,) = prepared("calculate_niqe", img, data_range=data_range, **settings)  # type: ignore[arg-type]
    height, width = rgb.shape[:2]
    if (height // BLOCK) * (width // BLOCK) < 2:
        least = f"{BLOCK}x{2 * BLOCK}"
        raise UserError(
            f"calculate_niqe: compares blocks of {BLOCK}x{BLOCK} pixels, of which it needs two: an image of {least} at least; "
            f"this one has {height}x{width} (height x width{', after crop_border' if crop_border else ''})."
        )
    if convert_to == "y" or not has_colours(rgb):
        y = luma(rgb)[..., 0].astype(np.float32)
    else:
        bgr = np.ascontiguousarray(rgb[..., ::-1], np.float32)  # in this order sums of thousandths round as BasicSR's
        y = cv2.cvtColor(bgr / np.float32(255), cv2.COLOR_BGR2GRAY) * np.float32(255)
    return distance(features(np.round(y)))


def distance(blocks: np.ndarray) -> float:
    """How far the statistics of some blocks (N, 36) are from those of undistorted photographs."""
    complete = blocks[~np.isnan(blocks).any(axis=1)]
    if len(complete) < 2:
        return math.nan
    mean, covariance = undistorted()
    difference = mean - np.nanmean(blocks, axis=0)
    pooled = (covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


@functools.cache
def undistorted() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of undistorted photographs."""
    with np.load(Path(__file__).with_suffix(".npz")) as model:
        return model["mean"], model["covariance"]


def features(y: np.ndarray) -> np.ndarray:
    """Statistics (N, 36) of the whole blocks in a luma image (H, W) in [0, 255], 18 at each of two scales."""
    rows, columns = (n // BLOCK for n in y.shape)
    y = y[: rows * BLOCK, : columns * BLOCK]
    scales = []
    for side in (BLOCK, BLOCK // 2):
        normal = normalised(y) if y.size else y
        blocks = normal.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side, side)
        scales.append(np.array([block_features(b) for b in blocks]).reshape(-1, 18))
        if side == BLOCK and y.size:
            y = halved(y)
    return np.concatenate(scales, axis=1)


def normalised(y: np.ndarray) -> np.ndarray:
    """Pixels minus their local mean, divided by their local standard deviation plus one.

    Rounded to float32 where BasicSR rounds: in flat areas the deviation is a small difference of large numbers.
    """
    window = np.outer(*[cv2.getGaussianKernel(7, 7 / 6).ravel()] * 2)

    def smooth(x: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x.astype(np.float64), -1, window, borderType=cv2.BORDER_REPLICATE).astype(np.float32)

    mean = smooth(y)
    result: np.ndarray = (y - mean) / (np.sqrt(np.abs(smooth(y * y) - mean * mean)) + 1)
    return result


def halved(y: np.ndarray) -> np.ndarray:
    """Half the size, by Matlab's antialiased bicubic interpolation; the borders are continued by reflection."""
    offset = np.abs(np.arange(-3.5, 4)) / 2
    near = 1.5 * offset**3 - 2.5 * offset**2 + 1
    far = -0.5 * offset**3 + 2.5 * offset**2 - 4 * offset + 2
    taps = np.where(offset <= 1, near, far)
    taps = taps / taps.sum()
    for axis in (0, 1):
        padded = np.pad(y, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=axis)
        y = (windows[::2] if axis == 0 else windows[:, ::2]) @ taps
    return y.astype(np.float32)


def block_features(block: np.ndarray) -> list[float]:
    """The 18 statistics of one normalised block: shapes and spreads of its values and of products of neighbours."""
    shape, left, right = asymmetric_gaussian(block)
    found = [shape, (left + right) / 2]
    for offset in NEIGHBOURS:
        shape, left, right = asymmetric_gaussian(block * np.roll(block, offset, axis=(0, 1)))
        mean = (right - left) * math.exp(math.lgamma(2 / shape) - math.lgamma(1 / shape))
        found += [shape, mean, left, right]
    return found


def asymmetric_gaussian(x: np.ndarray) -> tuple[float, float, float]:
    """Shape and the spreads to the left and to the right of an asymmetric generalised Gaussian, by matching moments.

    (Lasmar, Stitou and Berthoumieu, ICIP 2009.) The spreads are NaN where one side is empty.
    """
    negative, positive = x[x < 0], x[x > 0]
    if not (negative.size and positive.size):
        return math.nan, math.nan, math.nan
    left, right = (math.sqrt(np.mean(side * side)) for side in (negative, positive))
    skew = left / right
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x * x) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios, spreads = shape_table()
    nearest = int(np.argmin((ratios - ratio) ** 2))
    return float(shapes[nearest]), left * float(spreads[nearest]), right * float(spreads[nearest])


@functools.cache
def shape_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes a, and for each Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)), which moments give, and sqrt(Gamma(1/a) / Gamma(3/a))."""
    shapes = np.arange(0.2, 10.001, 0.001)
    one, two, three = (torch.lgamma(torch.from_numpy(n / shapes)).numpy() for n in (1, 2, 3))
    return shapes, np.exp(2 * two - one - three), np.exp((one - three) / 2)
