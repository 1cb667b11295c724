"""Scores of optical flow: end-point error, and KITTI's share of outliers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from . import metric
from .images import AnyImage, InputOrder

UNKNOWN = 1e9
"""Components above this say that nothing is known of a pixel (the .flo files of Middlebury and Sintel)."""


def errors(owner: str, flow: AnyImage, truth: AnyImage, input_order: InputOrder) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the differences of two flows, and of the true ones, in pixels: (n,), of what is known.

    Args:
        owner: the metric, for messages.
        flow, truth: tensors (2 k, H, W) or (1, 2 k, H, W), arrays (H, W, 2 k) unless ``input_order: CHW``: k displacements
            (x, y) in pixels, 2 of frame interpolation (to both frames). The truth may have one channel more, which is 0 where
            it is not valid, as in KITTI's files. Where it exceeds `UNKNOWN` it is left out, too.

    Raises:
        UserError: shapes that do not fit, or nothing of the truth is known.
    """
    a, b = (_channels_last(owner, x, input_order) for x in (flow, truth))
    known = np.ones(b.shape[:2], bool)
    if b.shape[2] == a.shape[2] + 1:
        known, b = b[..., -1] != 0, b[..., :-1]
    if a.shape != b.shape or a.shape[2] % 2:
        raise UserError(f"{owner}: flow of shape {a.shape} and truth of {b.shape}; both have (H, W, 2), in pixels")
    vectors = [x.reshape(*x.shape[:2], -1, 2) for x in (a, b)]
    known = known[..., None] & ~(np.abs(vectors[1]) > UNKNOWN).any(-1)
    if not known.any():
        raise UserError(f"{owner}: nothing is known of the true flow")
    mine, true = (v[known] for v in vectors)
    return np.linalg.norm(mine - true, axis=-1), np.linalg.norm(true, axis=-1)


def _channels_last(owner: str, flow: AnyImage, input_order: InputOrder) -> np.ndarray:
    first = isinstance(flow, Tensor) or input_order == "CHW"
    array = flow.detach().to("cpu", torch.float64).numpy() if isinstance(flow, Tensor) else np.asarray(flow)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise UserError(f"{owner}: flow has three dimensions, none of them empty; got {array.dtype} {array.shape}")
    return (np.moveaxis(array, 0, 2) if first else array).astype(np.float64)


@metric("lower", "epe", space="flow")
def calculate_epe(img: AnyImage, img2: AnyImage, input_order: InputOrder = "HWC") -> float:
    """End-point error: the mean length in pixels of the difference to the true flow (Baker et al., IJCV 2011). Lower is better.

    Paper: Baker et al., IJCV 2011. Constants: none. Input: flow of 2 channels, pixels to the right and down. Least size: 1
    pixel a side.

    NaN where a flow is not finite. There is no least size.

    Args:
        img: flow; see `errors` for layouts.
        img2: the true flow.
        input_order: layout of arrays.

    Raises:
        UserError: shapes that do not fit, or nothing of the truth is known.
    """
    return float(errors("calculate_epe", img, img2, input_order)[0].mean())


@metric("lower", "fl_all", space="flow")
def calculate_fl_all(img: AnyImage, img2: AnyImage, input_order: InputOrder = "HWC") -> float:
    """KITTI 2015's Fl-all: percentage of pixels whose end-point error is above 3 pixels *and* above 5 % of the true length
    (Menze and Geiger, CVPR 2015; their development kit's limits). Lower is better.

    Paper: Menze and Geiger, CVPR 2015. Constants: their development kit's, 3 pixels and 5 %. Input: flow of 2 channels,
    pixels to the right and down. Least size: 1 pixel a side.

    NaN where a flow is not finite. There is no least size.

    Args:
        img: flow; see `errors` for layouts.
        img2: the true flow.
        input_order: layout of arrays.

    Raises:
        UserError: shapes that do not fit, or nothing of the truth is known.
    """
    error, length = errors("calculate_fl_all", img, img2, input_order)
    if not np.isfinite(error).all():
        return math.nan
    return 100.0 * float(((error > 3.0) & (error > 0.05 * length)).mean())
