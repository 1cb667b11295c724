"""Peak signal-to-noise ratio, under the definitions that tables are made with.

10 log10(255^2 / MSE) dB of images in [0, 255]. Identical images score infinity. In the mean over a set no image counts as
more than 100 dB, unless all are identical (`relume.core.metrics.mean_score`), and the log says how many were.

Images have one channel or three (alpha is left out), and any size of at least a pixel once `crop_border` is off.
"""

from __future__ import annotations

import math

import numpy as np

from ..annotations import NonNegative, Positive
from . import IDENTICAL, metric
from .images import AnyImage, ColorOrder, InputOrder, has_colours, luma, prepared, views


def decibels(mean_square: float, peak: float = 255.0) -> float:
    """The ratio of a peak's square to a mean square error, in dB; infinite when there is no error."""
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def mean_square(x: np.ndarray, y: np.ndarray) -> float:
    """Mean of squared differences over all pixels and channels."""
    return float(np.mean(np.square(x - y)))


@metric("higher", "psnr", most=IDENTICAL)
def calculate_psnr(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """PSNR in dB, BasicSR's: over all channels jointly, nothing clipped. Higher is better.

    Paper: Wang and Bovik, IEEE Signal Processing Magazine 2009. Constants: BasicSR's, a peak of 255. Input: any channels but
    alpha, jointly; integers, or floats in [0, 1] or [0, 255]. Least size: 1 pixel a side.

    Of six channels, which are two views, it is the mean of both views' PSNR, as NAFNet's function of that name has it.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        test_y_channel: compare the luma (Y of Matlab's YCbCr) only.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.
    """
    x, y = prepared(
        "calculate_psnr",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
    )
    values = []
    for x_view, y_view in zip(views(x), views(y), strict=True):
        pair = (luma(x_view), luma(y_view)) if test_y_channel else (x_view, y_view)
        values.append(decibels(mean_square(*pair)))
    return sum(values) / len(values)


@metric("higher", "psnr_pt")
def calculate_psnr_pt(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """PSNR in dB, BasicSR's for tensors in [0, 1]: 1e-8 is added to the MSE, so that it ends at 80 dB. Higher is better.

    Paper: Wang and Bovik, IEEE Signal Processing Magazine 2009. Constants: BasicSR's, a peak of 1 and 1e-8. Input: any
    channels but alpha, jointly; integers, or floats in [0, 1] or [0, 255]. Least size: 1 pixel a side.

    Arguments as of `calculate_psnr`.
    """
    x, y = prepared(
        "calculate_psnr_pt", img, img2, crop_border=crop_border, data_range=data_range, color_order=color_order
    )
    if test_y_channel:
        x, y = luma(x), luma(y)
    return decibels(mean_square(x, y) / 255**2 + 1e-8, peak=1.0)


@metric("higher", "psnr_skimage", most=IDENTICAL)
def calculate_psnr_skimage(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    clip: bool = True,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """PSNR in dB as the underwater networks' training scripts have it, through scikit-image. Higher is better.

    Paper: Wang and Bovik, IEEE Signal Processing Magazine 2009. Constants: scikit-image's (van der Walt et al., PeerJ 2014),
    a peak of 255. Input: any channels but alpha, jointly; integers, or floats in [0, 1] or [0, 255]. Least size: 1 pixel a
    side.

    The formula is the usual one. What differs is what it is given: floats in [0, 1], not rounded to 8 bits. Results may
    leave that range; the test scripts clip them and the training scripts do not.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        clip: clip both images to the range first.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.
    """
    x, y = prepared(
        "calculate_psnr_skimage",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        input_order=input_order,
        clip=clip,
    )
    return decibels(mean_square(x, y))


@metric("higher", "psnr_funie")
def calculate_psnr_funie(
    img: AnyImage,
    img2: AnyImage,
    gray: bool = True,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """PSNR in dB as FUnIE-GAN's evaluation prints it (EUVP, UFO-120): on gray images of 8 bits. Higher is better.

    Paper: Islam et al., IEEE RA-L 2020. Constants: FUnIE-GAN's code, PIL's weights of gray. Input: gray or RGB; integers, or
    floats in [0, 1] or [0, 255], clipped and rounded. Least size: 1 pixel a side.

    Identical images score 100, there and here. The evaluation also resizes both images to 256x256 first; that is left to
    the dataset.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        gray: compare the gray images (0.299 R + 0.587 G + 0.114 B, in 16-bit fixed point as PIL computes it); all
            channels otherwise, which is what its function alone gives.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.
    """
    x, y = prepared(
        "calculate_psnr_funie",
        img,
        img2,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
        clip=True,
    )
    x, y = np.rint(x), np.rint(y)
    if gray:
        x, y = pil_gray(x), pil_gray(y)
    error = mean_square(x, y)
    return 100.0 if error == 0 else decibels(error)


def pil_gray(rgb: np.ndarray) -> np.ndarray:
    """PIL's conversion of 8-bit RGB to mode L; of a gray image, itself. Raises UserError for other channels."""
    if not has_colours(rgb):
        return rgb
    result: np.ndarray = np.floor((rgb @ np.array([19595.0, 38470.0, 7471.0]) + 32768.0) / 65536.0)[..., None]
    return result


@metric("lower", "mae")
def calculate_mae(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """Mean absolute error over all pixels and channels, in grey levels (of 255). Lower is better.

    Paper: Wang and Bovik, IEEE Signal Processing Magazine 2009. Constants: none. Input: any channels but alpha, jointly;
    integers, or floats in [0, 1] or [0, 255]. Least size: 1 pixel a side.

    Divided by 255 this is the L1 loss. Arguments as of `calculate_psnr`.
    """
    x, y = prepared(
        "calculate_mae",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
    )
    if test_y_channel:
        x, y = luma(x), luma(y)
    return float(np.abs(x - y).mean())
