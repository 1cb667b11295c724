"""Structural similarity (Wang et al., IEEE TIP 2004), under the definitions that tables are made with.

All compare local means, variances and covariances of images in [0, 255], with c1 = (0.01 * 255)^2 and
c2 = (0.03 * 255)^2. They differ in the window, in the border, and in whether variances are unbiased:

| metric                     | window                     | border              | variances | channels       |
|----------------------------|----------------------------|---------------------|-----------|----------------|
| calculate_ssim (BasicSR)   | Gaussian 11, sigma 1.5     | left out            | biased    | averaged, or Y |
| the same, ssim3d (NAFNet)  | Gaussian 11x11x11          | continued           | biased    | in the window  |
| calculate_ssim_skimage     | flat 7, or Gaussian 11     | left out            | unbiased  | averaged       |
| calculate_ssim_volume      | flat 3x3x3, over channels  | left out            | unbiased  | the middle one |
| calculate_ssim_funie       | Gaussian 13, sigma 1.5     | mirrored            | * 25/24   | averaged       |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np

from ..annotations import NonNegative, Positive, Range
from ..errors import UserError
from . import metric, package_ssim
from .images import AnyImage, ColorOrder, InputOrder, luma, prepared, views
from .package_ssim import SSIMEngine

Smooth = Callable[[np.ndarray], np.ndarray]
"""Local means of an image (H, W, C)."""

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def similarity_maps(x: np.ndarray, y: np.ndarray, smooth: Smooth, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Maps of SSIM and of its contrast-structure factor; `gain` multiplies variances and covariances."""
    mx, my = smooth(x), smooth(y)
    xx = gain * (smooth(x * x) - mx * mx)
    yy = gain * (smooth(y * y) - my * my)
    xy = gain * (smooth(x * y) - mx * my)
    contrast = (2 * xy + C2) / (xx + yy + C2)
    return (2 * mx * my + C1) / (mx * mx + my * my + C1) * contrast, contrast


def gaussian_taps(radius: int, sigma: float) -> np.ndarray:
    """A normalised Gaussian of 2 * radius + 1 taps."""
    taps = np.exp(-np.square(np.arange(-radius, radius + 1)) / (2 * sigma**2))
    result: np.ndarray = taps / taps.sum()
    return result


def smoother(taps: np.ndarray) -> Smooth:
    """Separable filtering by `taps` (odd) where they fit whole: (H, W, C) becomes (H - k + 1, W - k + 1, C)."""
    from ..imaging.opencv import cv2

    r = len(taps) // 2

    def smooth(x: np.ndarray) -> np.ndarray:
        filtered = cv2.sepFilter2D(x, -1, taps, taps).reshape(x.shape)
        return filtered[r : x.shape[0] - r, r : x.shape[1] - r]

    return smooth


def replicating(taps: np.ndarray) -> Smooth:
    """Separable filtering by `taps` of images continued by their outermost pixels: the size stays."""
    from ..imaging.opencv import cv2

    def smooth(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, -1, taps, taps, borderType=cv2.BORDER_REPLICATE).reshape(x.shape)

    return smooth


