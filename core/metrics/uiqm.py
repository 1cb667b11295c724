"""Underwater image quality measure (Panetta, Gao and Agaian, IEEE J. Oceanic Engineering 2016): no reference needed.

UIQM = 0.0282 UICM + 0.2953 UISM + 3.5753 UIConM: colourfulness, sharpness and contrast of an RGB image in [0, 255].
"""

from __future__ import annotations

import math

import numpy as np

from ..annotations import Positive
from ..errors import UserError
from ..imaging.opencv import cv2
from . import metric
from .images import AnyImage, ColorOrder, InputOrder, prepared

BLOCK = 10
"""Side of the blocks whose extremes are compared; what is left over at the right and bottom is ignored."""

TRIMMED = 0.1
"""Share of pixels left out at each end of the trimmed means."""


LUMA = (0.299, 0.587, 0.114)
PLIP = 1026.0
"""Gamma and k of the parametrised logarithmic image processing (Panetta, Wharton and Agaian, IEEE T. SMC-B 38(1), 2008)."""


@metric("higher", "uiqm")
def calculate_uiqm(
    img: AnyImage,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """UIQM as the paper has it: UIConM of intensity, by PLIP's operations. Higher is better.

    Paper: Panetta, Gao and Agaian, IEEE Journal of Oceanic Engineering 2016. Constants: theirs (0.0282, 0.2953, 3.5753;
    trimmed by a tenth; blocks of 10 pixels). Input: RGB; integers, or floats in [0, 1] or [0, 255], clipped and rounded.
    Least size: 10 pixels a side; a smaller image is an error.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges. Clipped, and rounded to 8 bits.
        input_order: layout of arrays.
        color_order: bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the image when omitted.

    Raises:
        UserError: the image is not RGB, or has fewer than 10 pixels a side.
    """
    rgb = _underwater("calculate_uiqm", img, input_order, color_order, data_range)
    return _combined(colorfulness(rgb), sharpness(rgb, LUMA), logarithmic_contrast(rgb @ np.array(LUMA)))


@metric("higher", "uiqm_funie")
def calculate_uiqm_funie(
    img: AnyImage,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """UIQM as FUnIE-GAN's evaluation has it, and most underwater tables after it. Higher is better.

    Paper: Islam et al., IEEE RA-L 2020, after Panetta et al. 2016. Constants: FUnIE-GAN's code. Input: RGB; integers, or
    floats in [0, 1] or [0, 255], clipped and rounded. Least size: 10 pixels a side; a smaller image is an error.

    Its UIConM compares extremes over R, G and B, without PLIP, and with the sign turned: a shortcut that takes a colour cast
    for contrast. It weighs blue edges with 0.144, and its trimmed means lose one pixel more than they are divided by. The
    evaluation also resizes images to 256x256 first; that is left to the dataset. Arguments and errors of `calculate_uiqm`.
    """
    rgb = _underwater("calculate_uiqm_funie", img, input_order, color_order, data_range)
    return _combined(colorfulness(rgb, lost=1), sharpness(rgb, (0.299, 0.587, 0.144)), contrast(rgb))


def _underwater(
    owner: str, img: AnyImage, input_order: InputOrder, color_order: ColorOrder | None, data_range: float | None
) -> np.ndarray:
    (rgb,) = prepared(owner, img, data_range=data_range, color_order=color_order, input_order=input_order, clip=True)
    h, w, channels = rgb.shape
    if channels != 3 or min(h, w) < BLOCK:
        raise UserError(f"{owner}: needs RGB and {BLOCK} pixels a side, got {channels} channel(s) of {h}x{w}.")
    result: np.ndarray = np.rint(rgb)  # the logarithms of minima would measure rounding noise
    return result


def _combined(uicm: float, uism: float, uiconm: float) -> float:
    return 0.0282 * uicm + 0.2953 * uism + 3.5753 * uiconm


def colorfulness(rgb: np.ndarray, lost: int = 0) -> float:
    """UICM: trimmed means and variances about them of red-green and yellow-blue.

    Args:
        lost: smallest kept pixels that the trimmed means leave out of the sum, but not of the count.
    """
    red, green, blue = (rgb[..., i].ravel() for i in range(3))
    opponents = (red - green, (red + green) / 2 - blue)
    centres = [_trimmed_mean(o, lost) for o in opponents]
    spread = sum(float(np.mean((o - c) ** 2)) for o, c in zip(opponents, centres, strict=True))
    return -0.0268 * math.hypot(*centres) + 0.1586 * math.sqrt(spread)


def _trimmed_mean(values: np.ndarray, lost: int) -> float:
    n = len(values)
    low, high = math.ceil(TRIMMED * n), math.floor(TRIMMED * n)
    kept = np.sort(values)[low + lost : n - high]
    return float(kept.sum() / (n - low - high))


def sharpness(rgb: np.ndarray, weights: tuple[float, float, float]) -> float:
    """UISM: enhancement measure (EME) of each channel's Sobel edges times the channel, weighted."""
    total = 0.0
    for weight, channel in zip(weights, np.moveaxis(rgb, 2, 0), strict=True):
        channel = np.ascontiguousarray(channel)
        across = cv2.Sobel(channel, -1, 1, 0, borderType=cv2.BORDER_REFLECT)
        down = cv2.Sobel(channel, -1, 0, 1, borderType=cv2.BORDER_REFLECT)
        edges = np.hypot(across, down)
        strongest = edges.max()
        if strongest > 0:  # a flat channel has no edges, and adds nothing
            total += weight * _enhancement(edges * (255.0 / strongest) * channel)
    return total


def _enhancement(edges: np.ndarray) -> float:
    """EME: twice the mean over blocks of log(max / min); blocks that touch zero count as 0."""
    low, high = _extremes(edges[..., None])
    ratio = np.divide(high, low, out=np.ones_like(high), where=low > 0)
    return 2 * float(np.log(ratio).mean())


def contrast(rgb: np.ndarray) -> float:
    """FUnIE-GAN's UIConM: minus the mean over blocks of m log m, m the Michelson contrast over R, G, B; 0 where m is."""
    low, high = _extremes(rgb)
    m = np.divide(high - low, high + low, out=np.zeros_like(high), where=high > 0)
    terms = m * np.log(np.where(m > 0, m, 1.0))
    return -float(terms.mean())


def logarithmic_contrast(intensity: np.ndarray) -> float:
    """UIConM, logAMEE of (H, W) in [0, 255]: the PLIP mean over blocks of m log m; 0 where m is.

    m = (max - min) / (max + min), both by PLIP: a - b is k (a - b) / (k - b), a + b is a + b - a b / k, c times a is
    k - k (1 - a / k)^c. As m is at most 1, no block adds more than 0.
    """
    low, high = _extremes(intensity[..., None])
    difference, total = PLIP * (high - low) / (PLIP - low), high + low - high * low / PLIP
    m = np.divide(difference, total, out=np.zeros_like(high), where=total > 0)
    terms = m * np.log(np.where(m > 0, m, 1.0))
    return float(PLIP - PLIP * (1 - terms.sum() / PLIP) ** (1 / terms.size))


def _extremes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minima and maxima of blocks of (H, W, C), over all channels."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    blocks = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, -1)
    return blocks.min(axis=(1, 3, 4)), blocks.max(axis=(1, 3, 4))
