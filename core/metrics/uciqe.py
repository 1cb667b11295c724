"""Underwater colour image quality evaluation (Yang and Sowmya, IEEE TIP 24(12), 2015): no reference needed."""

from __future__ import annotations

import numpy as np

from ..annotations import Positive
from ..errors import UserError
from ..imaging.opencv import cv2
from . import metric
from .images import AnyImage, ColorOrder, InputOrder, prepared


@metric("higher", "uciqe")
def calculate_uciqe(
    img: AnyImage,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """UCIQE = 0.4680 spread of chroma + 0.2745 contrast of lightness + 0.2576 mean saturation. Higher is better.

    Paper: Yang and Sowmya, IEEE TIP 2015. Constants: theirs (0.4680, 0.2745, 0.2576), units of their Matlab release. Input:
    RGB; integers, or floats in [0, 1] or [0, 255], clipped and rounded. Least size: 1 pixel a side.

    The paper leaves the units open. These are those of the authors' Matlab release, which make the usual values of 0.4 to
    0.7: Lab in 8 bits divided by 255, so that a and b are 0.5 and not 0 for gray; spread is
    sqrt(mean |1 - (mean chroma / chroma)^2|); contrast is the 99th less the 1st percentile of lightness. (The Lab white
    point is sRGB's own, D65. The authors' Python release, which is often cited in its place, stretches the contrast; it is not
    what is computed here. Other implementations differ in all of these, so compare only what one of them computed.) There is no
    least size.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges. Clipped, and rounded to 8 bits.
        input_order: layout of arrays.
        color_order: bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the image when omitted.

    Raises:
        UserError: the image is not RGB.
    """
    (rgb,) = prepared(
        "calculate_uciqe", img, data_range=data_range, color_order=color_order, input_order=input_order, clip=True
    )
    if rgb.shape[2] != 3:
        raise UserError(f"calculate_uciqe: needs RGB, got {rgb.shape[2]} channel(s).")
    lab = cv2.cvtColor(np.rint(rgb).astype(np.uint8), cv2.COLOR_RGB2LAB)
    lightness, a, b = np.moveaxis(lab.astype(np.float64) / 255, 2, 0)
    chroma = np.hypot(a, b)  # at least 0.1: no colour of sRGB has both a and b near -128
    spread = np.sqrt(np.mean(np.abs(1 - (chroma.mean() / chroma) ** 2)))
    saturation = np.mean(chroma / np.hypot(chroma, lightness))
    return float(0.4680 * spread + 0.2745 * _contrast(lab[..., 0]) + 0.2576 * saturation)


def _contrast(lightness: np.ndarray) -> float:
    """Distance of the levels below which 1 % and 99 % of the pixels lie, of 255."""
    share = np.bincount(lightness.ravel(), minlength=256).cumsum() / lightness.size
    return float(np.argmax(share >= 0.99) - np.argmax(share > 0.01)) / 255
