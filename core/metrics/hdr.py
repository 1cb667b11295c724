"""Scores of HDR images, on linear radiance: PSNR of radiance, of its mu-law, and PSNR and SSIM of PU21's units.

An image here is radiance in the units of the files, such that `peak` is the brightest that counts: both images are cut off at 0
and at `peak` first. With x in [0, 1] radiance over peak:

| metric                | compares                                                                     | full scale |
|-----------------------|------------------------------------------------------------------------------|------------|
| calculate_psnr_l      | x                                                                            | 1          |
| calculate_psnr_mu     | T(x) = ln(1 + mu x) / ln(1 + mu), mu = 5000                                  | 1          |
| calculate_psnr_mu_ntire | T(tanh(x^g / n)), g = 2.24, n the 99th percentile of the reference's x^g   | 1          |
| calculate_pu21_psnr   | PU(nits x), all channels                                                     | 256        |
| calculate_pu21_psnr_y | PU(nits Y), Y the luminance of BT.709                                        | 256        |
| calculate_pu21_ssim   | the same, SSIM with a flat window of 7 pixels                                | 256        |
| ``*_fork``              | the same with the full scales of the HDR fork of DiffIR, for comparison      | 530, 600   |

mu-law: Kalantari and Ramamoorthi, ACM TOG 2017. NTIRE: the HDR challenge of 2021 (Perez-Pellitero et al., CVPRW 2021). PU21:
Mantiuk and Azimi, PCS 2021, whose own script takes 256 for the full scale whatever the peak: with 4000 cd/m2 (527 units)
its decibels are lower by 6.32 than the fork's for the same images. A table must say which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np

from ..annotations import NonNegative, Positive, Range
from ..errors import UserError, require
from ..imaging.transfer import PEAK, PU21
from . import IDENTICAL, metric
from .images import AnyImage, ColorOrder, InputOrder, NotFinite, has_colours, prepared
from .psnr import decibels, mean_square
from .ssim import calculate_ssim_skimage, gaussian_taps, replicating, similarity_maps

PU_RANGE = 256.0
"""What a display of 100 cd/m2 spans in PU21's units, and the full scale of the authors' own script."""
LUMINANCE = np.array([0.212656, 0.715158, 0.072186])
"""Weights of linear R, G, B with BT.709's primaries, in the digits of PU21's script."""
MS_WEIGHTS = (0.0448, 0.2856, 0.3001)
"""The first three weights of Wang et al. (2003), not normalised: the fork stops after three scales."""


def over_peak(
    owner: str,
    img: AnyImage,
    img2: AnyImage,
    crop_border: int,
    peak: float,
    input_order: InputOrder,
    order: ColorOrder | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Both images over `peak`, in [0, 1], float64 (H, W, C) RGB.

    Raises:
        UserError: an image has NaN or infinite values, or the two cannot be compared.
    """
    try:
        images = prepared(
            owner,
            img,
            img2,
            crop_border=crop_border,
            data_range=peak,
            color_order=order,
            input_order=input_order,
            clip=True,
        )
    except NotFinite as e:  # an evaluation gives the score NaN before it comes to this; here it is a broken file
        raise UserError(str(e)) from e
    x, y = (image / 255.0 for image in images)
    return x, y


def mu_law(x: np.ndarray, mu: float) -> np.ndarray:
    """T(x) = ln(1 + mu x) / ln(1 + mu)."""
    return np.asarray(np.log1p(mu * x) / np.log1p(mu))


