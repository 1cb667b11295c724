"""``basicsr.metrics.metric_util``."""

from __future__ import annotations

import numpy as np

from ..utils.color_util import bgr2ycbcr


def reorder_image(img: np.ndarray, input_order: str = "HWC") -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) as (H, W, C).

    Raises:
        ValueError: `input_order` is neither ``HWC`` nor ``CHW``.
    """
    if input_order not in ("HWC", "CHW"):
        raise ValueError(f"Wrong input_order {input_order}. Supported input_orders are 'HWC' and 'CHW'")
    if img.ndim == 2:
        return img[..., None]
    return img.transpose(1, 2, 0) if input_order == "CHW" else img


def to_y_channel(img: np.ndarray) -> np.ndarray:
    """A BGR image (H, W, 3) in [0, 255] to its luma (H, W, 1) in [0, 255], not rounded; others as they are."""
    values = img.astype(np.float32) / 255.0
    if values.ndim == 3 and values.shape[2] == 3:
        values = bgr2ycbcr(values, y_only=True)[..., None]
    return values * 255.0