def through_channels(taps: np.ndarray, channels: int) -> Smooth:
    """Filtering by `taps` along rows, columns and channels of images continued by their outermost values in all three."""
    reach = np.clip(np.arange(channels)[:, None] + np.arange(len(taps)) - len(taps) // 2, 0, channels - 1)
    mix = np.stack([(taps * (reach == c)).sum(axis=1) for c in range(channels)])  # (from, to)
    plane = replicating(taps)
    return lambda x: plane(x) @ mix


def check_window(owner: str, image: np.ndarray, size: int) -> None:
    """Refuse an image that a window of `size` pixels does not fit in.

    Raises:
        UserError: the image is smaller than the window.
    """
    if min(image.shape[:2]) < size:
        h, w = image.shape[:2]
        raise UserError(f"{owner}: a window of {size}x{size} does not fit an image of {h}x{w} (after crop_border).")


@metric("higher", "ssim")
def calculate_ssim(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
    ssim3d: bool = False,
    engine: SSIMEngine = "auto",
) -> float:
    """SSIM, BasicSR's and the Matlab reference's: mean over pixels, then over channels. Higher is better.

    Paper: Wang et al., IEEE TIP 2004. Constants: theirs (0.01, 0.03, a Gaussian of 11 pixels and sigma 1.5), BasicSR's luma.
    Input: any channels but alpha, each by itself; integers, or floats in [0, 1] or [0, 255]. Least size: 11 pixels a side; a
    smaller image is an error.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        test_y_channel: compare the luma (Y of Matlab's YCbCr) only.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.
        ssim3d: what HINet's and NAFNet's own code computes under this name: the window also spans the channels, and images
            (with `test_y_channel` their luma) are continued at their borders instead of left out there.
        engine: what computes, which changes the time and no digit: pytorch_msssim, our own code, or auto (`package_ssim`).

    Raises:
        UserError: the images have fewer than 11 pixels a side.
    """
    x, y = prepared(
        "calculate_ssim",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
    )
    check_window("calculate_ssim", x, 11)
    scores = []
    for x_view, y_view in zip(views(x), views(y), strict=True):
        a, b = (luma(x_view), luma(y_view)) if test_y_channel else (x_view, y_view)
        taps = gaussian_taps(5, 1.5)
        if package_ssim.chosen("calculate_ssim", engine, a, "has no ssim3d" if ssim3d else ""):
            scores.append(package_ssim.score(a, b, taps))
            continue
        smooth = through_channels(taps, a.shape[2]) if ssim3d else smoother(taps)
        scores.append(float(similarity_maps(a, b, smooth)[0].mean()))
    return sum(scores) / len(scores)


@metric("higher", "ssim_pt")
def calculate_ssim_pt(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
    engine: SSIMEngine = "auto",
) -> float:
    """SSIM, BasicSR's for tensors in [0, 1]: `calculate_ssim` of images that were not rounded. Higher is better.

    Paper: Wang et al., IEEE TIP 2004. Constants: as of `calculate_ssim`. Input: any channels but alpha, each by itself;
    integers, or floats in [0, 1] or [0, 255]. Least size: 11 pixels a side; a smaller image is an error.

    Arguments as of `calculate_ssim`.
    """
    return calculate_ssim(
        img, img2, crop_border, test_y_channel, color_order=color_order, data_range=data_range, engine=engine
    )


@metric("higher", "ssim_skimage")
def calculate_ssim_skimage(
    img: AnyImage,
    img2: AnyImage,
    win_size: Annotated[int, Range(least=3)] = 7,
    gaussian_weights: bool = False,
    use_sample_covariance: bool = True,
    clip: bool = True,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """SSIM as scikit-image has it with ``channel_axis=-1``, and as underwater tables mostly mean it. Higher is better.

    Paper: Wang et al., IEEE TIP 2004. Constants: scikit-image's (van der Walt et al., PeerJ 2014): 0.01, 0.03, a flat window
    of 7 pixels, n / (n - 1). Input: any channels but alpha, each by itself; integers, or floats in [0, 1] or [0, 255]. Least
    size: 7 pixels a side (`win_size`, or 11 with a Gaussian); a smaller image is an error.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        win_size: side of the flat window, odd: 7 by default there, 3 in the underwater networks' scripts.
        gaussian_weights: a Gaussian window of 11 pixels and sigma 1.5 instead.
        use_sample_covariance: unbiased variances, n / (n - 1) with n pixels in the window.
        clip: clip both images to the range first.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: an even window, or one larger than the image.
    """
    if win_size % 2 == 0:
        raise UserError(f"calculate_ssim_skimage: win_size must be odd, got {win_size}.")
    x, y = prepared(
        "calculate_ssim_skimage",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        input_order=input_order,
        clip=clip,
    )
    check_window("calculate_ssim_skimage", x, 11 if gaussian_weights else win_size)
    from skimage.metrics import structural_similarity

    window = {"gaussian_weights": True} if gaussian_weights else {"win_size": win_size}
    score = structural_similarity(  # type: ignore[no-untyped-call]
        x, y, data_range=255, channel_axis=-1, use_sample_covariance=use_sample_covariance, **window
    )
    return float(score)


@metric("higher", "ssim_volume")
def calculate_ssim_volume(
    img: AnyImage,
    img2: AnyImage,
    clip: bool = False,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """Not an image's SSIM, but what underwater training scripts print under that name. Higher is better.

    Paper: Wang et al., IEEE TIP 2004. Constants: scikit-image's, a window of 3 x 3 x 3. Input: RGB; integers, or floats in
    [0, 1] or [0, 255]. Least size: 3 pixels a side; a smaller image is an error.

    They call scikit-image's function with ``multichannel=True, win_size=3``. Since release 0.20 that keyword is ignored:
    the image is taken for a volume, the window spans 3 pixels and 3 channels, and once the border is left out only the
    middle (green) plane counts. Here to compare with their logs.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        clip: clip both images to the range first; the scripts do not.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: fewer than 3 pixels a side, or fewer than 3 channels.
    """
    owner = "calculate_ssim_volume"
    x, y = prepared(
        owner, img, img2, crop_border=crop_border, data_range=data_range, input_order=input_order, clip=clip
    )
    check_window(owner, x, 3)
    if x.shape[2] < 3:
        raise UserError(f"{owner}: needs 3 channels, got {x.shape[2]}.")
    flat = smoother(np.full(3, 1 / 3))

    def smooth(z: np.ndarray) -> np.ndarray:
        return flat(np.ascontiguousarray(z[..., :-2] + z[..., 1:-1] + z[..., 2:]) / 3)

    return float(similarity_maps(x, y, smooth, gain=27 / 26)[0].mean())


@metric("higher", "ssim_funie")
def calculate_ssim_funie(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """SSIM as FUnIE-GAN's evaluation has it (EUVP, UFO-120), on images of 8 bits. Higher is better.

    Paper: Islam et al., IEEE RA-L 2020, after Wang et al., IEEE TIP 2004. Constants: FUnIE-GAN's code: a Gaussian of 13 taps,
    25/24. Input: any channels but alpha, each by itself; integers, or floats in [0, 1] or [0, 255], clipped and rounded.
    Least size: 1 pixel a side; borders are mirrored.

    The evaluation also resizes both images to 256x256 first; that is left to the dataset.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        data_range: full scale; from the images when omitted.
    """
    from ..imaging.opencv import cv2

    x, y = prepared(
        "calculate_ssim_funie",
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        input_order=input_order,
        clip=True,
    )
    taps = gaussian_taps(6, 1.5)

    def smooth(z: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(z, -1, taps, taps, borderType=cv2.BORDER_REFLECT).reshape(z.shape)

    return float(similarity_maps(np.rint(x), np.rint(y), smooth, gain=25 / 24)[0].mean())
