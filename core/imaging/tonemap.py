"""HDR images on an ordinary screen: the global operator of Reinhard, Stark, Shirley and Ferwerda (SIGGRAPH 2002)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .srgb import to_srgb

MIDDLE_GREY = 0.18
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Weights of linear R, G and B with Rec. 709 primaries."""
FAINT = 1e-5
"""Relative to the brightest pixel, added before logarithms are averaged: black pixels are not the whole average."""


def luminance(radiance: np.ndarray) -> np.ndarray:
    """(H, W) from linear (H, W, C); the channel of a gray image."""
    return radiance @ LUMINANCE if radiance.shape[2] == 3 else radiance[..., 0]


def tone_mapped(images: Mapping[str, np.ndarray], exposed_for: str) -> dict[str, np.ndarray]:
    """Images as (H, W, C) uint8 sRGB, all under one curve, so that they may be compared.

    The log-average luminance of one image comes out at middle grey, its brightest pixel just white; what is brighter in the
    others is white, too.

    Args:
        images: (H, W, C) linear radiance, finite, not negative, in any unit, by label.
        exposed_for: label of the image that sets the curve.
    """
    reference = luminance(images[exposed_for]).astype(np.float64)
    brightest = float(reference.max())
    if brightest <= 0:
        brightest = 1.0
    gain = MIDDLE_GREY / float(np.exp(np.mean(np.log(reference + FAINT * brightest))))
    white = max(gain * brightest, 1.0)  # a dim scene is not stretched to white

    def shown(radiance: np.ndarray) -> np.ndarray:
        light = gain * luminance(radiance)[..., None]
        factor = gain * (1 + light / white**2) / (1 + light)
        result: np.ndarray = np.rint(255 * to_srgb(np.clip(radiance * factor, 0, 1))).astype(np.uint8)
        return result

    return {label: shown(image) for label, image in images.items()}
