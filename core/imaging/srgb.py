"""The curve of sRGB (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np


def to_linear(image: np.ndarray) -> np.ndarray:
    """Linear light from sRGB, both in [0, 1]."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    """sRGB from linear light, both in [0, 1]."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
