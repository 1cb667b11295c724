"""Scores of stereo pairs, six channels in one image, under the names and definitions of NAFSSR's option files.

Tables of stereo super-resolution give the mean over both views, which `psnr.calculate_psnr` and `calculate_skimage_ssim` are,
and scores of the left view alone without its first columns, which the right view does not see.
"""

from __future__ import annotations

import numpy as np

from ..annotations import Positive
from ..errors import UserError
from . import IDENTICAL, metric
from .images import STEREO, AnyImage, ColorOrder, InputOrder, luma, prepared
from .psnr import decibels, mean_square
from .ssim import calculate_ssim_skimage

UNSEEN = 64
"""Columns at the left of the left view that are left out."""


@metric("higher", "skimage_ssim")
def calculate_skimage_ssim(
    img: AnyImage, img2: AnyImage, input_order: InputOrder = "HWC", data_range: Positive | None = None
) -> float:
    """SSIM, NAFNet's: scikit-image's with its defaults on 8-bit images, each channel by itself. Higher is better.

    Paper: Wang et al., IEEE TIP 2004; used by Chu et al. (NAFSSR), CVPRW 2022. Constants: scikit-image's, as of
    `calculate_ssim_skimage`. Input: any channels but alpha, each by itself; integers, or floats in [0, 1] or [0, 255]. Least
    size: 7 pixels a side; a smaller image is an error.

    That is a flat window of 7 pixels and unbiased variances, averaged over all three channels, or all six of two views.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.
    """
    return calculate_ssim_skimage(img, img2, clip=False, input_order=input_order, data_range=data_range)


@metric("higher", "psnr_left", most=IDENTICAL)
def calculate_psnr_left(
    img: AnyImage,
    img2: AnyImage,
    crop_border: int = 0,
    test_y_channel: bool = False,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """PSNR in dB of the left view from column 64 on. Higher is better.

    Paper: Chu et al. (NAFSSR), CVPRW 2022. Constants: theirs: 64 columns left out, a peak of 255. Input: RGB or two views (6
    channels); integers, or floats in [0, 1] or [0, 255]. Least size: 65 columns; a smaller image is an error.

    Args:
        img: result, of six channels or of three; see `relume.core.metrics.images`.
        img2: ground truth.
        crop_border: accepted for NAFNet's files, where it must be 0.
        test_y_channel: compare the luma (Y of Matlab's YCbCr) only.
        input_order: layout of arrays.
        color_order: bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: another border, or images of 64 columns or fewer.
    """
    owner = "calculate_psnr_left"
    if crop_border != 0:
        raise UserError(f"{owner}: crop_border must be 0; got {crop_border}.")
    x, y = prepared(owner, img, img2, data_range=data_range, color_order=color_order, input_order=input_order)
    pair = [left(owner, image) for image in (x, y)]
    return decibels(mean_square(*(luma(image) for image in pair) if test_y_channel else pair))


@metric("higher", "skimage_ssim_left")
def calculate_skimage_ssim_left(
    img: AnyImage, img2: AnyImage, input_order: InputOrder = "HWC", data_range: Positive | None = None
) -> float:
    """`calculate_skimage_ssim` of the left view from column 64 on. Higher is better.

    Paper: Chu et al. (NAFSSR), CVPRW 2022. Constants: theirs: 64 columns left out; else scikit-image's. Input: RGB or two
    views (6 channels); integers, or floats in [0, 1] or [0, 255]. Least size: 71 columns; a smaller image is an error.

    Args:
        img: result, of six channels or of three; see `relume.core.metrics.images`.
        img2: ground truth.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: the images have fewer than 71 columns.
    """
    owner = "calculate_skimage_ssim_left"
    x, y = prepared(owner, img, img2, data_range=data_range, input_order=input_order)
    return calculate_ssim_skimage(left(owner, x), left(owner, y), clip=False, data_range=255.0)


def left(owner: str, image: np.ndarray) -> np.ndarray:
    """What is scored of the left view of a prepared image (H, W, 3 or 6).

    Raises:
        UserError: the image has neither 3 nor 6 channels, or too few columns.
    """
    if image.shape[2] not in (3, STEREO):
        raise UserError(f"{owner}: scores images of 6 channels, two views, or of 3; got {image.shape[2]}.")
    if image.shape[1] <= UNSEEN:
        raise UserError(f"{owner}: leaves out the first {UNSEEN} columns, and an image has {image.shape[1]}.")
    return image[:, UNSEEN:, :3]
