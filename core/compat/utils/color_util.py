"""YCbCr of ITU-R BT.601 in studio swing, as Matlab has it; arrays are uint8 or floats in [0, 1], and come back as the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FROM_RGB = np.array([[65.481, -37.797, 112.0], [128.553, -74.203, -93.786], [24.966, 112.0, -18.214]])
"""Columns are Y, Cb, Cr of R, G and B in [0, 1]."""
OFFSET = np.array([16.0, 128.0, 128.0])
TO_RGB = np.linalg.inv(FROM_RGB)


def _scaled(img: np.ndarray) -> np.ndarray:
    if img.dtype not in (np.uint8, np.float32):
        raise TypeError(f"The img type should be np.float32 or np.uint8, but got {img.dtype}")
    return img.astype(np.float64) / (255.0 if img.dtype == np.uint8 else 1.0)


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in [0, 255] as uint8, or as floats in [0, 1]."""
    made = values.round().clip(0, 255) if dtype == np.uint8 else values / 255.0
    return np.asarray(made.astype(dtype))


def rgb2ycbcr(img: np.ndarray, y_only: bool = False) -> np.ndarray:
    """(..., 3) RGB to YCbCr, or to Y (...)."""
    values = _scaled(img) @ FROM_RGB + OFFSET
    return _as(values[..., 0] if y_only else values, img.dtype)


def bgr2ycbcr(img: np.ndarray, y_only: bool = False) -> np.ndarray:
    """As `rgb2ycbcr`, from BGR."""
    return rgb2ycbcr(img[..., ::-1], y_only)


def ycbcr2rgb(img: np.ndarray) -> np.ndarray:
    """The inverse of `rgb2ycbcr`."""
    return _as((_scaled(img) * 255 - OFFSET) @ TO_RGB * 255, img.dtype)


def ycbcr2bgr(img: np.ndarray) -> np.ndarray:
    """The inverse of `bgr2ycbcr`."""
    return np.ascontiguousarray(ycbcr2rgb(img)[..., ::-1])


def rgb2ycbcr_pt(img: Tensor, y_only: bool = False) -> Tensor:
    """(N, 3, H, W) in [0, 1] to YCbCr in [0, 1], or to Y (N, 1, H, W)."""
    matrix = torch.as_tensor(FROM_RGB, dtype=img.dtype, device=img.device)
    offset = torch.as_tensor(OFFSET, dtype=img.dtype, device=img.device)
    values = (torch.einsum("nchw,cd->ndhw", img, matrix) + offset[:, None, None]) / 255.0
    return values[:, :1] if y_only else values