@metric("higher", "psnr_l", space="linear", most=IDENTICAL)
def calculate_psnr_l(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """PSNR in dB of linear radiance. Higher is better.

    Paper: Wang and Bovik, IEEE Signal Processing Magazine 2009. Constants: a peak of 1 after division by `peak`. Input: gray
    or RGB radiance in [0, `peak`], cut off there. Least size: 1 pixel a side.

    Args:
        img: result, radiance in [0, inf); (H, W, C) arrays or (C, H, W) tensors.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        peak: radiance at which both are cut off, in the units of the images.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
    """
    x, y = over_peak("calculate_psnr_l", img, img2, crop_border, peak, input_order, color_order)
    return decibels(mean_square(x, y), peak=1.0)


@metric("higher", "psnr_mu", space="linear", most=IDENTICAL)
def calculate_psnr_mu(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    mu: Positive = 5000.0,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """PSNR in dB of radiance compressed by the mu-law. Higher is better.

    Paper: Kalantari and Ramamoorthi, ACM TOG 2017. Constants: theirs, mu = 5000. Input: gray or RGB radiance in [0, `peak`],
    cut off there. Least size: 1 pixel a side.

    Arguments as of `calculate_psnr_l`.

    Args:
        mu: strength of the compression.
    """
    x, y = over_peak("calculate_psnr_mu", img, img2, crop_border, peak, input_order, color_order)
    return decibels(mean_square(mu_law(x, mu), mu_law(y, mu)), peak=1.0)


@metric("higher", "psnr_mu_ntire", space="linear", most=IDENTICAL)
def calculate_psnr_mu_ntire(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    mu: Positive = 5000.0,
    gamma: Positive = 2.24,
    percentile: Annotated[float, Range(above=0, most=100)] = 99.0,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """PSNR in dB as the NTIRE 2021 HDR challenge scored: see the table of this module. Higher is better.

    Paper: Perez-Pellitero et al., CVPRW 2021. Constants: the challenge's: mu = 5000, gamma 2.24, the 99th percentile. Input:
    gray or RGB radiance in [0, `peak`], cut off there. Least size: 1 pixel a side.

    Arguments as of `calculate_psnr_mu`.

    Args:
        gamma: what values are raised to first: the challenge's images are gamma-encoded. An evaluation, which gives this
            metric linear radiance, takes 1 where the option is omitted.
        percentile: percentile of the reference that both are divided by before tanh.
    """
    x, y = over_peak("calculate_psnr_mu_ntire", img, img2, crop_border, peak, input_order, color_order)
    x, y = x**gamma, y**gamma
    norm = max(float(np.percentile(y, percentile)), 1e-12)  # of a black reference, anything above black is white
    return decibels(mean_square(mu_law(np.tanh(x / norm), mu), mu_law(np.tanh(y / norm), mu)), peak=1.0)


# ------------------------------------------------------------------ PU21
def luminance(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 1) luminance of linear (H, W, 3); of a gray image, itself. Raises UserError for other channels."""
    return rgb @ LUMINANCE[:, None] if has_colours(rgb) else rgb


def in_units(
    owner: str,
    img: AnyImage,
    img2: AnyImage,
    crop_border: int,
    peak: float,
    nits: float,
    input_order: InputOrder,
    order: ColorOrder | None,
    of: Callable[[np.ndarray], np.ndarray] = luminance,
) -> tuple[np.ndarray, np.ndarray]:
    """Both images in PU21's units, where `peak` is shown at `nits` cd/m2; of luminance unless `of` says otherwise."""
    encoder = PU21()
    x, y = over_peak(owner, img, img2, crop_border, peak, input_order, order)
    return encoder.units(of(x) * nits), encoder.units(of(y) * nits)


def all_channels(rgb: np.ndarray) -> np.ndarray:
    """The image itself."""
    return rgb


@metric("higher", "pu21_psnr", space="linear", most=IDENTICAL)
def calculate_pu21_psnr(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    nits: Positive = 4000.0,
    full_scale: Positive = PU_RANGE,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """PSNR in dB of PU21's units, all channels. Higher is better.

    Paper: Mantiuk and Azimi, PCS 2021. Constants: theirs (banding and glare), full scale 256. Input: gray or RGB radiance in
    [0, `peak`], cut off there. Least size: 1 pixel a side.

    Arguments as of `calculate_psnr_l`.

    Args:
        nits: luminance in cd/m2 at which the peak is shown.
        full_scale: units that count as the signal's range.
    """
    x, y = in_units(
        "calculate_pu21_psnr", img, img2, crop_border, peak, nits, input_order, color_order, of=all_channels
    )
    return decibels(mean_square(x, y), full_scale)


@metric("higher", "pu21_psnr_y", space="linear", most=IDENTICAL)
def calculate_pu21_psnr_y(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    nits: Positive = 4000.0,
    full_scale: Positive = PU_RANGE,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """PSNR in dB of the luminance in PU21's units. Higher is better. Arguments as of `calculate_pu21_psnr`.

    Paper: Mantiuk and Azimi, PCS 2021. Constants: theirs (banding and glare), full scale 256; BT.709's luminance. Input: gray
    or RGB radiance in [0, `peak`], cut off there. Least size: 1 pixel a side.
    """
    x, y = in_units("calculate_pu21_psnr_y", img, img2, crop_border, peak, nits, input_order, color_order)
    return decibels(mean_square(x, y), full_scale)


@metric("higher", "pu21_ssim", space="linear")
def calculate_pu21_ssim(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    peak: Positive = PEAK,
    nits: Positive = 4000.0,
    full_scale: Positive = PU_RANGE,
    gaussian_weights: bool = False,
    matlab: bool = False,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """SSIM of the luminance in PU21's units. Higher is better.

    Paper: Mantiuk and Azimi, PCS 2021, and Wang et al., IEEE TIP 2004. Constants: PU21's, full scale 256; a window of
    scikit-image's, or Matlab's. Input: gray or RGB radiance in [0, `peak`], cut off there. Least size: 7 pixels a side, 11
    with a Gaussian, 1 with `matlab`; a smaller image is an error.

    Arguments as of `calculate_pu21_psnr`.

    Args:
        gaussian_weights: a Gaussian window of 11 pixels instead of the flat one of 7.
        matlab: the authors' own, Matlab's ``ssim(..., 'DynamicRange', 256)``: that Gaussian window (sigma 1.5), biased
            variances, borders continued by their outermost pixels and counted.

    Raises:
        UserError: the images are smaller than the window.
    """
    x, y = in_units("calculate_pu21_ssim", img, img2, crop_border, peak, nits, input_order, color_order)
    if matlab:
        scale = 255.0 / full_scale
        return float(similarity_maps(x * scale, y * scale, replicating(gaussian_taps(5, 1.5)))[0].mean())
    return calculate_ssim_skimage(
        x, y, gaussian_weights=gaussian_weights, use_sample_covariance=True, clip=False, data_range=full_scale
    )


# ------------------------------------------------------------------ as the HDR fork of DiffIR scores
def three_scales(
    img: AnyImage,
    img2: AnyImage,
    crop_border: int = 0,
    *,
    full_scale: float,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
) -> float:
    """SSIM at full, half and quarter size, to powers, multiplied. Not MS-SSIM, and not comparable with it.

    A negative SSIM, which has no such power, counts as 0.

    Raises:
        UserError: the images have fewer than 28 pixels a side.
    """
    x, y = in_units("calculate_pu21_msssim_fork", img, img2, crop_border, PEAK, 4000.0, input_order, color_order)
    if min(x.shape[:2]) < 28:
        raise UserError(
            f"calculate_pu21_msssim_fork: an image of {x.shape[0]}x{x.shape[1]} is too small; 28x28 is the least."
        )
    rescale = require("skimage.transform", "calculate_pu21_msssim_fork", "pip install scikit-image").rescale
    product = 1.0
    for scale, weight in zip((1.0, 0.5, 0.25), MS_WEIGHTS, strict=True):
        a, b = (v if scale == 1.0 else rescale(v, scale, anti_aliasing=True, channel_axis=2) for v in (x, y))
        product *= max(calculate_ssim_skimage(a, b, clip=False, data_range=full_scale), 0.0) ** weight
    return product


FORK: dict[str, tuple[Callable[..., float], float, str, int]] = {
    "pu21_psnr": (calculate_pu21_psnr, 530.0, "`calculate_pu21_psnr`", 1),
    "pu21_psnr_y": (calculate_pu21_psnr_y, 530.0, "`calculate_pu21_psnr_y`", 1),
    # Its script reads images as BGR and weighs the channels as if they were RGB; here luminance is luminance.
    "pu21_ssim": (calculate_pu21_ssim, 600.0, "`calculate_pu21_ssim`", 7),
    "pu21_msssim": (
        three_scales,
        PU_RANGE,
        "SSIM at full, half and quarter size, to powers, multiplied (not MS-SSIM),",
        28,
    ),
}
"""What each of the fork's metrics computes, its full scale in PU21's units, the same in words, and the least side."""


def register_fork(name: str) -> None:
    """Register the metric of `FORK` called `name` as ``calculate_<name>_fork``, with the alias ``<name>_fork``."""
    score, full_scale, what, least = FORK[name]

    def fork(
        img: AnyImage,
        img2: AnyImage,
        crop_border: NonNegative = 0,
        input_order: InputOrder = "HWC",
        color_order: ColorOrder | None = None,
    ) -> float:
        return score(img, img2, crop_border, full_scale=full_scale, input_order=input_order, color_order=color_order)

    fork.__name__ = fork.__qualname__ = f"calculate_{name}_fork"
    scale = f"the HDR fork of DiffIR's full scale, {full_scale:g} units"
    fork.__doc__ = f"""{what} with {scale}. Higher is better. Arguments as of `calculate_pu21_psnr`.

    Paper: Xia et al. (DiffIR), ICCV 2023, by a fork for HDR; PU21 by Mantiuk and Azimi, PCS 2021. Constants: the fork's,
    {full_scale:g} units. Input: gray or RGB radiance, shown at 4000 cd/m2 at its peak, cut off there. Least size:
    {least} pixel{"s" if least > 1 else ""} a side{"; a smaller image is an error" if least > 1 else ""}.
    """
    metric("higher", f"{name}_fork", space="linear", most=IDENTICAL if "psnr" in name else None)(fork)


for _name in FORK:
    register_fork(_name)
