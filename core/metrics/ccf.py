"""Colourfulness-contrast-fog density index of underwater images (Wang et al., Computers & Electrical Eng. 70, 2018)."""

from __future__ import annotations

import math

import numpy as np

from ..annotations import Positive
from ..errors import UserError
from ..imaging.opencv import cv2
from . import metric
from .fog import GRAY, fog_density
from .images import AnyImage, ColorOrder, InputOrder, prepared
from .ssim import gaussian_taps

BLOCK = 64
EDGY = 0.002
"""Share of edge pixels above which a block counts."""

FLAT_SHARE, LOW_TO_HIGH = 0.7, 0.4
"""Matlab's automatic Canny thresholds: so many pixels are not edges, and so much lower is the lower threshold."""


@metric("higher", "ccf")
def calculate_ccf(
    img: AnyImage,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """CCF = 0.17593 colourfulness + 0.61759 contrast + 0.33988 (10 - fog density), no reference. Higher is better.

    Paper: Wang et al., Computers and Electrical Engineering 2018; fog density by Choi et al., IEEE TIP 2015. Constants: both
    papers' releases. Input: RGB; integers, or floats in [0, 1] or [0, 255], clipped and rounded. Least size: 64 pixels a
    side; a smaller image is an error.

    As the authors' Matlab release computes it for one image: its rescaling of each part to [1, 10] has no effect then,
    and "variance" in the colourfulness is the variance between columns of the variance within columns. Its edge detector
    is Matlab's; ours is OpenCV's with the same smoothing and thresholds, and only decides which blocks are flat.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges. Clipped, and rounded to 8 bits.
        input_order: layout of arrays.
        color_order: bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the image when omitted.

    Raises:
        UserError: the image is not RGB, or has fewer than 64 pixels a side.
    """
    (rgb,) = prepared(
        "calculate_ccf", img, data_range=data_range, color_order=color_order, input_order=input_order, clip=True
    )
    h, w, channels = rgb.shape
    if channels != 3 or min(h, w) < BLOCK:
        raise UserError(f"calculate_ccf: needs RGB and {BLOCK} pixels a side, got {channels} channel(s) of {h}x{w}.")
    rgb = np.rint(rgb)
    return 0.17593 * colorfulness(rgb) + 0.61759 * contrast(rgb) + 0.33988 * (10 - fog_density(rgb))


def colorfulness(rgb: np.ndarray) -> float:
    """Spread of the opponent colours of the logarithms of R, G, B, each less its mean."""
    logs = np.log(rgb + 1e-5)
    red, green, blue = np.moveaxis(logs - logs.mean(axis=(0, 1)), 2, 0)
    opponents = (red - green, (red + green) / 2 - blue)
    spread = sum(o.var(axis=0, ddof=1).var(ddof=1) for o in opponents)
    offset = math.hypot(*(o.mean() for o in opponents))  # zero but for rounding; part of the formula
    return float(1000 * (math.sqrt(spread) + 0.3 * offset) / 85.59)


def contrast(rgb: np.ndarray) -> float:
    """Standard deviation of gray in 64x64 blocks that have edges, summed and divided by the number of all blocks."""
    gray = np.floor(rgb @ np.array(GRAY) + 0.5)
    rows, columns = gray.shape[0] // BLOCK, gray.shape[1] // BLOCK
    blocks = gray[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    blocks = np.ascontiguousarray(blocks.reshape(-1, BLOCK, BLOCK))
    return float(sum(block.std() for block in blocks if _has_edges(block)) / len(blocks))


def _has_edges(block: np.ndarray) -> bool:
    """Whether Canny's detector marks more than EDGY of a block's pixels."""
    smooth = gaussian_taps(8, math.sqrt(2))
    slope = np.gradient(smooth)
    slope /= np.abs(slope).sum() / 2
    across = cv2.sepFilter2D(block, -1, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(block, -1, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    magnitude = np.hypot(across, down)
    strongest = magnitude.max()
    if strongest < 1e-9:  # flat, but for rounding
        return False
    counts = np.bincount(np.rint(magnitude / strongest * 63).astype(int).ravel(), minlength=64)
    high = (int(np.argmax(counts.cumsum() > FLAT_SHARE * block.size)) + 1) / 64
    scale = 32000 / strongest  # OpenCV takes gradients as 16-bit integers
    dx, dy = (np.rint(d * scale).astype(np.int16) for d in (across, down))
    edges = cv2.Canny(dx, dy, LOW_TO_HIGH * high * 32000, high * 32000, L2gradient=True)
    return bool(np.count_nonzero(edges) > EDGY * block.size)
