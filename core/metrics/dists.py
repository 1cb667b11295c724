"""Deep image structure and texture similarity."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

from ...losses.dists import SMALLEST_SIDE, DISTSLoss
from ..annotations import Count, NonNegative, Positive
from . import metric
from .images import AnyImage, ColorOrder, InputOrder, for_network

SHORTER_SIDE = 256
"""What the published figures are of."""


@metric("lower", "dists")
def calculate_dists(
    img: AnyImage,
    img2: AnyImage,
    weights: str | None = None,
    vgg_weights: str | None = None,
    shorter_side: Count | None = SHORTER_SIDE,
    crop_border: NonNegative = 0,
    input_order: InputOrder = "HWC",
    color_order: ColorOrder | None = None,
    data_range: Positive | None = None,
) -> float:
    """DISTS (Ding et al., IEEE TPAMI 2022): structure and texture of VGG16's features compared. Lower is better.

    Paper: Ding et al., IEEE TPAMI 2022. Constants: alpha and beta of the original repository, VGG16 of torchvision. Input: RGB;
    integers, or floats in [0, 1] or [0, 255], clipped. Least size: 16 pixels a side; a smaller image is an error.

    Runs on the device of `img` if that is a tensor, else on a GPU if there is one, in float32. The network is built once
    per process and device.

    Args:
        img: result; see `relume.core.metrics.images` for layouts and value ranges. Clipped.
        img2: ground truth.
        weights: file with alpha and beta; those of the installed package dists-pytorch when omitted.
        vgg_weights: file with torchvision's state dict of ``vgg16``; downloaded to torch's hub cache when omitted; ``random``
            for fixed random weights (for tests, no measure of anything).
        shorter_side: both images are first resized (bilinear, antialiased) so that their shorter side is this, if it is
            longer, as for the published figures; null for their own size.
        crop_border: pixels to ignore on every side.
        input_order: layout of arrays.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        data_range: full scale; from the images when omitted.

    Raises:
        UserError: weights are missing, or images are too small or not RGB.
    """
    how = (crop_border, data_range, color_order, input_order)
    pair, device = for_network("calculate_dists", img, img2, SMALLEST_SIDE, *how)
    x, y = ((p / 255).float().to(device) for p in pair)
    height, width = x.shape[2:]
    if shorter_side is not None and min(height, width) > shorter_side:
        size = [shorter_side * side // min(height, width) for side in (height, width)]
        x, y = (F.interpolate(image, size, mode="bilinear", antialias=True) for image in (x, y))
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        return float(network(weights, vgg_weights, device).score(x, y))


@lru_cache(maxsize=4)
def network(weights: str | None, vgg_weights: str | None, device: torch.device) -> DISTSLoss:
    """The network on its device, built once. Built outside inference mode, where its parameters could not be reused."""
    with torch.inference_mode(False):
        return DISTSLoss(weights=weights, vgg_weights=vgg_weights).to(device)
