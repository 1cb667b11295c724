"""What frame interpolation is scored by, besides PSNR: interpolation error, and SSIM with a window over the channels too.

Papers of this field differ in whether a result is rounded to 8 bits first. That is a matter of the test set, not of the metric:
each dataset of `relume.datasets.interpolation_sets` says what its published figures do.
"""

from __future__ import annotations

import math

import numpy as np

from ..annotations import NonNegative, Positive
from ..imaging.opencv import cv2
from . import metric
from .images import AnyImage, InputOrder, prepared
from .psnr import mean_square
from .ssim import gaussian_taps, similarity_maps

RADIUS, SIGMA = 5, 1.5


@metric("higher", "ssim_matlab")
def calculate_ssim_matlab(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """SSIM as tables of frame interpolation have it (``ssim_matlab`` of RIFE and its descendants). Higher is better.

    Paper: Wang et al., IEEE TIP 2004; used by Huang et al. (RIFE), ECCV 2022. Constants: the code of RIFE: 0.01, 0.03, a
    Gaussian of 11 x 11 x 11, sigma 1.5. Input: any channels but alpha; integers, or floats in [0, 1] or [0, 255]. Least size:
    1 pixel a side; borders are continued.

    The image is taken for a volume, channels being its depth: the Gaussian window has 11 x 11 x 11 taps with sigma 1.5, and
    all three axes are continued by their outermost values. Of the window's depth, all but three taps lie in the continuation,
    and scores are higher than `calculate_ssim` gives. Variances are biased.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.
    """
    x, y = prepared(
        "calculate_ssim_matlab", img, img2, crop_border=crop_border, data_range=data_range, input_order=input_order
    )
    taps = gaussian_taps(RADIUS, SIGMA)
    across = channel_window(x.shape[2], taps)

    def smooth(z: np.ndarray) -> np.ndarray:
        spatial = cv2.sepFilter2D(z, -1, taps, taps, borderType=cv2.BORDER_REPLICATE).reshape(z.shape)
        result: np.ndarray = spatial @ across
        return result

    return float(similarity_maps(x, y, smooth)[0].mean())


def channel_window(channels: int, taps: np.ndarray) -> np.ndarray:
    """(C, C) matrix M such that ``values @ M`` filters C channels, the outermost ones continued."""
    radius = len(taps) // 2
    matrix = np.zeros((channels, channels))
    for out in range(channels):
        for offset, tap in enumerate(taps, start=-radius):
            matrix[min(max(out + offset, 0), channels - 1), out] += tap
    return matrix


@metric("lower", "ie")
def calculate_ie(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """Interpolation error as papers report it on Middlebury: mean absolute difference in grey levels (of 255). Lower is better.

    Paper: Baker et al., IJCV 2011, whose root it leaves out. Constants: none. Input: any channels but alpha, jointly;
    integers, or floats in [0, 1] or [0, 255]. Least size: 1 pixel a side.

    The benchmark itself defines it as a root mean square: that is `calculate_ie_rms`. Arguments as of `calculate_ssim_matlab`.
    """
    x, y = prepared("calculate_ie", img, img2, crop_border=crop_border, data_range=data_range, input_order=input_order)
    return float(np.abs(x - y).mean())


@metric("lower", "ie_rms")
def calculate_ie_rms(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """Interpolation error of Baker et al. (IJCV 2011): root mean square difference in grey levels (of 255). Lower is better.

    Paper: Baker et al., IJCV 2011. Constants: none. Input: any channels but alpha, jointly; integers, or floats in [0, 1] or
    [0, 255]. Least size: 1 pixel a side.

    Arguments as of `calculate_ssim_matlab`.
    """
    owner = "calculate_ie_rms"
    x, y = prepared(owner, img, img2, crop_border=crop_border, data_range=data_range, input_order=input_order)
    return math.sqrt(mean_square(x, y))
