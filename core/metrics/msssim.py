"""Multi-scale structural similarity (Wang, Simoncelli and Bovik, Asilomar 2003)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from ..annotations import NonNegative, Positive, Range
from ..errors import UserError
from ..ops.ssim import gaussian
from . import metric, package_ssim
from .images import AnyImage, ColorOrder, InputOrder, luma, prepared
from .package_ssim import LEAST, SSIMEngine
from .ssim import similarity_maps, smoother

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first."""

WINDOW = 11


@metric("higher", "msssim", "ms_ssim", "calculate_ms_ssim")
def calculate_msssim(
    img: AnyImage,
    img2: AnyImage,
    crop_border: NonNegative = 0,
    test_y_channel: bool = False,
    scales: Annotated[int, Range(least=1, most=5)] = 5,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
    engine: SSIMEngine = "auto",
) -> float:
    """MS-SSIM as the package pytorch-msssim defines it, its window of float32 numbers included. Higher is better.

    Paper: Wang, Simoncelli and Bovik, Asilomar 2003. Constants: theirs (exponents 0.0448, 0.2856, 0.3001, 0.2363, 0.1333; a
    Gaussian of 11 pixels). Input: any channels but alpha, each by itself; integers, or floats in [0, 1] or [0, 255]. Least
    size: 161 pixels a side, fewer with fewer `scales`; a smaller image is an error.

    Contrast-structure at every scale, times SSIM at the coarsest, each to its exponent; scales are halved by 2x2 means,
    and negative factors count as 0. Computed per channel, then averaged.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges.
        img2: ground truth.
        crop_border: pixels to ignore on every side.
        test_y_channel: compare the luma (Y of Matlab's YCbCr) only.
        scales: fewer than 5 for images below 161 pixels a side (4: from 81, 3: from 41); the exponents that remain are
            rescaled to a sum of 1, and the score is no longer comparable with the usual one.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.
        engine: what computes, which changes the time and no digit: pytorch_msssim, our own code, or auto (`package_ssim`).

    Raises:
        UserError: images too small for so many scales.
    """
    owner = "calculate_msssim"
    x, y = prepared(
        owner,
        img,
        img2,
        crop_border=crop_border,
        data_range=data_range,
        color_order=color_order,
        input_order=input_order,
    )
    check_size(owner, min(x.shape[:2]), scales)
    if test_y_channel:
        x, y = luma(x), luma(y)
    # The package, where it computes the same.
    few = f"has five scales, for at least {LEAST} pixels a side"
    obstacle = few if scales != len(EXPONENTS) or min(x.shape[:2]) < LEAST else ""
    taps = gaussian(WINDOW, 1.5).double().numpy()
    if package_ssim.chosen(owner, engine, x, obstacle):
        return package_ssim.score(x, y, taps, several_scales=True)
    # Contrasts at every scale, the luminance at the last, and their weighted product.
    smooth = smoother(taps)
    factors = []
    for scale in range(scales):
        if scale:
            x, y = halved(x), halved(y)
        ssim, contrast = similarity_maps(x, y, smooth)
        factors.append((ssim if scale == scales - 1 else contrast).mean(axis=(0, 1)))
    exponents = np.array(EXPONENTS[:scales])
    if scales < len(EXPONENTS):  # the published five are used as they are, though they sum to 1.0001
        exponents = exponents / exponents.sum()
    return float(np.prod(np.maximum(factors, 0.0) ** exponents[:, None], axis=0).mean())


def check_size(owner: str, side: int, scales: int) -> None:
    """Refuse images of `side` pixels that do not fill the window at the coarsest scale.

    Raises:
        UserError: `side` is too small for so many scales.
    """

    def smallest(n: int) -> int:
        result: int = (WINDOW - 1) * 2 ** (n - 1) + 1
        return result

    if side >= smallest(scales):
        return
    fitting = [n for n in range(1, scales) if side >= smallest(n)]
    advice = f" Set scales: {fitting[-1]} for images of this size." if fitting else ""
    raise UserError(f"{owner}: {scales} scales need {smallest(scales)} pixels a side, the image has {side}.{advice}")


def halved(x: np.ndarray) -> np.ndarray:
    """2x2 means, (H, W, C) to (ceil(H / 2), ceil(W / 2), C); an odd side gets a line of zeros before its first pixel.

    That is what torch's average pooling makes of an odd side with a padding of 1.
    """
    h, w, c = x.shape
    even = np.pad(x, ((h % 2, 0), (w % 2, 0), (0, 0)))
    return np.asarray(even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, c).mean(axis=(1, 3)))
