"""Matlab's bicubic ``imresize``, with which the field makes its low-resolution images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, elementwise: any shape -> the same."""
    a = x.abs()
    near = 1.5 * a**3 - 2.5 * a**2 + 1
    far = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return near * (a <= 1) + far * ((a > 1) & (a <= 2))


def _weights(length: int, scale: float, antialiasing: bool) -> Tensor:
    """The matrix (ceil(length * scale), length) that resizes one axis; beyond the border, pixels are mirrored, the outermost
    ones repeated."""
    out = math.ceil(length * scale)
    stretch = min(scale, 1.0) if antialiasing else 1.0
    centres = (torch.arange(out, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = math.ceil(4 / stretch) + 2
    places = torch.floor(centres - 2 / stretch)[:, None] + torch.arange(reach)[None]
    weights = stretch * cubic((centres[:, None] - places) * stretch)
    weights = weights / weights.sum(1, keepdim=True)
    mirrored = places.long() % (2 * length)
    mirrored = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    return torch.zeros(out, length, dtype=torch.float64).scatter_add_(1, mirrored, weights)


@torch.no_grad()
def imresize(img: Any, scale: float, antialiasing: bool = True) -> Any:
    """Resize an array (H, W, C) or (H, W), or a tensor (C, H, W) or (H, W), of values in [0, 1]; not clipped.

    Matlab resizes along the axis with the smaller factor first; the factors are equal here, so the order does not matter but
    for rounding.
    """
    is_array = isinstance(img, np.ndarray)
    values = torch.from_numpy(np.ascontiguousarray(img)) if is_array else img
    channels_last = is_array and values.dim() == 3
    values = values.permute(2, 0, 1) if channels_last else values
    rows = _weights(values.shape[-2], scale, antialiasing).to(values.device)
    columns = _weights(values.shape[-1], scale, antialiasing).to(values.device)
    made = (rows @ values.double() @ columns.T).float()
    made = made.permute(1, 2, 0) if channels_last else made
    return np.ascontiguousarray(made.numpy()) if is_array else made
