"""Learned perceptual image patch similarity."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from ...losses.lpips import TRUNKS, Net, build_lpips
from ..annotations import NonNegative, Positive
from . import metric
from .images import AnyImage, ColorOrder, InputOrder, for_network


@metric("lower", "lpips")
def calculate_lpips(
    img: AnyImage,
    img2: AnyImage,
    net: Net = "alex",
    weights: str | None = None,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """LPIPS (Zhang et al., CVPR 2018), version 0.1: a calibrated distance of deep features. Lower is better.

    Paper: Zhang et al., CVPR 2018. Constants: the package lpips' 0.1: its linear layers, torchvision's trunks. Input: RGB;
    integers, or floats in [0, 1] or [0, 255], clipped. Least size: 31 pixels a side with ``alex``, 16 with ``vgg``, 17 with
    ``squeeze``; a smaller image is an error.

    Runs on the device of `img` if that is a tensor, else on a GPU if there is one, in float32. The network is built once
    per process and device.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges. Clipped.
        img2: ground truth.
        net: trunk: ``alex`` in most tables, ``vgg`` or ``squeeze``.
        weights: file with torchvision's state dict of the trunk; downloaded to torch's hub cache when omitted;
            ``random`` for fixed random weights (for tests, no measure of anything).
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: lpips or the trunk's weights are missing, or images are too small or not RGB.
    """
    how = (crop_border, data_range, color_order, input_order)
    pair, device = for_network("calculate_lpips", img, img2, TRUNKS[net][1], *how)
    x, y = ((p / 127.5 - 1).float().to(device) for p in pair)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        return float(network(net, weights, device)(x, y))


@lru_cache(maxsize=4)
def network(net: Net, weights: str | None, device: torch.device) -> nn.Module:
    """The network on its device, built once. Built outside inference mode, where its parameters could not be reused."""
    with torch.inference_mode(False):
        return build_lpips("calculate_lpips", net, weights).requires_grad_(False).eval().to(device)
